#include "kernels.h"

namespace inreach {
namespace scalar {

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count,
              const float* init, bool add, float* out) {
    for (size_t r = 0; r < count; ++r) {
        float* sum = out + r * kBlockRows;
        if (!add)
            for (int j = 0; j < kBlockRows; ++j) sum[j] = init ? init[j] : 0.0f;
        for (size_t d = 0; d < depth; ++d) {
            const float value = rows[r * stride + d];
            const float* column = block + d * kBlockRows;
            for (int j = 0; j < kBlockRows; ++j) sum[j] += value * column[j];
        }
    }
}

uint64_t at_least(const float* values, const float* thresholds, float shift) {
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j)
        bits |= static_cast<uint64_t>(values[j] >= thresholds[j] + shift) << j;
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; ++i) sums[i] += static_cast<double>(values[i]);
}

}  // namespace scalar
}  // namespace inreach
