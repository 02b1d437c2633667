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

void code_distances(const int8_t* codes, size_t stride, const uint8_t* places, size_t count, const float* row,
                    const float* centre, const float* steps, size_t groups, float* out) {
    for (size_t i = 0; i < count; ++i) {
        const int8_t* const code = codes + places[i] * stride;
        out[i] = 0.0f;
        for (size_t g = 0; g < groups; ++g) {
            float lane[8] = {};
            for (size_t d = g * kCodeGroup; d < (g + 1) * kCodeGroup; ++d) {
                const float difference = row[d] - centre[d] - steps[g] * static_cast<float>(code[d]);
                lane[d % 8] += difference * difference;
            }
            float sum = 0.0f;
            for (int l = 0; l < 8; ++l) sum += lane[l];
            out[i] += sum;
        }
    }
}

Quantized quantize(const float* row, const float* centre, int8_t* codes) {
    float difference[kScanDims], largest = 0.0f;
    for (int d = 0; d < kScanDims; ++d) {
        difference[d] = row[d] - centre[d];
        const float size = difference[d] < 0.0f ? -difference[d] : difference[d];
        if (size > largest) largest = size;
    }
    // Not so small that its reciprocal overflows; a query at the centre has codes of 0.
    Quantized result{largest > 1e-30f ? largest / 127.0f : 1e-30f, 0.0f, 0, 0};
    const float inverse = 1.0f / result.step;
    float lane[16] = {};
    for (int d = 0; d < kScanDims; ++d) {
        const int code = static_cast<int>(__builtin_rintf(difference[d] * inverse));
        codes[d] = static_cast<int8_t>(code);
        result.sum += code;
        result.sq_sum += code * code;
        const float missed = difference[d] - result.step * static_cast<float>(code);
        lane[d % 16] += missed * missed;
    }
    for (int l = 0; l < 16; ++l) result.sq_error += lane[l];
    return result;
}

uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t, float scale, float tail,
                    const float* tails, const float* halves, float threshold, float* out) {
    int32_t dot[kBlockRows] = {};
    for (int d = 0; d < kScanDims; d += 4)
        for (int j = 0; j < kBlockRows; ++j)
            for (int i = 0; i < 4; ++i)
                dot[j] += (static_cast<int32_t>(block[d * kBlockRows + 4 * j + i]) - 128) * row[d + i];
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j) {
        out[j] = scale * static_cast<float>(dot[j]) + (tail * tails[j] - halves[j]);
        bits |= static_cast<uint64_t>(!(out[j] < threshold)) << j;
    }
    return bits;
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
