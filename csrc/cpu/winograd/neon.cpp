// 6 rows x 16 outputs: 24 sums in registers; blocks.h has the loops.
#include <arm_neon.h>

#include "winograd/blocks.h"

namespace inreach {
namespace neon {
namespace {

struct Vector {
    using Type = float32x4_t;
    static constexpr size_t kLanes = 4;
    static inline Type load(const float* from) { return vld1q_f32(from); }
    static inline void store(float* to, Type value) { vst1q_f32(to, value); }
    static inline Type set1(float value) { return vdupq_n_f32(value); }
    static inline Type add(Type a, Type b) { return vaddq_f32(a, b); }
    static inline Type sub(Type a, Type b) { return vsubq_f32(a, b); }
    static inline Type mul(Type a, Type b) { return vmulq_f32(a, b); }
    static inline Type fma(Type a, Type b, Type c) { return vfmaq_f32(c, a, b); }
    // As on x86, the second where one is NaN: vmaxq and vminq would choose otherwise.
    static inline Type above(Type a, Type b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
    static inline Type below(Type a, Type b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
};
constexpr int kRows = 6;

}  // namespace

INREACH_WINOGRAD_TRANSFORMS(Vector)

void winograd_multiply(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                       size_t width, float* out, size_t out_stride) {
    for (size_t j = 0; j < width; j += kStripRows)
        multiply_strips<Vector, kRows, 4>(rows, stride, count, strips + j * depth, depth, out + j,
                                          out_stride);
}

}  // namespace neon
}  // namespace inreach
