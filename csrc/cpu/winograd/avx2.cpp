// 6 rows x 16 outputs: 12 sums in registers; blocks.h has the loops.
#include <immintrin.h>

#include "winograd/blocks.h"

namespace inreach {
namespace avx2 {
namespace {

struct Vector {
    using Type = __m256;
    static constexpr size_t kLanes = 8;
    static inline Type load(const float* from) { return _mm256_loadu_ps(from); }
    static inline void store(float* to, Type value) { _mm256_storeu_ps(to, value); }
    static inline Type set1(float value) { return _mm256_set1_ps(value); }
    static inline Type add(Type a, Type b) { return _mm256_add_ps(a, b); }
    static inline Type sub(Type a, Type b) { return _mm256_sub_ps(a, b); }
    static inline Type mul(Type a, Type b) { return _mm256_mul_ps(a, b); }
    static inline Type fma(Type a, Type b, Type c) { return _mm256_fmadd_ps(a, b, c); }
    static inline Type above(Type a, Type b) { return _mm256_max_ps(a, b); }
    static inline Type below(Type a, Type b) { return _mm256_min_ps(a, b); }
};
constexpr int kRows = 6;

}  // namespace

INREACH_WINOGRAD_TRANSFORMS(Vector)

void winograd_multiply(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                       size_t width, float* out, size_t out_stride) {
    for (size_t j = 0; j < width; j += kStripRows)
        multiply_strips<Vector, kRows, 2>(rows, stride, count, strips + j * depth, depth, out + j,
                                          out_stride);
}

}  // namespace avx2
}  // namespace inreach
