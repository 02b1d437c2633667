// 16 virtual lanes in two registers of eight doubles. Multiply and add stay separate: see README.md.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512 {

double sq_distance(const float* a, const float* b, size_t dim) {
    __m512d low = _mm512_setzero_pd();
    __m512d high = _mm512_setzero_pd();
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        const __m512d d0 =
            _mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i)));
        const __m512d d1 = _mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8)),
                                         _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8)));
        low = _mm512_add_pd(low, _mm512_mul_pd(d0, d0));
        high = _mm512_add_pd(high, _mm512_mul_pd(d1, d1));
    }
    if (i < dim) {
        // Absent lanes load as zero on both sides: they add +0 to sums that are never -0, which changes
        // nothing.
        const __mmask16 tail = static_cast<__mmask16>((1u << (dim - i)) - 1u);
        const __m512 x = _mm512_maskz_loadu_ps(tail, a + i);
        const __m512 y = _mm512_maskz_loadu_ps(tail, b + i);
        const __m512d d0 = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                                         _mm512_cvtps_pd(_mm512_castps512_ps256(y)));
        const __m512d d1 = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)),
                                         _mm512_cvtps_pd(_mm512_extractf32x8_ps(y, 1)));
        low = _mm512_add_pd(low, _mm512_mul_pd(d0, d0));
        high = _mm512_add_pd(high, _mm512_mul_pd(d1, d1));
    }
    alignas(64) double lane[8];
    _mm512_store_pd(lane, _mm512_add_pd(low, high));
    for (size_t half = 4; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

float sq_distance32(const float* a, const float* b, size_t dim) {
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    size_t i = 0;
    for (; i + 64 <= dim; i += 64)
        for (int r = 0; r < 4; ++r) {
            const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(a + i + 16 * r), _mm512_loadu_ps(b + i + 16 * r));
            sum[r] = _mm512_fmadd_ps(d, d, sum[r]);
        }
    for (int r = 0; i < dim; i += 16, ++r) {
        const __mmask16 present = dim - i < 16 ? static_cast<__mmask16>((1u << (dim - i)) - 1u) : 0xffff;
        const __m512 d =
            _mm512_sub_ps(_mm512_maskz_loadu_ps(present, a + i), _mm512_maskz_loadu_ps(present, b + i));
        sum[r] = _mm512_fmadd_ps(d, d, sum[r]);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

}  // namespace avx512
}  // namespace inreach
