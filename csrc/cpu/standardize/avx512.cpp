#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512 {

double standardize(const float* row, const double* centre, double scale, size_t dim, float* out) {
    const __m512d factor = _mm512_set1_pd(scale);
    __m512d sum0 = _mm512_setzero_pd(), sum1 = _mm512_setzero_pd();
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        const __m512d x0 = _mm512_cvtps_pd(_mm256_loadu_ps(row + i));
        const __m512d x1 = _mm512_cvtps_pd(_mm256_loadu_ps(row + i + 8));
        const __m256 y0 =
            _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(x0, _mm512_loadu_pd(centre + i)), factor));
        const __m256 y1 =
            _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(x1, _mm512_loadu_pd(centre + i + 8)), factor));
        _mm256_storeu_ps(out + i, y0);
        _mm256_storeu_ps(out + i + 8, y1);
        const __m512d z0 = _mm512_cvtps_pd(y0), z1 = _mm512_cvtps_pd(y1);
        sum0 = _mm512_fmadd_pd(z0, z0, sum0);
        sum1 = _mm512_fmadd_pd(z1, z1, sum1);
    }
    double sum = _mm512_reduce_add_pd(_mm512_add_pd(sum0, sum1));
    for (; i < dim; ++i) {
        out[i] = static_cast<float>((static_cast<double>(row[i]) - centre[i]) * scale);
        sum += static_cast<double>(out[i]) * static_cast<double>(out[i]);
    }
    return sum;
}

}  // namespace avx512
}  // namespace inreach
