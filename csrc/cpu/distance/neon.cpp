// 16 virtual lanes in eight registers of two doubles. Multiply and add stay separate: see README.md.
#include <arm_neon.h>

#include "kernels.h"

namespace inreach {
namespace neon {

double sq_distance(const float* a, const float* b, size_t dim) {
    float64x2_t sum[8];
    for (int r = 0; r < 8; ++r) sum[r] = vdupq_n_f64(0.0);
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        for (int r = 0; r < 8; ++r) {
            const float64x2_t x = vcvt_f64_f32(vld1_f32(a + i + 2 * r));
            const float64x2_t y = vcvt_f64_f32(vld1_f32(b + i + 2 * r));
            const float64x2_t difference = vsubq_f64(x, y);
            sum[r] = vaddq_f64(sum[r], vmulq_f64(difference, difference));
        }
    }
    double lane[16];
    for (int r = 0; r < 8; ++r) vst1q_f64(lane + 2 * r, sum[r]);
    for (size_t l = 0; i + l < dim; ++l) {
        const double difference = static_cast<double>(a[i + l]) - static_cast<double>(b[i + l]);
        lane[l] += difference * difference;
    }
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

float sq_distance32(const float* a, const float* b, size_t dim) {
    float32x4_t sum[4];
    for (int r = 0; r < 4; ++r) sum[r] = vdupq_n_f32(0.0f);
    size_t i = 0;
    for (; i + 16 <= dim; i += 16)
        for (int r = 0; r < 4; ++r) {
            const float32x4_t d = vsubq_f32(vld1q_f32(a + i + 4 * r), vld1q_f32(b + i + 4 * r));
            sum[r] = vfmaq_f32(sum[r], d, d);
        }
    float total = vaddvq_f32(vaddq_f32(vaddq_f32(sum[0], sum[1]), vaddq_f32(sum[2], sum[3])));
    for (; i < dim; ++i) {
        const float difference = a[i] - b[i];
        total += difference * difference;
    }
    return total;
}

}  // namespace neon
}  // namespace inreach
