// Four floats a register; multiply and add stay separate (no vfmaq, no vmlaq): see README.md.
#include <arm_neon.h>

#include "kernels.h"

namespace inreach {
namespace neon {

namespace {

// A full 4 x 4 block: single floats, then pairs change places.
inline void transpose_block(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride) {
    const float32x4x2_t low = vtrnq_f32(vld1q_f32(src), vld1q_f32(src + src_stride));
    const float32x4x2_t high = vtrnq_f32(vld1q_f32(src + 2 * src_stride), vld1q_f32(src + 3 * src_stride));
    vst1q_f32(dst, vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0])));
    vst1q_f32(dst + dst_stride, vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1])));
    vst1q_f32(dst + 2 * dst_stride, vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0])));
    vst1q_f32(dst + 3 * dst_stride, vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1])));
}

template <int kVectors>
inline void sum_taps_block(const float* src, const int32_t* offset, const float* weight, size_t taps,
                           bool resume, float* dst) {
    float32x4_t sum[kVectors];
    size_t t = 0;
    if (resume) {
        for (int v = 0; v < kVectors; ++v) sum[v] = vld1q_f32(dst + 4 * v);
    } else {
        const float32x4_t w = vdupq_n_f32(weight[0]);
        for (int v = 0; v < kVectors; ++v) sum[v] = vmulq_f32(w, vld1q_f32(src + offset[0] + 4 * v));
        t = 1;
    }
    for (; t < taps; ++t) {
        const float32x4_t w = vdupq_n_f32(weight[t]);
        const float* const x = src + offset[t];
        for (int v = 0; v < kVectors; ++v) sum[v] = vaddq_f32(sum[v], vmulq_f32(w, vld1q_f32(x + 4 * v)));
    }
    for (int v = 0; v < kVectors; ++v) vst1q_f32(dst + 4 * v, sum[v]);
}

}  // namespace

void transpose(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride, size_t rows,
               size_t columns) {
    if (rows < 4 || columns < 4) {
        for (size_t c = 0; c < columns; ++c)
            for (size_t r = 0; r < rows; ++r)
                dst[static_cast<ptrdiff_t>(c) * dst_stride + static_cast<ptrdiff_t>(r)] =
                    src[static_cast<ptrdiff_t>(r) * src_stride + static_cast<ptrdiff_t>(c)];
        return;
    }
    // Along the rows of src, which are far apart. The last block overlaps the one before it instead of being
    // cut.
    for (size_t r = 0; r < rows; r += 4) {
        const size_t r0 = r + 4 <= rows ? r : rows - 4;
        for (size_t c = 0; c < columns; c += 4) {
            const size_t c0 = c + 4 <= columns ? c : columns - 4;
            transpose_block(src + static_cast<ptrdiff_t>(r0) * src_stride + c0, src_stride,
                            dst + static_cast<ptrdiff_t>(c0) * dst_stride + r0, dst_stride);
        }
    }
}

void sum_taps(const float* src, const int32_t* offset, const float* weight, size_t taps, bool resume,
              float* dst, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) sum_taps_block<8>(src + i, offset, weight, taps, resume, dst + i);
    for (; i < n; i += 16) sum_taps_block<4>(src + i, offset, weight, taps, resume, dst + i);
}

void blend(const float* a, const float* b, float wa, float wb, float* dst, size_t n) {
    const float32x4_t va = vdupq_n_f32(wa), vb = vdupq_n_f32(wb);
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(dst + i, vaddq_f32(vmulq_f32(va, vld1q_f32(a + i)), vmulq_f32(vb, vld1q_f32(b + i))));
    for (; i < n; ++i) dst[i] = wa * a[i] + wb * b[i];
}

}  // namespace neon
}  // namespace inreach
