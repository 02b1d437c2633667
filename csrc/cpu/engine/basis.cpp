#include "engine/basis.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "dispatch.h"
#include "engine/panels.h"
#include "engine/require.h"
#include "engine/rounding.h"

namespace inreach {
namespace {

// Dimensions summed in float32 by one chain; chains are summed in float64. What rounding may have done to a
// coordinate, and more so to the length of what the coordinates miss, loosens every bound.
constexpr size_t kChunk = 32;
// Rows projected together: 8 tiles reuse a block of directions that is in cache.
constexpr size_t kTile = 8 * kTileRows;

std::atomic<uint64_t> next_id{1};

}  // namespace

Basis::Basis(Frame frame, size_t dim, size_t rank, const float* directions, double defect)
    : id_(next_id.fetch_add(1)),
      frame_(std::move(frame)),
      dim_(dim),
      rank_((rank + kBlockRows - 1) / kBlockRows * kBlockRows),
      spans_all_(rank >= dim),
      defect_(defect),
      lipschitz_(std::sqrt(1.0 + defect * (1.0 + defect))),
      packed_(rank_ * dim) {
    static_assert(kScanDims == kBlockRows, "the rank is rounded up to whole blocks");
    require(dim > 0 && rank > 0 && rank_ <= kMostRank,
            "Basis: expected 1 to 512 directions of at least 1 value");
    require(frame_.dim() == dim && frame_.valid(),
            "Basis: expected a finite centre and a power of two as scale");
    require(defect >= 0.0 && defect < 1.0, "Basis: the directions are not orthonormal");
    require(
        std::all_of(directions, directions + rank * dim, [](float value) { return std::isfinite(value); }),
        "Basis: a direction is not finite");
    for (size_t b = 0; b < rank_ / kBlockRows; ++b)
        for (size_t d = 0; d < dim; ++d) {
            const size_t chunk = d / kChunk * kChunk, depth = std::min(kChunk, dim - chunk);
            float* const strips = packed_.data() + (b * dim + chunk) * kBlockRows + (d - chunk) * kStripRows;
            for (size_t j = 0; j < kBlockRows; ++j) {
                const size_t r = b * kBlockRows + j;
                strips[j / kStripRows * depth * kStripRows + j % kStripRows] =
                    r < rank ? directions[r * dim + d] : 0.0f;
            }
        }
}

void Basis::project(const RowSet& rows, size_t first, size_t count, size_t width, float* coordinates,
                    RowFrame* frames) const {
    const KernelTable& table = kernels();
    Panels panels(kTile, dim_, kChunk);
    AlignedArray<float> scratch(kTileRows * dim_), parts(kTile * kBlockRows);
    AlignedArray<double> sums(kTile * kBlockRows);
    // A chain and its first product; the sum of chains in float64, and its rounding to float32.
    const double chain = gamma32(kChunk + 2);
    for (size_t tile = 0; tile < count; tile += kTile) {
        const size_t tile_rows = std::min(kTile, count - tile);
        double sq_norm[kTile];
        bool usable[kTile];
        for (size_t r = 0; r < tile_rows; r += kTileRows)
            panels.set(r, frame_, rows, first + tile + r, std::min<size_t>(kTileRows, tile_rows - r),
                       sq_norm + r, usable + r, scratch.data());
        for (size_t b = 0; b < width / kBlockRows; ++b) {
            for (size_t d = 0; d < dim_; d += kChunk) {
                table.dot_panels(packed_.data() + (b * dim_ + d) * kBlockRows, panels.at(0, d),
                                 panels.depth(d), tile_rows, kBlockRows, nullptr, false, nullptr,
                                 parts.data(), nullptr);
                if (d == 0)
                    std::copy(parts.data(), parts.data() + tile_rows * kBlockRows, sums.data());
                else
                    table.add_to_sums(parts.data(), tile_rows * kBlockRows, sums.data());
            }
            for (size_t r = 0; r < tile_rows; ++r)
                std::copy(sums.data() + r * kBlockRows, sums.data() + (r + 1) * kBlockRows,
                          coordinates + (tile + r) * width + b * kBlockRows);
        }
        for (size_t r = 0; r < tile_rows; ++r) {
            RowFrame& frame = frames[tile + r];
            frame = RowFrame{};
            frame.usable = usable[r];
            if (!usable[r]) continue;
            const float* z = coordinates + (tile + r) * width;
            const double norm = std::sqrt(sq_norm[r]);
            // |computed V s - V s|: each coordinate off by chain * |v||s|, |v| <= 1 + defect.
            const double projection = std::sqrt(static_cast<double>(rank_)) * chain * (1.0 + defect_) * norm;
            // Squared tails are off by what the defect and the projection do to |V s|^2.
            const double tail_sq_error =
                sq_norm[r] * (defect_ * (1.0 + defect_) + static_cast<double>(dim_) * 0x1p-52) +
                projection * (2.0 * (1.0 + defect_) * norm + projection);
            double sq = 0.0;
            size_t seen = 0;
            double tail_error = 0.0;
            // Length of all but the leading `leading` coordinates; asked for more and more of them.
            const auto tail = [&](size_t leading) {
                if (width < leading) return 0.0f;
                for (; seen < leading; ++seen) sq += static_cast<double>(z[seen]) * z[seen];
                if (spans_all_ && leading >= dim_) return 0.0f;
                const double length = std::sqrt(std::max(0.0, sq_norm[r] - sq));
                const double root = std::sqrt(tail_sq_error);
                tail_error =
                    std::max(tail_error, length > 0.0 ? std::min(root, tail_sq_error / length) : root);
                return static_cast<float>(length);
            };
            frame.ball_tail = tail(kBallDims);
            frame.scan_tail = tail(kScanDims);
            frame.middle_tail = tail(middle());
            frame.full_tail = tail(rank_);
            frame.norm = round_up(norm * (1.0 + 1e-6));
            // Standardizing: one rounding a value (and at worst the smallest subnormal), seen through Phi.
            const double centring = lipschitz_ * frame_.error(norm);
            // The tails themselves are rounded to float32, codes see coordinates divided by their step: 2 u
            // |s|.
            frame.error =
                round_up(1.001 * (centring + projection + tail_error + 4.0 * kUnit32 * norm) + kUnderflow);
        }
    }
}

std::shared_ptr<const Basis> make_basis(std::vector<double> centre, double scale, size_t rank,
                                        const float* directions, double defect) {
    const size_t dim = centre.size();
    return std::make_shared<const Basis>(Frame(std::move(centre), scale), dim, rank, directions, defect);
}

}  // namespace inreach
