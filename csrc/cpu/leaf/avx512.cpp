#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512 {

uint64_t scan_block(const float* block, size_t depth, const float* row, float threshold, const float* init,
                    float* out) {
    // Eight chains, so that the latency of a multiply-add is hidden: even dimensions and odd ones apart.
    __m512 even[4], odd[4];
    for (int c = 0; c < 4; ++c) {
        even[c] = _mm512_loadu_ps(init + 16 * c);
        odd[c] = _mm512_setzero_ps();
    }
    size_t d = 0;
    for (; d + 2 <= depth; d += 2) {
        const float* column = block + d * kBlockRows;
        const __m512 first = _mm512_set1_ps(row[d]);
        const __m512 second = _mm512_set1_ps(row[d + 1]);
        for (int c = 0; c < 4; ++c) {
            even[c] = _mm512_fmadd_ps(first, _mm512_loadu_ps(column + 16 * c), even[c]);
            odd[c] = _mm512_fmadd_ps(second, _mm512_loadu_ps(column + kBlockRows + 16 * c), odd[c]);
        }
    }
    if (d < depth) {
        const __m512 last = _mm512_set1_ps(row[d]);
        for (int c = 0; c < 4; ++c)
            even[c] = _mm512_fmadd_ps(last, _mm512_loadu_ps(block + d * kBlockRows + 16 * c), even[c]);
    }
    const __m512 limit = _mm512_set1_ps(threshold);
    uint64_t bits = 0;
    for (int c = 0; c < 4; ++c) {
        const __m512 sum = _mm512_add_ps(even[c], odd[c]);
        _mm512_storeu_ps(out + 16 * c, sum);
        bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(sum, limit, _CMP_GE_OQ)) << (16 * c);
    }
    return bits;
}

float code_distance(const int8_t* codes, const float* row, const float* step_sq, size_t groups) {
    __m512 total = _mm512_setzero_ps();
    for (size_t g = 0; g < groups; ++g) {
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + g * kCodeGroup));
        const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + g * kCodeGroup + 16));
        const __m512 d0 = _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)),
                                        _mm512_loadu_ps(row + g * kCodeGroup));
        const __m512 d1 = _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high)),
                                        _mm512_loadu_ps(row + g * kCodeGroup + 16));
        const __m512 sum = _mm512_fmadd_ps(d1, d1, _mm512_mul_ps(d0, d0));
        total = _mm512_fmadd_ps(_mm512_set1_ps(step_sq[g]), sum, total);
    }
    return _mm512_reduce_add_ps(total);
}

size_t collect_in_reach(const float* dots, const float* radius, size_t count, float sq_norm, float reach,
                        uint32_t* out) {
    const __m512 base = _mm512_set1_ps(sq_norm);
    const __m512 minus_two = _mm512_set1_ps(-2.0f);
    const __m512 r = _mm512_set1_ps(reach);
    size_t n = 0;
    __m512i id = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i step = _mm512_set1_epi32(16);
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 present = count - i < 16 ? static_cast<__mmask16>((1u << (count - i)) - 1u) : 0xffff;
        const __m512 sq = _mm512_fmadd_ps(minus_two, _mm512_maskz_loadu_ps(present, dots + i), base);
        const __m512 limit = _mm512_add_ps(r, _mm512_maskz_loadu_ps(present, radius + i));
        const __mmask16 in = _mm512_mask_cmp_ps_mask(present, sq, _mm512_mul_ps(limit, limit), _CMP_LE_OQ);
        if (in) {
            _mm512_mask_compressstoreu_epi32(out + n, in, id);
            n += static_cast<size_t>(__builtin_popcount(in));
        }
        id = _mm512_add_epi32(id, step);
    }
    return n;
}

}  // namespace avx512
}  // namespace inreach
