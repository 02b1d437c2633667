// The specification: the same operations in the same order as every other file of this folder, one value at a
// time.
#include "kernels.h"

namespace inreach {
namespace scalar {

void transpose(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride, size_t rows,
               size_t columns) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < columns; ++c)
            dst[static_cast<ptrdiff_t>(c) * dst_stride + static_cast<ptrdiff_t>(r)] =
                src[static_cast<ptrdiff_t>(r) * src_stride + static_cast<ptrdiff_t>(c)];
}

void sum_taps(const float* src, const int32_t* offset, const float* weight, size_t taps, bool resume,
              float* dst, size_t n) {
    // In blocks of 16 that stay in registers over all taps.
    for (size_t i = 0; i < n; i += 16) {
        float sum[16];
        size_t t = 0;
        if (resume) {
            for (size_t l = 0; l < 16; ++l) sum[l] = dst[i + l];
        } else {
            const float* const x = src + offset[0] + i;
            for (size_t l = 0; l < 16; ++l) sum[l] = weight[0] * x[l];
            t = 1;
        }
        for (; t < taps; ++t) {
            const float* const x = src + offset[t] + i;
            for (size_t l = 0; l < 16; ++l) sum[l] = sum[l] + weight[t] * x[l];
        }
        for (size_t l = 0; l < 16; ++l) dst[i + l] = sum[l];
    }
}

void blend(const float* a, const float* b, float wa, float wb, float* dst, size_t n) {
    for (size_t i = 0; i < n; ++i) dst[i] = wa * a[i] + wb * b[i];
}

}  // namespace scalar
}  // namespace inreach
