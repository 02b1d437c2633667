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

void code_distances(const int8_t* codes, size_t stride, const uint8_t* places, size_t count, const float* row,
                    const float* centre, const float* steps, size_t groups, float* out) {
    constexpr size_t kAtOnce = 8;  // groups whose differences are kept
    alignas(32) float difference[kAtOnce * kCodeGroup];
    for (size_t i = 0; i < count; ++i) out[i] = 0.0f;
    for (size_t first = 0; first < groups; first += kAtOnce) {
        const size_t some = groups - first < kAtOnce ? groups - first : kAtOnce;
        const size_t begin = first * kCodeGroup;
        for (size_t d = 0; d < some * kCodeGroup; d += 8)
            _mm256_store_ps(difference + d, _mm256_sub_ps(_mm256_loadu_ps(row + begin + d),
                                                          _mm256_loadu_ps(centre + begin + d)));
        for (size_t i = 0; i < count; ++i) {
            const int8_t* const code = codes + places[i] * stride + begin;
            __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
            for (size_t d = 0; d < some * kCodeGroup; d += 16) {
                const __m256 step = _mm256_broadcast_ss(steps + first + d / kCodeGroup);
                const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(code + d));
                const __m256 c0 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw));
                const __m256 c1 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(raw, raw)));
                const __m256 d0 = _mm256_fnmadd_ps(step, c0, _mm256_load_ps(difference + d));
                const __m256 d1 = _mm256_fnmadd_ps(step, c1, _mm256_load_ps(difference + d + 8));
                even = _mm256_fmadd_ps(d0, d0, even);
                odd = _mm256_fmadd_ps(d1, d1, odd);
            }
            const __m256 total = _mm256_add_ps(even, odd);
            __m128 fold = _mm_add_ps(_mm256_castps256_ps128(total), _mm256_extractf128_ps(total, 1));
            fold = _mm_add_ps(fold, _mm_movehl_ps(fold, fold));
            fold = _mm_add_ss(fold, _mm_shuffle_ps(fold, fold, 1));
            out[i] += _mm_cvtss_f32(fold);
        }
    }
}

Quantized quantize(const float* row, const float* centre, int8_t* codes) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 difference[8], largest = _mm256_setzero_ps();
    for (int i = 0; i < 8; ++i) {
        difference[i] = _mm256_sub_ps(_mm256_loadu_ps(row + 8 * i), _mm256_loadu_ps(centre + 8 * i));
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, difference[i]));
    }
    __m128 fold = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    fold = _mm_max_ps(fold, _mm_movehl_ps(fold, fold));
    fold = _mm_max_ss(fold, _mm_shuffle_ps(fold, fold, 1));
    const float most = _mm_cvtss_f32(fold);
    Quantized result{most > 1e-30f ? most / 127.0f : 1e-30f, 0.0f, 0, 0};
    const __m256 inverse = _mm256_set1_ps(1.0f / result.step), step = _mm256_set1_ps(result.step);
    __m256 error = _mm256_setzero_ps();
    __m256i sum = _mm256_setzero_si256(), square = sum;
    for (int i = 0; i < 8; ++i) {
        const __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(difference[i], inverse));
        const __m256 missed = _mm256_fnmadd_ps(step, _mm256_cvtepi32_ps(code), difference[i]);
        error = _mm256_fmadd_ps(missed, missed, error);
        sum = _mm256_add_epi32(sum, code);
        square = _mm256_add_epi32(square, _mm256_mullo_epi32(code, code));
        const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + 8 * i), _mm_packs_epi16(half, half));
    }
    alignas(32) float errors[8];
    alignas(32) int32_t sums[8], squares[8];
    _mm256_store_ps(errors, error);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums), sum);
    _mm256_store_si256(reinterpret_cast<__m256i*>(squares), square);
    for (int i = 0; i < 8; ++i)
        result.sq_error += errors[i], result.sum += sums[i], result.sq_sum += squares[i];
    return result;
}

// Products of bytes are summed in pairs in 16 bits, which takes one unsigned side: the query's, whose signs
// go over to the rows'. 2 * 127 * 127 fits.
uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t, float scale, float tail,
                    const float* tails, const float* halves, float threshold, float* out) {
    const __m256i offset = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
    __m256i dot[8];
    for (int c = 0; c < 8; ++c) dot[c] = _mm256_setzero_si256();
    for (int d = 0; d < kScanDims; d += 4) {
        int32_t four;
        __builtin_memcpy(&four, row + d, sizeof four);
        const __m256i query = _mm256_set1_epi32(four), size = _mm256_abs_epi8(query);
        for (int c = 0; c < 8; ++c) {
            const __m256i raw =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + d * kBlockRows + 32 * c));
            const __m256i code = _mm256_sign_epi8(_mm256_xor_si256(raw, offset), query);
            dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(_mm256_maddubs_epi16(size, code), ones));
        }
    }
    const __m256 s = _mm256_set1_ps(scale), t = _mm256_set1_ps(tail), limit = _mm256_set1_ps(threshold);
    uint64_t bits = 0;
    for (int c = 0; c < 8; ++c) {
        const __m256 rest =
            _mm256_fmsub_ps(t, _mm256_loadu_ps(tails + 8 * c), _mm256_loadu_ps(halves + 8 * c));
        const __m256 value = _mm256_fmadd_ps(s, _mm256_cvtepi32_ps(dot[c]), rest);
        _mm256_storeu_ps(out + 8 * c, value);
        const int mask = _mm256_movemask_ps(_mm256_cmp_ps(value, limit, _CMP_NLT_UQ));
        bits |= static_cast<uint64_t>(static_cast<unsigned>(mask)) << (8 * c);
    }
    return bits;
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
