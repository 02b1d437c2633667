// 6 rows x 16 outputs: 24 sums in registers; multiply and add stay separate: see README.md.
#include <arm_neon.h>

#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace neon {
namespace {

template <int kRows, int kColumns>
void tile(const float* rows, size_t stride, const float* matrix, size_t width, size_t depth, bool resume,
          float* out) {
    float32x4_t sum[kRows][kColumns];
    size_t t = 0;
    if (resume) {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c)
            sum[r][c] = vld1q_f32(out + static_cast<size_t>(r) * width + 4 * c);
    } else {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c)
            sum[r][c] =
                vmulq_f32(vdupq_n_f32(rows[static_cast<size_t>(r) * stride]), vld1q_f32(matrix + 4 * c));
        t = 1;
    }
    for (; t < depth; ++t) {
        float32x4_t column[kColumns];
        INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c) column[c] = vld1q_f32(matrix + t * width + 4 * c);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const float32x4_t value = vdupq_n_f32(rows[static_cast<size_t>(r) * stride + t]);
            INREACH_UNROLL
            for (int c = 0; c < kColumns; ++c) sum[r][c] = vaddq_f32(sum[r][c], vmulq_f32(value, column[c]));
        }
    }
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) INREACH_UNROLL
    for (int c = 0; c < kColumns; ++c) vst1q_f32(out + static_cast<size_t>(r) * width + 4 * c, sum[r][c]);
}

template <int kRows>
void strips(const float* rows, size_t stride, const float* matrix, size_t width, size_t depth, bool resume,
            float* out) {
    for (size_t j = 0; j < width; j += 16)
        tile<kRows, 4>(rows, stride, matrix + j, width, depth, resume, out + j);
}

}  // namespace

void map_rows(const float* rows, size_t stride, size_t count, const float* matrix, size_t width, size_t depth,
              bool resume, float* out) {
    switch (count) {
        case 6:
            return strips<6>(rows, stride, matrix, width, depth, resume, out);
        case 5:
            return strips<5>(rows, stride, matrix, width, depth, resume, out);
        case 4:
            return strips<4>(rows, stride, matrix, width, depth, resume, out);
        case 3:
            return strips<3>(rows, stride, matrix, width, depth, resume, out);
        case 2:
            return strips<2>(rows, stride, matrix, width, depth, resume, out);
        case 1:
            return strips<1>(rows, stride, matrix, width, depth, resume, out);
        default:
            return;
    }
}

}  // namespace neon
}  // namespace inreach
