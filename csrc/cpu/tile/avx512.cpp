// 6 rows x 64 columns: 24 sums in registers, 4 loads and 6 broadcasts for 24 multiply-adds.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512 {
namespace {

template <int kRows>
void tile(const float* block, size_t depth, const float* rows, size_t stride, const float* init, bool add,
          float* out) {
    __m512 sum[kRows][4];
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 4; ++c)
            sum[r][c] = add    ? _mm512_loadu_ps(out + r * kBlockRows + 16 * c)
                        : init ? _mm512_loadu_ps(init + 16 * c)
                               : _mm512_setzero_ps();
    for (size_t d = 0; d < depth; ++d) {
        const float* column = block + d * kBlockRows;
        const __m512 b0 = _mm512_loadu_ps(column);
        const __m512 b1 = _mm512_loadu_ps(column + 16);
        const __m512 b2 = _mm512_loadu_ps(column + 32);
        const __m512 b3 = _mm512_loadu_ps(column + 48);
        for (int r = 0; r < kRows; ++r) {
            const __m512 value = _mm512_set1_ps(rows[r * stride + d]);
            sum[r][0] = _mm512_fmadd_ps(value, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(value, b1, sum[r][1]);
            sum[r][2] = _mm512_fmadd_ps(value, b2, sum[r][2]);
            sum[r][3] = _mm512_fmadd_ps(value, b3, sum[r][3]);
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 4; ++c) _mm512_storeu_ps(out + r * kBlockRows + 16 * c, sum[r][c]);
}

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count,
              const float* init, bool add, float* out) {
    switch (count) {
        case 6:
            return tile<6>(block, depth, rows, stride, init, add, out);
        case 5:
            return tile<5>(block, depth, rows, stride, init, add, out);
        case 4:
            return tile<4>(block, depth, rows, stride, init, add, out);
        case 3:
            return tile<3>(block, depth, rows, stride, init, add, out);
        case 2:
            return tile<2>(block, depth, rows, stride, init, add, out);
        case 1:
            return tile<1>(block, depth, rows, stride, init, add, out);
        default:
            return;
    }
}

uint64_t at_least(const float* values, const float* thresholds, float shift) {
    const __m512 s = _mm512_set1_ps(shift);
    uint64_t bits = 0;
    for (int c = 0; c < 4; ++c) {
        const __m512 limit = _mm512_add_ps(_mm512_loadu_ps(thresholds + 16 * c), s);
        const __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16 * c), limit, _CMP_GE_OQ);
        bits |= static_cast<uint64_t>(mask) << (16 * c);
    }
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; i += 8)
        _mm512_storeu_pd(
            sums + i, _mm512_add_pd(_mm512_loadu_pd(sums + i), _mm512_cvtps_pd(_mm256_loadu_ps(values + i))));
}

}  // namespace avx512
}  // namespace inreach
