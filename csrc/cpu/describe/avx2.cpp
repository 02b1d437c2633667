// Eight floats a register; multiply and add stay separate (this file may use FMA and does not): see
// README.md.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx2 {

namespace {

// A full 8 x 8 block: single floats, pairs, then halves of registers change places.
inline void transpose_block(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(src + i * src_stride);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int c = 0; c < 4; ++c) {
        _mm256_storeu_ps(dst + c * dst_stride, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
        _mm256_storeu_ps(dst + (4 + c) * dst_stride, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
    }
}

// A 4 x 4 block, for as few rows as a panel has.
inline void transpose_quarter(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride) {
    __m128 r[4];
    for (int i = 0; i < 4; ++i) r[i] = _mm_loadu_ps(src + i * src_stride);
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(dst + i * dst_stride, r[i]);
}

using Block = void (*)(const float*, ptrdiff_t, float*, ptrdiff_t);

// In blocks of kSide rows and columns, along the rows of src, which are far apart. The last block overlaps
// the one before it instead of being cut.
template <size_t kSide, Block kBlock>
inline void transpose_in(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride,
                         size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; r += kSide) {
        const size_t r0 = r + kSide <= rows ? r : rows - kSide;
        for (size_t c = 0; c < columns; c += kSide) {
            const size_t c0 = c + kSide <= columns ? c : columns - kSide;
            kBlock(src + static_cast<ptrdiff_t>(r0) * src_stride + c0, src_stride,
                   dst + static_cast<ptrdiff_t>(c0) * dst_stride + r0, dst_stride);
        }
    }
}

template <int kVectors>
inline void sum_taps_block(const float* src, const int32_t* offset, const float* weight, size_t taps,
                           bool resume, float* dst) {
    __m256 sum[kVectors];
    size_t t = 0;
    if (resume) {
        for (int v = 0; v < kVectors; ++v) sum[v] = _mm256_loadu_ps(dst + 8 * v);
    } else {
        const __m256 w = _mm256_set1_ps(weight[0]);
        for (int v = 0; v < kVectors; ++v)
            sum[v] = _mm256_mul_ps(w, _mm256_loadu_ps(src + offset[0] + 8 * v));
        t = 1;
    }
    for (; t < taps; ++t) {
        const __m256 w = _mm256_set1_ps(weight[t]);
        const float* const x = src + offset[t];
        for (int v = 0; v < kVectors; ++v)
            sum[v] = _mm256_add_ps(sum[v], _mm256_mul_ps(w, _mm256_loadu_ps(x + 8 * v)));
    }
    for (int v = 0; v < kVectors; ++v) _mm256_storeu_ps(dst + 8 * v, sum[v]);
}

}  // namespace

void transpose(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride, size_t rows,
               size_t columns) {
    if (rows >= 8 && columns >= 8)
        return transpose_in<8, transpose_block>(src, src_stride, dst, dst_stride, rows, columns);
    if (rows >= 4 && columns >= 4)
        return transpose_in<4, transpose_quarter>(src, src_stride, dst, dst_stride, rows, columns);
    for (size_t c = 0; c < columns; ++c)
        for (size_t r = 0; r < rows; ++r)
            dst[static_cast<ptrdiff_t>(c) * dst_stride + static_cast<ptrdiff_t>(r)] =
                src[static_cast<ptrdiff_t>(r) * src_stride + static_cast<ptrdiff_t>(c)];
}

void sum_taps(const float* src, const int32_t* offset, const float* weight, size_t taps, bool resume,
              float* dst, size_t n) {
    size_t i = 0;
    for (; i + 64 <= n; i += 64) sum_taps_block<8>(src + i, offset, weight, taps, resume, dst + i);
    for (; i + 32 <= n; i += 32) sum_taps_block<4>(src + i, offset, weight, taps, resume, dst + i);
    for (; i < n; i += 8) sum_taps_block<1>(src + i, offset, weight, taps, resume, dst + i);
}

void blend(const float* a, const float* b, float wa, float wb, float* dst, size_t n) {
    const __m256 va = _mm256_set1_ps(wa), vb = _mm256_set1_ps(wb);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_add_ps(_mm256_mul_ps(va, _mm256_loadu_ps(a + i)),
                                                _mm256_mul_ps(vb, _mm256_loadu_ps(b + i))));
    for (; i < n; ++i) dst[i] = wa * a[i] + wb * b[i];
}

}  // namespace avx2
}  // namespace inreach
