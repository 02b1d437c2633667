// The specification: one value at a time, in the order that every other file of this folder keeps.
#include "kernels.h"

namespace inreach {
namespace scalar {

void map_rows(const float* rows, size_t stride, size_t count, const float* matrix, size_t width, size_t depth,
              bool resume, float* out) {
    for (size_t r = 0; r < count; ++r)
        for (size_t j = 0; j < width; j += 16) {  // sixteen sums that stay in registers
            float sum[16];
            for (size_t l = 0; l < 16; ++l)
                sum[l] = resume ? out[r * width + j + l] : rows[r * stride] * matrix[j + l];
            for (size_t t = resume ? 0 : 1; t < depth; ++t)
                for (size_t l = 0; l < 16; ++l)
                    sum[l] = sum[l] + rows[r * stride + t] * matrix[t * width + j + l];
            for (size_t l = 0; l < 16; ++l) out[r * width + j + l] = sum[l];
        }
}

}  // namespace scalar
}  // namespace inreach
