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

float code_distance(const int8_t* codes, const float* row, const float* step_sq, size_t groups) {
    float32x4_t total = vdupq_n_f32(0);
    for (size_t g = 0; g < groups; ++g) {
        float32x4_t sum = vdupq_n_f32(0);
        for (int i = 0; i < kCodeGroup; i += 8) {
            const int16x8_t wide = vmovl_s8(vld1_s8(codes + g * kCodeGroup + i));
            const float32x4_t d0 =
                vsubq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vld1q_f32(row + g * kCodeGroup + i));
            const float32x4_t d1 = vsubq_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide))),
                                             vld1q_f32(row + g * kCodeGroup + i + 4));
            sum = vfmaq_f32(sum, d0, d0);
            sum = vfmaq_f32(sum, d1, d1);
        }
        total = vfmaq_n_f32(total, sum, step_sq[g]);
    }
    return vaddvq_f32(total);
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
