#include "engine/panels.h"

#include "dispatch.h"

namespace inreach {

void Panels::set(size_t at, const Frame& frame, const RowSet& rows, size_t first, size_t count,
                 double* sq_norm, bool* usable, float* scratch) {
    for (size_t i = 0; i < kTileRows; ++i) {
        float* const row = scratch + i * dim_;
        if (i < count) {
            sq_norm[i] = frame.standardize(rows.row(first + i), row);
            usable[i] = sq_norm[i] < kUsableNorm * kUsableNorm;
        }
        if (i >= count || !usable[i]) std::fill(row, row + dim_, 0.0f);
    }
    for (size_t d = 0; d < dim_; d += pass_)
        kernels().describe.transpose(scratch + d, static_cast<ptrdiff_t>(dim_), values_.data() + place(at, d),
                                     kTileRows, kTileRows, depth(d));
}

}  // namespace inreach
