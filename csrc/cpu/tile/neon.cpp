// 6 rows x 16 columns at a time: 24 sums of the 32 registers; the block's 64 columns in four strips.
#include <arm_neon.h>

#include "kernels.h"

namespace inreach {
namespace neon {
namespace {

template <int kRows>
void strip(const float* block, size_t depth, const float* rows, size_t stride, const float* init, bool add,
           float* out) {
    float32x4_t sum[kRows][4];
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 4; ++c)
            sum[r][c] = add    ? vld1q_f32(out + r * kBlockRows + 4 * c)
                        : init ? vld1q_f32(init + 4 * c)
                               : vdupq_n_f32(0);
    for (size_t d = 0; d < depth; ++d) {
        float32x4_t b[4];
        for (int c = 0; c < 4; ++c) b[c] = vld1q_f32(block + d * kBlockRows + 4 * c);
        for (int r = 0; r < kRows; ++r)
            for (int c = 0; c < 4; ++c) sum[r][c] = vfmaq_n_f32(sum[r][c], b[c], rows[r * stride + d]);
    }
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 4; ++c) vst1q_f32(out + r * kBlockRows + 4 * c, sum[r][c]);
}

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count, size_t width,
              const float* init, bool add, float* out) {
    for (size_t column = 0; column < width; column += 16) {
        const float* b = block + column;
        const float* start = init ? init + column : nullptr;
        float* o = out + column;
        switch (count) {
            case 6:
                strip<6>(b, depth, rows, stride, start, add, o);
                break;
            case 5:
                strip<5>(b, depth, rows, stride, start, add, o);
                break;
            case 4:
                strip<4>(b, depth, rows, stride, start, add, o);
                break;
            case 3:
                strip<3>(b, depth, rows, stride, start, add, o);
                break;
            case 2:
                strip<2>(b, depth, rows, stride, start, add, o);
                break;
            case 1:
                strip<1>(b, depth, rows, stride, start, add, o);
                break;
            default:
                return;
        }
    }
}

uint64_t at_least(const float* values, const float* thresholds, float shift) {
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j)
        bits |= static_cast<uint64_t>(values[j] >= thresholds[j] + shift) << j;
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; i += 4) {
        const float32x4_t four = vld1q_f32(values + i);
        vst1q_f64(sums + i, vaddq_f64(vld1q_f64(sums + i), vcvt_f64_f32(vget_low_f32(four))));
        vst1q_f64(sums + i + 2, vaddq_f64(vld1q_f64(sums + i + 2), vcvt_high_f64_f32(four)));
    }
}

}  // namespace neon
}  // namespace inreach
