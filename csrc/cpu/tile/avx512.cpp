// 6 rows x 64 columns: 24 sums in registers, 4 loads and 6 broadcasts for 24 multiply-adds. A block that is
// not full takes as many of the four columns of registers as it fills.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512 {
namespace {

template <int kRows, int kColumns>
void tile(const float* block, size_t depth, const float* rows, size_t stride, const float* init, bool add,
          float* out) {
    __m512 sum[kRows][kColumns];
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < kColumns; ++c)
            sum[r][c] = add    ? _mm512_loadu_ps(out + r * kBlockRows + 16 * c)
                        : init ? _mm512_loadu_ps(init + 16 * c)
                               : _mm512_setzero_ps();
    for (size_t d = 0; d < depth; ++d) {
        __m512 column[kColumns];
        for (int c = 0; c < kColumns; ++c) column[c] = _mm512_loadu_ps(block + d * kBlockRows + 16 * c);
        for (int r = 0; r < kRows; ++r) {
            const __m512 value = _mm512_set1_ps(rows[r * stride + d]);
            for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_fmadd_ps(value, column[c], sum[r][c]);
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < kColumns; ++c) _mm512_storeu_ps(out + r * kBlockRows + 16 * c, sum[r][c]);
}

using Tile = void (*)(const float*, size_t, const float*, size_t, const float*, bool, float*);

template <int kRows>
Tile of_width(size_t width) {
    if (width > 48) return tile<kRows, 4>;
    if (width > 32) return tile<kRows, 3>;
    return width > 16 ? tile<kRows, 2> : tile<kRows, 1>;
}

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count, size_t width,
              const float* init, bool add, float* out) {
    switch (count) {
        case 6:
            return of_width<6>(width)(block, depth, rows, stride, init, add, out);
        case 5:
            return of_width<5>(width)(block, depth, rows, stride, init, add, out);
        case 4:
            return of_width<4>(width)(block, depth, rows, stride, init, add, out);
        case 3:
            return of_width<3>(width)(block, depth, rows, stride, init, add, out);
        case 2:
            return of_width<2>(width)(block, depth, rows, stride, init, add, out);
        case 1:
            return of_width<1>(width)(block, depth, rows, stride, init, add, out);
        default:
            return;
    }
}

uint64_t at_least(const float* values, const float* thresholds, float shift) {
    const __m512 s = _mm512_set1_ps(shift);
    uint64_t bits = 0;
    for (int c = 0; c < 4; ++c) {
        const __m512 limit = _mm512_add_ps(_mm512_loadu_ps(thresholds + 16 * c), s);
        const __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16 * c), limit, _CMP_GE_OQ);
        bits |= static_cast<uint64_t>(mask) << (16 * c);
    }
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; i += 8)
        _mm512_storeu_pd(
            sums + i, _mm512_add_pd(_mm512_loadu_pd(sums + i), _mm512_cvtps_pd(_mm256_loadu_ps(values + i))));
}

}  // namespace avx512
}  // namespace inreach
