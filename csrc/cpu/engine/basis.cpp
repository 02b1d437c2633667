#include "engine/basis.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "dispatch.h"
#include "engine/rounding.h"

namespace inreach {
namespace {

// Dimensions summed in one go by the projection: 128 x 64 floats stay in the first-level cache, and short
// chains keep the rounding bound small.
constexpr size_t kChunk = 128;
constexpr size_t kTile = 8 * kTileRows;

// Codes reach to this many standard deviations of their group; what lies beyond is clipped, which the row's
// own residue accounts for.
constexpr double kCodeReach = 6.0;

// Where nothing varies the step must still be positive.
constexpr double kLeastStep = 1e-6;
static_assert(kUsableNorm / kLeastStep < 1.5e19, "squares of rows in units of a step must fit float32");

// nearest_pruned's allowance for rounding covers this many groups of codes.
constexpr size_t kMostGroups = 14;

}  // namespace

Basis::Basis(Frame frame, size_t dim, size_t rank, const float* directions, const double* deviation,
             double defect)
    : frame_(std::move(frame)),
      dim_(dim),
      rank_((rank + kBlockRows - 1) / kBlockRows * kBlockRows),
      head_(std::min<size_t>(32, rank_)),
      groups_((rank_ - head_) / kCodeGroup),
      spans_all_(rank >= dim),
      defect_(defect),
      lipschitz_(std::sqrt(1.0 + defect * (1.0 + defect))),
      packed_(rank_ * dim) {
    if (groups_ > kMostGroups) throw std::invalid_argument("Basis: at most 480 directions");
    for (size_t b = 0; b < rank_ / kBlockRows; ++b)
        for (size_t d = 0; d < dim; ++d)
            for (size_t j = 0; j < kBlockRows; ++j) {
                const size_t r = b * kBlockRows + j;
                packed_[(b * dim + d) * kBlockRows + j] = r < rank ? directions[r * dim + d] : 0.0f;
            }
    for (size_t g = 0; g < groups_; ++g) {
        double sum = 0.0;
        for (size_t i = 0; i < kCodeGroup; ++i) {
            const size_t r = head_ + g * kCodeGroup + i;
            if (r < rank) sum += deviation[r] * deviation[r];
        }
        const double step = kCodeReach * std::sqrt(sum / kCodeGroup) / 127.0;
        step_.push_back(static_cast<float>(std::max(step, kLeastStep)));
        step_sq_.push_back(step_.back() * step_.back());
    }
}

void Basis::project(const RowSet& rows, size_t first, size_t count, float* coordinates,
                    RowFrame* frames) const {
    const KernelTable& table = kernels();
    AlignedArray<float> standard(kTile * dim_);
    AlignedArray<float> sums(kTile * kBlockRows);
    // Chains: within a chunk, then over the chunks; one more for the product.
    const double chain = gamma32(kChunk + (dim_ + kChunk - 1) / kChunk + 2);
    for (size_t tile = 0; tile < count; tile += kTile) {
        const size_t width = std::min(kTile, count - tile);
        double sq_norm[kTile];
        bool usable[kTile];
        for (size_t r = 0; r < width; ++r) {
            float* const s = standard.data() + r * dim_;
            sq_norm[r] = frame_.standardize(rows.row(first + tile + r), s);
            usable[r] = sq_norm[r] < kUsableNorm * kUsableNorm;
            if (!usable[r]) std::fill(s, s + dim_, 0.0f);
        }
        for (size_t b = 0; b < rank_ / kBlockRows; ++b) {
            for (size_t d = 0; d < dim_; d += kChunk) {
                const size_t depth = std::min(kChunk, dim_ - d);
                const float* block = packed_.data() + (b * dim_ + d) * kBlockRows;
                for (size_t r = 0; r < width; r += kTileRows) {
                    const size_t group = std::min<size_t>(kTileRows, width - r);
                    float part[kTileRows * kBlockRows];
                    table.dot_tile(block, depth, standard.data() + r * dim_ + d, dim_, group, nullptr, false,
                                   part);
                    float* sum = sums.data() + r * kBlockRows;
                    if (d == 0)
                        std::copy(part, part + group * kBlockRows, sum);
                    else
                        for (size_t i = 0; i < group * kBlockRows; ++i) sum[i] += part[i];
                }
            }
            for (size_t r = 0; r < width; ++r)
                std::copy(sums.data() + r * kBlockRows, sums.data() + (r + 1) * kBlockRows,
                          coordinates + (tile + r) * rank_ + b * kBlockRows);
        }
        for (size_t r = 0; r < width; ++r) {
            RowFrame& frame = frames[tile + r];
            frame.usable = usable[r];
            if (!usable[r]) {
                frame.norm = frame.head_tail = frame.full_tail = frame.error = 0.0f;
                continue;
            }
            const float* z = coordinates + (tile + r) * rank_;
            double head_sq = 0.0, full_sq = 0.0;
            for (size_t i = 0; i < head_; ++i) head_sq += static_cast<double>(z[i]) * z[i];
            full_sq = head_sq;
            for (size_t i = head_; i < rank_; ++i) full_sq += static_cast<double>(z[i]) * z[i];
            const double norm = std::sqrt(sq_norm[r]);
            // |computed V s - V s|: each coordinate off by chain * |v||s|, |v| <= 1 + defect.
            const double projection = std::sqrt(static_cast<double>(rank_)) * chain * (1.0 + defect_) * norm;
            // Squared tails are off by what the defect and the projection do to |V s|^2.
            const double tail_sq_error =
                sq_norm[r] * (defect_ * (1.0 + defect_) + static_cast<double>(dim_) * 0x1p-52) +
                projection * (2.0 * (1.0 + defect_) * norm + projection);
            const double head_tail = std::sqrt(std::max(0.0, sq_norm[r] - head_sq));
            const double full_tail = std::sqrt(std::max(0.0, sq_norm[r] - full_sq));
            const auto root_error = [&](double tail) {
                return tail > 0.0 ? std::min(std::sqrt(tail_sq_error), tail_sq_error / tail)
                                  : std::sqrt(tail_sq_error);
            };
            const double tail_error =
                spans_all_ ? root_error(head_tail) : std::max(root_error(head_tail), root_error(full_tail));
            frame.norm = round_up(norm * (1.0 + 1e-6));
            frame.head_tail = static_cast<float>(head_tail);
            frame.full_tail = spans_all_ ? 0.0f : static_cast<float>(full_tail);
            // Standardizing: one rounding a value (and at worst the smallest subnormal), seen through Phi.
            const double centring = lipschitz_ * frame_.error(norm);
            // The tails themselves are rounded to float32, codes see coordinates divided by their step: 2 u
            // |s|.
            frame.error =
                round_up(1.001 * (centring + projection + tail_error + 4.0 * kUnit32 * norm) + kUnderflow);
        }
    }
}

}  // namespace inreach
