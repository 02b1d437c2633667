#include <arm_neon.h>

#include "kernels.h"

namespace inreach {
namespace neon {

uint64_t scan_block(const float* block, size_t depth, const float* row, float threshold, const float* init,
                    float* out) {
    for (int column = 0; column < kBlockRows; column += 32) {
        float32x4_t sum[8];
        for (int c = 0; c < 8; ++c) sum[c] = vld1q_f32(init + column + 4 * c);
        for (size_t d = 0; d < depth; ++d) {
            const float* b = block + d * kBlockRows + column;
            for (int c = 0; c < 8; ++c) sum[c] = vfmaq_n_f32(sum[c], vld1q_f32(b + 4 * c), row[d]);
        }
        for (int c = 0; c < 8; ++c) vst1q_f32(out + column + 4 * c, sum[c]);
    }
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j) bits |= static_cast<uint64_t>(out[j] >= threshold) << j;
    return bits;
}

void code_distances(const int8_t* codes, size_t stride, const uint8_t* places, size_t count, const float* row,
                    const float* centre, const float* steps, size_t groups, float* out) {
    for (size_t i = 0; i < count; ++i) {
        const int8_t* const code = codes + places[i] * stride;
        float32x4_t total = vdupq_n_f32(0);
        for (size_t g = 0; g < groups; ++g) {
            float32x4_t sum = vdupq_n_f32(0);
            for (size_t d = g * kCodeGroup; d < (g + 1) * kCodeGroup; d += 8) {
                const int16x8_t wide = vmovl_s8(vld1_s8(code + d));
                const float32x4_t c0 = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
                const float32x4_t c1 = vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)));
                const float32x4_t p0 = vsubq_f32(vld1q_f32(row + d), vld1q_f32(centre + d));
                const float32x4_t p1 = vsubq_f32(vld1q_f32(row + d + 4), vld1q_f32(centre + d + 4));
                const float32x4_t d0 = vfmsq_n_f32(p0, c0, steps[g]), d1 = vfmsq_n_f32(p1, c1, steps[g]);
                sum = vfmaq_f32(sum, d0, d0);
                sum = vfmaq_f32(sum, d1, d1);
            }
            total = vaddq_f32(total, sum);
        }
        out[i] = vaddvq_f32(total);
    }
}

Quantized quantize(const float* row, const float* centre, int8_t* codes) {
    float32x4_t difference[16], largest = vdupq_n_f32(0);
    for (int i = 0; i < 16; ++i) {
        difference[i] = vsubq_f32(vld1q_f32(row + 4 * i), vld1q_f32(centre + 4 * i));
        largest = vmaxq_f32(largest, vabsq_f32(difference[i]));
    }
    const float most = vmaxvq_f32(largest);
    Quantized result{most > 1e-30f ? most / 127.0f : 1e-30f, 0.0f, 0, 0};
    const float inverse = 1.0f / result.step;
    float32x4_t error = vdupq_n_f32(0);
    int32x4_t sum = vdupq_n_s32(0), square = sum;
    for (int i = 0; i < 16; i += 2) {
        int32x4_t code[2];
        for (int h = 0; h < 2; ++h) {
            code[h] = vcvtnq_s32_f32(vmulq_n_f32(difference[i + h], inverse));
            const float32x4_t missed = vfmsq_n_f32(difference[i + h], vcvtq_f32_s32(code[h]), result.step);
            error = vfmaq_f32(error, missed, missed);
            sum = vaddq_s32(sum, code[h]);
            square = vmlaq_s32(square, code[h], code[h]);
        }
        vst1_s8(codes + 4 * i, vqmovn_s16(vcombine_s16(vqmovn_s32(code[0]), vqmovn_s32(code[1]))));
    }
    result.sq_error = vaddvq_f32(error);
    result.sum = vaddvq_s32(sum);
    result.sq_sum = vaddvq_s32(square);
    return result;
}

// Products of bytes are summed in pairs in 16 bits: 2 * 127 * 127 fits.
uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t, float scale, float tail,
                    const float* tails, const float* halves, float threshold, float* out) {
    const uint8x16_t offset = vdupq_n_u8(128);
    uint64_t bits = 0;
    for (int column = 0; column < kBlockRows; column += 16) {
        int32x4_t dot[8];  // two partial sums a row
        for (int c = 0; c < 8; ++c) dot[c] = vdupq_n_s32(0);
        for (int d = 0; d < kScanDims; d += 4) {
            int32_t four;
            __builtin_memcpy(&four, row + d, sizeof four);
            const int8x8_t query = vreinterpret_s8_s32(vdup_n_s32(four));
            for (int c = 0; c < 4; ++c) {
                const int8x16_t code = vreinterpretq_s8_u8(
                    veorq_u8(vld1q_u8(block + d * kBlockRows + 4 * column + 16 * c), offset));
                dot[2 * c] = vpadalq_s16(dot[2 * c], vmull_s8(vget_low_s8(code), query));
                dot[2 * c + 1] = vpadalq_s16(dot[2 * c + 1], vmull_s8(vget_high_s8(code), query));
            }
        }
        for (int c = 0; c < 4; ++c) {
            const float32x4_t sum = vcvtq_f32_s32(vpaddq_s32(dot[2 * c], dot[2 * c + 1]));
            const float32x4_t rest = vfmaq_n_f32(vnegq_f32(vld1q_f32(halves + column + 4 * c)),
                                                 vld1q_f32(tails + column + 4 * c), tail);
            vst1q_f32(out + column + 4 * c, vfmaq_n_f32(rest, sum, scale));
        }
    }
    for (int j = 0; j < kBlockRows; ++j) bits |= static_cast<uint64_t>(!(out[j] < threshold)) << j;
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

}  // namespace neon
}  // namespace inreach
