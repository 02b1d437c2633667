// 6 rows x 16 columns at a time: 12 sums of the 16 registers; the block's 64 columns in four strips.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx2 {
namespace {

template <int kRows>
void strip(const float* block, size_t depth, const float* rows, size_t stride, const float* init, bool add,
           float* out) {
    __m256 sum[kRows][2];
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 2; ++c)
            sum[r][c] = add    ? _mm256_loadu_ps(out + r * kBlockRows + 8 * c)
                        : init ? _mm256_loadu_ps(init + 8 * c)
                               : _mm256_setzero_ps();
    for (size_t d = 0; d < depth; ++d) {
        const __m256 b0 = _mm256_loadu_ps(block + d * kBlockRows);
        const __m256 b1 = _mm256_loadu_ps(block + d * kBlockRows + 8);
        for (int r = 0; r < kRows; ++r) {
            const __m256 value = _mm256_broadcast_ss(rows + r * stride + d);
            sum[r][0] = _mm256_fmadd_ps(value, b0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(value, b1, sum[r][1]);
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 2; ++c) _mm256_storeu_ps(out + r * kBlockRows + 8 * c, sum[r][c]);
}

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count, size_t width,
              const float* init, bool add, float* out) {
    for (size_t column = 0; column < width; column += 16) {
        const float* b = block + column;
        const float* start = init ? init + column : nullptr;
        float* o = out + column;
        switch (count) {
            case 6:
                strip<6>(b, depth, rows, stride, start, add, o);
                break;
            case 5:
                strip<5>(b, depth, rows, stride, start, add, o);
                break;
            case 4:
                strip<4>(b, depth, rows, stride, start, add, o);
                break;
            case 3:
                strip<3>(b, depth, rows, stride, start, add, o);
                break;
            case 2:
                strip<2>(b, depth, rows, stride, start, add, o);
                break;
            case 1:
                strip<1>(b, depth, rows, stride, start, add, o);
                break;
            default:
                return;
        }
    }
}

uint64_t at_least(const float* values, const float* thresholds, float shift) {
    const __m256 s = _mm256_set1_ps(shift);
    uint64_t bits = 0;
    for (int c = 0; c < 8; ++c) {
        const __m256 limit = _mm256_add_ps(_mm256_loadu_ps(thresholds + 8 * c), s);
        const __m256 ge = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * c), limit, _CMP_GE_OQ);
        bits |= static_cast<uint64_t>(static_cast<unsigned>(_mm256_movemask_ps(ge))) << (8 * c);
    }
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; i += 4)
        _mm256_storeu_pd(sums + i,
                         _mm256_add_pd(_mm256_loadu_pd(sums + i), _mm256_cvtps_pd(_mm_loadu_ps(values + i))));
}

}  // namespace avx2
}  // namespace inreach
