// 16 virtual lanes in four registers of four doubles. Multiply and add stay separate: see README.md.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx2 {

double sq_distance(const float* a, const float* b, size_t dim) {
    __m256d sum[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        for (int r = 0; r < 4; ++r) {
            const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps(a + i + 4 * r));
            const __m256d y = _mm256_cvtps_pd(_mm_loadu_ps(b + i + 4 * r));
            const __m256d difference = _mm256_sub_pd(x, y);
            sum[r] = _mm256_add_pd(sum[r], _mm256_mul_pd(difference, difference));
        }
    }
    double lane[16];
    for (int r = 0; r < 4; ++r) _mm256_storeu_pd(lane + 4 * r, sum[r]);
    for (size_t l = 0; i + l < dim; ++l) {
        const double difference = static_cast<double>(a[i + l]) - static_cast<double>(b[i + l]);
        lane[l] += difference * difference;
    }
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

float sq_distance32(const float* a, const float* b, size_t dim) {
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    size_t i = 0;
    for (; i + 32 <= dim; i += 32)
        for (int r = 0; r < 4; ++r) {
            const __m256 d = _mm256_sub_ps(_mm256_loadu_ps(a + i + 8 * r), _mm256_loadu_ps(b + i + 8 * r));
            sum[r] = _mm256_fmadd_ps(d, d, sum[r]);
        }
    const __m256 total = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
    __m128 fold = _mm_add_ps(_mm256_castps256_ps128(total), _mm256_extractf128_ps(total, 1));
    fold = _mm_add_ps(fold, _mm_movehl_ps(fold, fold));
    fold = _mm_add_ss(fold, _mm_shuffle_ps(fold, fold, 1));
    float rest = 0.0f;
    for (; i < dim; ++i) {
        const float difference = a[i] - b[i];
        rest += difference * difference;
    }
    return _mm_cvtss_f32(fold) + rest;
}

}  // namespace avx2
}  // namespace inreach
