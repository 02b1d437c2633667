// Sixteen floats a register; multiply and add stay separate: see README.md.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512 {

namespace {

// A 16 x 16 block, or its upper left rows x columns. Four rounds change places: single floats, pairs, then
// quarters of registers, twice.
inline void transpose_block(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride,
                            int rows, int columns) {
    const __mmask16 used_columns = static_cast<__mmask16>((1u << columns) - 1u);
    const __mmask16 used_rows = static_cast<__mmask16>((1u << rows) - 1u);
    __m512 r[16], t[16];
    for (int i = 0; i < 16; ++i)
        r[i] = i < rows ? _mm512_maskz_loadu_ps(used_columns, src + i * src_stride) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int h = 0; h < 2; ++h) {
            const __m512d low = _mm512_castps_pd(t[i + h]), high = _mm512_castps_pd(t[i + 2 + h]);
            r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    // r[4 * g + c] now holds, in its quarter q, rows 4 g .. 4 g + 3 of column 4 q + c.
    for (int c = 0; c < 4; ++c) {
        const __m512 ab_even = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        const __m512 ab_odd = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        const __m512 cd_even = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        const __m512 cd_odd = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(ab_even, cd_even, 0x88);
        t[4 + c] = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(ab_even, cd_even, 0xdd);
        t[12 + c] = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0xdd);
    }
    for (int i = 0; i < 16; ++i)
        if (i < columns) _mm512_mask_storeu_ps(dst + i * dst_stride, used_rows, t[i]);
}

template <int kVectors>
inline void sum_taps_block(const float* src, const int32_t* offset, const float* weight, size_t taps,
                           bool resume, float* dst) {
    __m512 sum[kVectors];
    size_t t = 0;
    if (resume) {
        for (int v = 0; v < kVectors; ++v) sum[v] = _mm512_loadu_ps(dst + 16 * v);
    } else {
        const __m512 w = _mm512_set1_ps(weight[0]);
        for (int v = 0; v < kVectors; ++v)
            sum[v] = _mm512_mul_ps(w, _mm512_loadu_ps(src + offset[0] + 16 * v));
        t = 1;
    }
    for (; t < taps; ++t) {
        const __m512 w = _mm512_set1_ps(weight[t]);
        const float* const x = src + offset[t];
        for (int v = 0; v < kVectors; ++v)
            sum[v] = _mm512_add_ps(sum[v], _mm512_mul_ps(w, _mm512_loadu_ps(x + 16 * v)));
    }
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(dst + 16 * v, sum[v]);
}

}  // namespace

void transpose(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride, size_t rows,
               size_t columns) {
    const int height = rows < 16 ? static_cast<int>(rows) : 16;
    const int width = columns < 16 ? static_cast<int>(columns) : 16;
    // Along the rows of src, which are far apart. The last block overlaps the one before it instead of being
    // cut.
    for (size_t r = 0; r < rows; r += 16) {
        const size_t r0 = r + 16 <= rows || rows < 16 ? r : rows - 16;
        for (size_t c = 0; c < columns; c += 16) {
            const size_t c0 = c + 16 <= columns || columns < 16 ? c : columns - 16;
            transpose_block(src + static_cast<ptrdiff_t>(r0) * src_stride + c0, src_stride,
                            dst + static_cast<ptrdiff_t>(c0) * dst_stride + r0, dst_stride, height, width);
        }
    }
}

void sum_taps(const float* src, const int32_t* offset, const float* weight, size_t taps, bool resume,
              float* dst, size_t n) {
    size_t i = 0;
    for (; i + 128 <= n; i += 128) sum_taps_block<8>(src + i, offset, weight, taps, resume, dst + i);
    for (; i + 64 <= n; i += 64) sum_taps_block<4>(src + i, offset, weight, taps, resume, dst + i);
    for (; i < n; i += 16) sum_taps_block<1>(src + i, offset, weight, taps, resume, dst + i);
}

void blend(const float* a, const float* b, float wa, float wb, float* dst, size_t n) {
    const __m512 va = _mm512_set1_ps(wa), vb = _mm512_set1_ps(wb);
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_add_ps(_mm512_mul_ps(va, _mm512_loadu_ps(a + i)),
                                                _mm512_mul_ps(vb, _mm512_loadu_ps(b + i))));
    if (i < n) {
        const __mmask16 tail = static_cast<__mmask16>((1u << (n - i)) - 1u);
        _mm512_mask_storeu_ps(dst + i, tail,
                              _mm512_add_ps(_mm512_mul_ps(va, _mm512_maskz_loadu_ps(tail, a + i)),
                                            _mm512_mul_ps(vb, _mm512_maskz_loadu_ps(tail, b + i))));
    }
}

}  // namespace avx512
}  // namespace inreach
