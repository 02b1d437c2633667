#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx2 {

double standardize(const float* row, const double* centre, double scale, size_t dim, float* out) {
    const __m256d factor = _mm256_set1_pd(scale);
    __m256d sum0 = _mm256_setzero_pd(), sum1 = _mm256_setzero_pd();
    size_t i = 0;
    for (; i + 8 <= dim; i += 8) {
        const __m256d x0 = _mm256_cvtps_pd(_mm_loadu_ps(row + i));
        const __m256d x1 = _mm256_cvtps_pd(_mm_loadu_ps(row + i + 4));
        const __m128 y0 =
            _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(x0, _mm256_loadu_pd(centre + i)), factor));
        const __m128 y1 =
            _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(x1, _mm256_loadu_pd(centre + i + 4)), factor));
        _mm_storeu_ps(out + i, y0);
        _mm_storeu_ps(out + i + 4, y1);
        const __m256d z0 = _mm256_cvtps_pd(y0), z1 = _mm256_cvtps_pd(y1);
        sum0 = _mm256_fmadd_pd(z0, z0, sum0);
        sum1 = _mm256_fmadd_pd(z1, z1, sum1);
    }
    double lane[4];
    _mm256_storeu_pd(lane, _mm256_add_pd(sum0, sum1));
    double sum = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    for (; i < dim; ++i) {
        out[i] = static_cast<float>((static_cast<double>(row[i]) - centre[i]) * scale);
        sum += static_cast<double>(out[i]) * static_cast<double>(out[i]);
    }
    return sum;
}

}  // namespace avx2
}  // namespace inreach
