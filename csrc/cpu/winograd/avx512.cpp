// 14 rows x 32 outputs: 28 sums in registers; blocks.h has the loops.
#include <immintrin.h>

#include "winograd/blocks.h"

namespace inreach {
namespace avx512 {
namespace {

struct Vector {
    using Type = __m512;
    static constexpr size_t kLanes = 16;
    static inline Type load(const float* from) { return _mm512_loadu_ps(from); }
    static inline void store(float* to, Type value) { _mm512_storeu_ps(to, value); }
    static inline Type set1(float value) { return _mm512_set1_ps(value); }
    static inline Type add(Type a, Type b) { return _mm512_add_ps(a, b); }
    static inline Type sub(Type a, Type b) { return _mm512_sub_ps(a, b); }
    static inline Type mul(Type a, Type b) { return _mm512_mul_ps(a, b); }
    static inline Type fma(Type a, Type b, Type c) { return _mm512_fmadd_ps(a, b, c); }
    static inline Type above(Type a, Type b) { return _mm512_max_ps(a, b); }
    static inline Type below(Type a, Type b) { return _mm512_min_ps(a, b); }
};
constexpr int kRows = 14;

}  // namespace

INREACH_WINOGRAD_TRANSFORMS(Vector)

void winograd_multiply(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                       size_t width, float* out, size_t out_stride) {
    size_t j = 0;
    for (; j + 2 * kStripRows <= width; j += 2 * kStripRows)
        multiply_strips<Vector, kRows, 2>(rows, stride, count, strips + j * depth, depth, out + j,
                                          out_stride);
    if (j < width)
        multiply_strips<Vector, kRows, 1>(rows, stride, count, strips + j * depth, depth, out + j,
                                          out_stride);
}

}  // namespace avx512
}  // namespace inreach
