#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx2 {

uint64_t scan_block(const float* block, size_t depth, const float* row, float threshold, const float* init,
                    float* out) {
    const __m256 limit = _mm256_set1_ps(threshold);
    uint64_t bits = 0;
    for (int column = 0; column < kBlockRows; column += 32) {
        __m256 even[4], odd[4];
        for (int c = 0; c < 4; ++c) {
            even[c] = _mm256_loadu_ps(init + column + 8 * c);
            odd[c] = _mm256_setzero_ps();
        }
        const float* b = block + column;
        size_t d = 0;
        for (; d + 2 <= depth; d += 2, b += 2 * kBlockRows) {
            const __m256 first = _mm256_broadcast_ss(row + d);
            const __m256 second = _mm256_broadcast_ss(row + d + 1);
            for (int c = 0; c < 4; ++c) {
                even[c] = _mm256_fmadd_ps(first, _mm256_loadu_ps(b + 8 * c), even[c]);
                odd[c] = _mm256_fmadd_ps(second, _mm256_loadu_ps(b + kBlockRows + 8 * c), odd[c]);
            }
        }
        if (d < depth) {
            const __m256 last = _mm256_broadcast_ss(row + d);
            for (int c = 0; c < 4; ++c) even[c] = _mm256_fmadd_ps(last, _mm256_loadu_ps(b + 8 * c), even[c]);
        }
        for (int c = 0; c < 4; ++c) {
            const __m256 sum = _mm256_add_ps(even[c], odd[c]);
            _mm256_storeu_ps(out + column + 8 * c, sum);
            const int mask = _mm256_movemask_ps(_mm256_cmp_ps(sum, limit, _CMP_GE_OQ));
            bits |= static_cast<uint64_t>(static_cast<unsigned>(mask)) << (column + 8 * c);
        }
    }
    return bits;
}

float code_distance(const int8_t* codes, const float* row, const float* step_sq, size_t groups) {
    __m256 total = _mm256_setzero_ps();
    for (size_t g = 0; g < groups; ++g) {
        __m256 sum = _mm256_setzero_ps();
        for (int i = 0; i < kCodeGroup; i += 8) {
            const __m128i raw = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + g * kCodeGroup + i));
            const __m256 difference = _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw)),
                                                    _mm256_loadu_ps(row + g * kCodeGroup + i));
            sum = _mm256_fmadd_ps(difference, difference, sum);
        }
        total = _mm256_fmadd_ps(_mm256_set1_ps(step_sq[g]), sum, total);
    }
    __m128 fold = _mm_add_ps(_mm256_castps256_ps128(total), _mm256_extractf128_ps(total, 1));
    fold = _mm_add_ps(fold, _mm_movehl_ps(fold, fold));
    fold = _mm_add_ss(fold, _mm_shuffle_ps(fold, fold, 1));
    return _mm_cvtss_f32(fold);
}

size_t collect_in_reach(const float* dots, const float* radius, size_t count, float sq_norm, float reach,
                        uint32_t* out) {
    const __m256 base = _mm256_set1_ps(sq_norm);
    const __m256 minus_two = _mm256_set1_ps(-2.0f);
    const __m256 r = _mm256_set1_ps(reach);
    size_t n = 0;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256 sq = _mm256_fmadd_ps(minus_two, _mm256_loadu_ps(dots + i), base);
        const __m256 limit = _mm256_add_ps(r, _mm256_loadu_ps(radius + i));
        unsigned in = static_cast<unsigned>(
            _mm256_movemask_ps(_mm256_cmp_ps(sq, _mm256_mul_ps(limit, limit), _CMP_LE_OQ)));
        for (; in; in &= in - 1)
            out[n++] = static_cast<uint32_t>(i) + static_cast<uint32_t>(__builtin_ctz(in));
    }
    for (; i < count; ++i) {
        const float limit = reach + radius[i];
        if (sq_norm - 2.0f * dots[i] <= limit * limit) out[n++] = static_cast<uint32_t>(i);
    }
    return n;
}

}  // namespace avx2
}  // namespace inreach
