#include "engine/leaf_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/rounding.h"
#include "engine/threads.h"

namespace inreach {
namespace {

constexpr size_t kProjectRows = 192;
constexpr size_t kVarianceSample = 512;
constexpr float kAbsentStart = -1e37f;

// Coordinate with the largest spread over (at most kVarianceSample of) the rows.
size_t widest(const float* heads, size_t depth, const uint32_t* ids, size_t count) {
    const size_t step = std::max<size_t>(1, count / kVarianceSample);
    std::vector<double> sum(depth, 0.0), square(depth, 0.0);
    double seen = 0.0;
    for (size_t i = 0; i < count; i += step, seen += 1.0)
        for (size_t d = 0; d < depth; ++d) {
            const double value = heads[ids[i] * depth + d];
            sum[d] += value;
            square[d] += value * value;
        }
    size_t best = 0;
    double widest_so_far = -1.0;
    for (size_t d = 0; d < depth; ++d) {
        const double variance = square[d] - sum[d] * sum[d] / seen;
        if (variance > widest_so_far) widest_so_far = variance, best = d;
    }
    return best;
}

struct Span {
    size_t begin, end;
};

// Halves ids[begin, end) at the median of its widest coordinate, at a multiple of 64 rows.
size_t halve(const float* heads, size_t depth, uint32_t* ids, Span span) {
    const size_t count = span.end - span.begin;
    const size_t leaves = (count + kBlockRows - 1) / kBlockRows;
    const size_t half = leaves / 2 * kBlockRows;
    const size_t d = widest(heads, depth, ids + span.begin, count);
    std::nth_element(ids + span.begin, ids + span.begin + half, ids + span.end, [&](uint32_t a, uint32_t b) {
        const float x = heads[a * depth + d], y = heads[b * depth + d];
        return x < y || (x == y && a < b);
    });
    return span.begin + half;
}

void split(const float* heads, size_t depth, uint32_t* ids, Span span) {
    if (span.end - span.begin <= kBlockRows) return;
    const size_t middle = halve(heads, depth, ids, span);
    split(heads, depth, ids, {span.begin, middle});
    split(heads, depth, ids, {middle, span.end});
}

}  // namespace

LeafIndex::LeafIndex(const Basis& basis, const RowSet& rows, const ProjectedRows* projected) {
    const size_t n = rows.count;
    lay_out(basis, n);
    arrays_.codes = StoredArray<int8_t>(n * code_stride_);

    AlignedArray<float> heads(n * depth_);
    std::vector<RowFrame> own_frames(projected ? 0 : n);
    const std::vector<RowFrame>& frames = projected ? projected->frames : own_frames;
    parallel_for((n + kProjectRows - 1) / kProjectRows, [&](size_t task, int) {
        const size_t first = task * kProjectRows;
        const size_t count = std::min(kProjectRows, n - first);
        AlignedArray<float> own(projected ? 0 : count * basis.rank());
        const float* coordinates = own.data();
        if (projected)
            coordinates = projected->coordinates.data() + first * basis.rank();
        else
            basis.project(rows, first, count, own.data(), own_frames.data() + first);
        for (size_t i = 0; i < count; ++i) {
            const float* z = coordinates + i * basis.rank();
            float* head = heads.data() + (first + i) * depth_;
            std::copy(z, z + basis.head(), head);
            head[basis.head()] = frames[first + i].head_tail;
            encode(basis, z, frames[first + i], arrays_.codes.own() + (first + i) * code_stride_);
        }
    });

    std::vector<uint32_t> ids, unbounded;
    ids.reserve(n);
    for (uint32_t i = 0; i < n; ++i) {
        if (frames[i].usable)
            ids.push_back(i);
        else
            unbounded.push_back(i);
    }
    // Halve breadth-first until there is work for every thread, then each piece on its own.
    std::vector<Span> pieces{{0, ids.size()}};
    while (pieces.size() < 4 * static_cast<size_t>(num_threads())) {
        std::vector<Span> next;
        for (const Span piece : pieces) {
            if (piece.end - piece.begin <= kBlockRows) {
                next.push_back(piece);
                continue;
            }
            const size_t middle = halve(heads.data(), depth_, ids.data(), piece);
            next.push_back({piece.begin, middle});
            next.push_back({middle, piece.end});
        }
        if (next.size() == pieces.size()) break;
        pieces.swap(next);
    }
    parallel_for(pieces.size(), [&](size_t i, int) { split(heads.data(), depth_, ids.data(), pieces[i]); });

    leaves_ = (ids.size() + kBlockRows - 1) / kBlockRows;
    const size_t centre_blocks = (leaves_ + kBlockRows - 1) / kBlockRows;
    arrays_.unbounded = StoredArray<uint32_t>(unbounded.size());
    std::copy(unbounded.begin(), unbounded.end(), arrays_.unbounded.own());
    arrays_.blocks = StoredArray<float>(leaves_ * depth_ * kBlockRows);
    arrays_.starts = StoredArray<float>(leaves_ * kBlockRows);
    arrays_.row_of = StoredArray<uint32_t>(leaves_ * kBlockRows);
    arrays_.errors = StoredArray<float>(leaves_);
    arrays_.norms = StoredArray<float>(leaves_);
    arrays_.centres = StoredArray<float>(centre_blocks * depth_ * kBlockRows);
    arrays_.centre_starts = StoredArray<float>(centre_blocks * kBlockRows);
    arrays_.radii = StoredArray<float>(centre_blocks * kBlockRows);
    std::fill_n(arrays_.errors.own(), leaves_, 0.0f);
    std::fill_n(arrays_.norms.own(), leaves_, 0.0f);
    std::fill_n(arrays_.centres.own(), arrays_.centres.size(), 0.0f);
    // Places without a leaf are as far off as can be: their start makes every dot product hopeless.
    std::fill_n(arrays_.centre_starts.own(), arrays_.centre_starts.size(), kAbsentStart);
    std::fill_n(arrays_.radii.own(), arrays_.radii.size(), 0.0f);

    parallel_for(leaves_, [&](size_t leaf, int) {
        const size_t first = leaf * kBlockRows;
        const size_t count = std::min<size_t>(kBlockRows, ids.size() - first);
        float* block = arrays_.blocks.own() + leaf * depth_ * kBlockRows;
        std::vector<double> centre(depth_, 0.0);
        for (size_t j = 0; j < kBlockRows; ++j) {
            const bool present = j < count;
            const uint32_t id = present ? ids[first + j] : kNoRow;
            arrays_.row_of.own()[first + j] = id;
            double sq = 0.0;
            for (size_t d = 0; d < depth_; ++d) {
                const float value = present ? heads[id * depth_ + d] : 0.0f;
                block[d * kBlockRows + j] = value;
                centre[d] += value;
                sq += static_cast<double>(value) * value;
            }
            arrays_.starts.own()[first + j] =
                present ? static_cast<float>(-0.5 * sq) : -std::numeric_limits<float>::max();
            if (present) {
                arrays_.errors.own()[leaf] = std::max(arrays_.errors[leaf], frames[id].error);
                arrays_.norms.own()[leaf] = std::max(arrays_.norms[leaf], frames[id].norm);
            }
        }
        double centre_sq = 0.0, radius_sq = 0.0;
        std::vector<float> stored(depth_);
        float* column = arrays_.centres.own() + leaf / kBlockRows * depth_ * kBlockRows + leaf % kBlockRows;
        for (size_t d = 0; d < depth_; ++d) {
            stored[d] = static_cast<float>(centre[d] / static_cast<double>(count));
            column[d * kBlockRows] = stored[d];
            centre_sq += static_cast<double>(stored[d]) * stored[d];
        }
        for (size_t j = 0; j < count; ++j) {
            double sq = 0.0;
            for (size_t d = 0; d < depth_; ++d) {
                const double difference = static_cast<double>(block[d * kBlockRows + j]) - stored[d];
                sq += difference * difference;
            }
            radius_sq = std::max(radius_sq, sq);
        }
        arrays_.centre_starts.own()[leaf] = static_cast<float>(-0.5 * centre_sq);
        arrays_.radii.own()[leaf] = round_up(std::sqrt(radius_sq) * (1.0 + 1e-9) + arrays_.errors[leaf]);
    });
    centre_norm_ = largest_centre_norm();
}

LeafIndex::LeafIndex(const Basis& basis, size_t rows, Arrays arrays) : arrays_(std::move(arrays)) {
    lay_out(basis, rows);
    leaves_ = arrays_.errors.size();
    const size_t centre_blocks = (leaves_ + kBlockRows - 1) / kBlockRows;
    const auto require = [](bool right, const char* what) {
        if (!right) throw std::invalid_argument(std::string("LeafIndex: ") + what);
    };
    require(arrays_.norms.size() == leaves_ && arrays_.starts.size() == leaves_ * kBlockRows &&
                arrays_.row_of.size() == leaves_ * kBlockRows &&
                arrays_.blocks.size() == leaves_ * depth_ * kBlockRows &&
                arrays_.centres.size() == centre_blocks * depth_ * kBlockRows &&
                arrays_.centre_starts.size() == centre_blocks * kBlockRows &&
                arrays_.radii.size() == centre_blocks * kBlockRows &&
                arrays_.codes.size() == rows * code_stride_,
            "the sizes of its arrays do not fit each other, the basis or the number of rows");
    const auto finite = [](const StoredArray<float>& values) {
        return std::all_of(values.data(), values.data() + values.size(),
                           [](float value) { return std::isfinite(value); });
    };
    require(finite(arrays_.errors) && finite(arrays_.norms) && finite(arrays_.centres) &&
                finite(arrays_.centre_starts) && finite(arrays_.radii),
            "a ball is not finite");
    std::vector<bool> met(rows, false);
    const auto meet = [&](uint32_t row) {
        require(row < rows && !met[row], "a row number occurs twice or is none");
        met[row] = true;
    };
    size_t seen = arrays_.unbounded.size();
    for (size_t i = 0; i < arrays_.unbounded.size(); ++i) meet(arrays_.unbounded[i]);
    for (size_t i = 0; i < arrays_.row_of.size(); ++i) {
        if (arrays_.row_of[i] == kNoRow) continue;
        meet(arrays_.row_of[i]);
        ++seen;
    }
    require(seen == rows, "some rows are in no leaf");
    centre_norm_ = largest_centre_norm();
}

void LeafIndex::lay_out(const Basis& basis, size_t rows) {
    rows_indexed_ = rows;
    depth_ = basis.head() + 1;
    groups_ = basis.groups();
    code_stride_ = (groups_ * kCodeGroup + 3 * sizeof(float) + 63) / 64 * 64;
}

float LeafIndex::largest_centre_norm() const {
    double largest = 0.0;
    for (size_t leaf = 0; leaf < leaves_; ++leaf) {
        const float* const column = centres(leaf / kBlockRows) + leaf % kBlockRows;
        double sq = 0.0;
        for (size_t d = 0; d < depth_; ++d)
            sq += static_cast<double>(column[d * kBlockRows]) * column[d * kBlockRows];
        largest = std::max(largest, sq);
    }
    return round_up(std::sqrt(largest) * (1.0 + 1e-9));
}

void LeafIndex::encode(const Basis& basis, const float* coordinates, const RowFrame& frame,
                       int8_t* record) const {
    double residue_sq = 0.0;
    for (size_t g = 0; g < groups_; ++g) {
        const double step = basis.step()[g];
        for (size_t i = 0; i < kCodeGroup; ++i) {
            const double value = coordinates[basis.head() + g * kCodeGroup + i];
            const double code = std::max(-127.0, std::min(127.0, std::nearbyint(value / step)));
            record[g * kCodeGroup + i] = static_cast<int8_t>(code);
            const double missed = value - code * step;
            residue_sq += missed * missed;
        }
    }
    const float floats[3] = {frame.head_tail, frame.full_tail,
                             round_up(std::sqrt(residue_sq) * (1.0 + 1e-9))};
    int8_t* const end = record + groups_ * kCodeGroup;
    std::memcpy(end, floats, sizeof floats);
    std::memset(end + sizeof floats, 0, code_stride_ - groups_ * kCodeGroup - sizeof floats);
}

LeafIndex::CodeRecord LeafIndex::code(uint32_t row) const {
    const int8_t* const record = arrays_.codes.data() + row * code_stride_;
    float floats[3];
    std::memcpy(floats, record + groups_ * kCodeGroup, sizeof floats);
    return {record, floats[0], floats[1], floats[2]};
}

size_t LeafIndex::bytes() const {
    return (arrays_.blocks.size() + arrays_.starts.size() + arrays_.centres.size() +
            arrays_.centre_starts.size() + arrays_.radii.size() + arrays_.errors.size() +
            arrays_.norms.size()) *
               sizeof(float) +
           (arrays_.row_of.size() + arrays_.unbounded.size()) * sizeof(uint32_t) + arrays_.codes.size();
}

}  // namespace inreach
