// 6 rows x 64 outputs: 24 sums in registers; multiply and add stay separate: see README.md.
#include <immintrin.h>

#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace avx512 {
namespace {

template <int kRows, int kColumns>
void tile(const float* rows, size_t stride, const float* matrix, size_t width, size_t depth, bool resume,
          float* out) {
    __m512 sum[kRows][kColumns];
    size_t t = 0;
    if (resume) {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c)
            sum[r][c] = _mm512_loadu_ps(out + static_cast<size_t>(r) * width + 16 * c);
    } else {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c)
            sum[r][c] = _mm512_mul_ps(_mm512_set1_ps(rows[static_cast<size_t>(r) * stride]),
                                      _mm512_loadu_ps(matrix + 16 * c));
        t = 1;
    }
    for (; t < depth; ++t) {
        __m512 column[kColumns];
        INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c) column[c] = _mm512_loadu_ps(matrix + t * width + 16 * c);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const __m512 value = _mm512_set1_ps(rows[static_cast<size_t>(r) * stride + t]);
            INREACH_UNROLL
            for (int c = 0; c < kColumns; ++c)
                sum[r][c] = _mm512_add_ps(sum[r][c], _mm512_mul_ps(value, column[c]));
        }
    }
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) INREACH_UNROLL
    for (int c = 0; c < kColumns; ++c)
        _mm512_storeu_ps(out + static_cast<size_t>(r) * width + 16 * c, sum[r][c]);
}

template <int kRows>
void strips(const float* rows, size_t stride, const float* matrix, size_t width, size_t depth, bool resume,
            float* out) {
    size_t j = 0;
    for (; j + 64 <= width; j += 64) tile<kRows, 4>(rows, stride, matrix + j, width, depth, resume, out + j);
    for (; j < width; j += 16) tile<kRows, 1>(rows, stride, matrix + j, width, depth, resume, out + j);
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

}  // namespace avx512
}  // namespace inreach
