#include "engine/leaf_index.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/leaf_builder.h"
#include "engine/require.h"
#include "engine/rounding.h"
#include "engine/threads.h"

namespace inreach {
namespace {

bool finite(const StoredArray<float>& values) {
    return std::all_of(values.data(), values.data() + values.size(),
                       [](float value) { return std::isfinite(value); });
}

}  // namespace

LeafIndex::LeafIndex(const Basis& basis, const RowSet& rows, const ProjectedRows* projected) {
    LeafBuilder builder(basis, rows, projected);
    arrays_ = builder.allocate();
    builder.fill(arrays_);
    lay_out(basis, rows.count, builder.leaves());
    find_centre_norm();
}

LeafIndex::LeafIndex(const Basis& basis, size_t rows, LeafArrays arrays) : arrays_(std::move(arrays)) {
    require(arrays_.row_of.size() % kBlockRows == 0, "LeafIndex: leaves are not whole");
    lay_out(basis, rows, arrays_.row_of.size() / kBlockRows);
    check_sizes();
    require(finite(arrays_.branch_centres) && finite(arrays_.branch_starts) && finite(arrays_.branch_radii) &&
                finite(arrays_.leaf_centres) && finite(arrays_.leaf_starts) && finite(arrays_.leaf_radii) &&
                finite(arrays_.leaf_numbers) && finite(arrays_.group_centres) && finite(arrays_.group_steps),
            "LeafIndex: a ball is not finite");
    require(rows <= kMostRows && rows <= arrays_.row_of.size() + arrays_.unbounded.size(),
            "LeafIndex: some rows are in no leaf");
    std::vector<bool> met(rows, false);
    const auto meet = [&](uint32_t row) {
        require(row < rows && !met[row], "LeafIndex: a row number occurs twice or is none");
        met[row] = true;
    };
    size_t seen = arrays_.unbounded.size();
    for (size_t i = 0; i < arrays_.unbounded.size(); ++i) meet(arrays_.unbounded[i]);
    for (size_t i = 0; i < arrays_.row_of.size(); ++i) {
        if (i % 65536 == 0) stop_point();
        if (arrays_.row_of[i] == kNoRow) continue;
        meet(arrays_.row_of[i]);
        ++seen;
    }
    require(seen == rows, "LeafIndex: some rows are in no leaf");
    find_centre_norm();
}

void LeafIndex::lay_out(const Basis& basis, size_t rows, size_t leaves) {
    basis_id_ = basis.id();
    rows_indexed_ = rows;
    rank_ = basis.rank();
    middle_ = basis.middle();
    leaves_ = leaves;
    branches_ = (leaves + kLeavesPerBranch - 1) / kLeavesPerBranch;
}

void LeafIndex::check_sizes() {
    const LeafArrays& a = arrays_;
    const size_t places = leaves_ * kBlockRows, blocks = branch_blocks();
    const size_t groups = (leaves_ + kLeavesPerGroup - 1) / kLeavesPerGroup;
    require(a.branch_centres.size() == blocks * kBallDepth * kBlockRows &&
                a.branch_starts.size() == blocks * kBlockRows &&
                a.branch_radii.size() == blocks * kBlockRows &&
                a.leaf_centres.size() == branches_ * kBallDepth * kBlockRows &&
                a.leaf_starts.size() == branches_ * kBlockRows &&
                a.leaf_radii.size() == branches_ * kBlockRows && a.leaf_numbers.size() == leaves_ * 4 &&
                a.group_centres.size() == groups * kScanDims && a.group_steps.size() == groups &&
                a.first_codes.size() == places * kScanDims && a.first_tails.size() == places &&
                a.first_halves.size() == places && a.code_centres.size() == leaves_ * rank_ &&
                a.code_steps.size() == leaves_ * (rank_ / kCodeGroup) &&
                a.middle_codes.size() == places * middle_width() &&
                a.last_codes.size() == places * last_width() && a.row_rests.size() == places * 4,
            "LeafIndex: the sizes of its arrays do not fit each other, the basis or the number of rows");
}

void LeafIndex::find_centre_norm() {
    double largest = 0.0;
    const auto look = [&](const float* block) {
        for (size_t j = 0; j < kBlockRows; ++j) {
            double sq = 0.0;
            for (size_t d = 0; d < kBallDepth; ++d) {
                const double value = block[d * kBlockRows + j];
                sq += value * value;
            }
            largest = std::max(largest, sq);
        }
    };
    for (size_t b = 0; b < branch_blocks(); ++b) look(branch_centres(b));
    for (size_t b = 0; b < branches_; ++b) look(leaf_centres(b));
    centre_norm_ = round_up(std::sqrt(largest) * (1.0 + 1e-9));
}

size_t LeafIndex::bytes() const {
    size_t total = 0;
    LeafArrays::each(arrays_,
                     [&](const char*, const auto& array) { total += array.size() * sizeof(array[0]); });
    return total;
}

std::shared_ptr<const LeafIndex> make_leaf_index(const Basis& basis, const RowSet& rows,
                                                 const ProjectedRows* projected) {
    return std::make_shared<const LeafIndex>(basis, rows, projected);
}

}  // namespace inreach
