// Rows in fewer values: a linear map of their differences from a mean, as principal components are.
#pragma once

#include <cstddef>

namespace inreach {

// out[i * outputs + j] = sum over d, in ascending order, of (rows[i * dim + d] - mean[d]) * matrix[d *
// outputs
// + j], each difference, product and sum rounded to float32: the same bits on every instruction set and for
// any number of threads. dim and outputs are at least 1; `out` may not overlap the others.
void linear_map(const float* rows, size_t count, size_t dim, const float* mean, const float* matrix,
                size_t outputs, float* out);

}  // namespace inreach
