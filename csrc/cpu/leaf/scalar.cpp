#include "kernels.h"

namespace inreach {
namespace scalar {

uint64_t scan_block(const float* block, size_t depth, const float* row, float threshold, const float* init,
                    float* out) {
    for (int j = 0; j < kBlockRows; ++j) out[j] = init[j];
    for (size_t d = 0; d < depth; ++d) {
        const float* column = block + d * kBlockRows;
        for (int j = 0; j < kBlockRows; ++j) out[j] += row[d] * column[j];
    }
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j) bits |= static_cast<uint64_t>(out[j] >= threshold) << j;
    return bits;
}

float code_distance(const int8_t* codes, const float* row, const float* step_sq, size_t groups) {
    float total = 0.0f;
    for (size_t g = 0; g < groups; ++g) {
        float lane[8] = {};
        for (int i = 0; i < kCodeGroup; ++i) {
            const float difference = static_cast<float>(codes[g * kCodeGroup + i]) - row[g * kCodeGroup + i];
            lane[i % 8] += difference * difference;
        }
        float sum = 0.0f;
        for (int l = 0; l < 8; ++l) sum += lane[l];
        total += step_sq[g] * sum;
    }
    return total;
}

size_t collect_in_reach(const float* dots, const float* radius, size_t count, float sq_norm, float reach,
                        uint32_t* out) {
    size_t n = 0;
    for (size_t i = 0; i < count; ++i) {
        const float limit = reach + radius[i];
        if (sq_norm - 2.0f * dots[i] <= limit * limit) out[n++] = static_cast<uint32_t>(i);
    }
    return n;
}

}  // namespace scalar
}  // namespace inreach
