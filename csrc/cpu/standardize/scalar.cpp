#include "kernels.h"

namespace inreach {
namespace scalar {

double standardize(const float* row, const double* centre, double scale, size_t dim, float* out) {
    double sum = 0.0;
    for (size_t i = 0; i < dim; ++i) {
        out[i] = static_cast<float>((static_cast<double>(row[i]) - centre[i]) * scale);
        sum += static_cast<double>(out[i]) * static_cast<double>(out[i]);
    }
    return sum;
}

}  // namespace scalar
}  // namespace inreach
