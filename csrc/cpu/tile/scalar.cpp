#include "kernels.h"

namespace inreach {
namespace scalar {

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count, size_t width,
              const float* init, bool add, float* out) {
    const size_t columns = (width + 15) / 16 * 16;
    for (size_t r = 0; r < count; ++r) {
        float* sum = out + r * kBlockRows;
        if (!add)
            for (size_t j = 0; j < columns; ++j) sum[j] = init ? init[j] : 0.0f;
        for (size_t d = 0; d < depth; ++d) {
            const float value = rows[r * stride + d];
            const float* column = block + d * kBlockRows;
            for (size_t j = 0; j < columns; ++j) sum[j] += value * column[j];
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
