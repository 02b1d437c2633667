// The specification: every other file in this folder gives these bits.
#include "kernels.h"

namespace inreach {
namespace scalar {

double sq_distance(const float* a, const float* b, size_t dim) {
    constexpr size_t kLanes = 16;
    double lane[kLanes] = {};
    for (size_t i = 0; i < dim; i += kLanes) {
        const size_t width = dim - i < kLanes ? dim - i : kLanes;
        for (size_t l = 0; l < width; ++l) {
            const double difference = static_cast<double>(a[i + l]) - static_cast<double>(b[i + l]);
            lane[l] += difference * difference;
        }
    }
    for (size_t half = kLanes / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

float sq_distance32(const float* a, const float* b, size_t dim) {
    constexpr size_t kLanes = 16;
    float lane[kLanes] = {};
    for (size_t i = 0; i < dim; i += kLanes) {
        const size_t width = dim - i < kLanes ? dim - i : kLanes;
        for (size_t l = 0; l < width; ++l) {
            const float difference = a[i + l] - b[i + l];
            lane[l] += difference * difference;
        }
    }
    for (size_t half = kLanes / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

}  // namespace scalar
}  // namespace inreach
