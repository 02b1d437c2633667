#include <immintrin.h>

#include "kernels.h"
#include "unroll.h"

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

namespace {

// The sums of the lanes of four vectors.
__m128 sum_lanes(const __m512* four) {
    const __m512 a =
        _mm512_add_ps(_mm512_unpacklo_ps(four[0], four[1]), _mm512_unpackhi_ps(four[0], four[1]));
    const __m512 b =
        _mm512_add_ps(_mm512_unpacklo_ps(four[2], four[3]), _mm512_unpackhi_ps(four[2], four[3]));
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    const __m512 both =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(both), _mm512_extractf32x8_ps(both, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

__m512 sixteen_codes(const int8_t* codes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))));
}

}  // namespace

// Four rows at a time: their chains hide each other's latency, and their lanes are summed together.
void code_distances(const int8_t* codes, size_t stride, const uint8_t* places, size_t count, const float* row,
                    const float* centre, const float* steps, size_t groups, float* out) {
    constexpr size_t kAtOnce = 8;  // groups whose differences are kept
    constexpr size_t kRows = 4;
    alignas(64) float difference[kAtOnce * kCodeGroup];
    for (size_t i = 0; i < count; ++i) out[i] = 0.0f;
    for (size_t first = 0; first < groups; first += kAtOnce) {
        const size_t some = groups - first < kAtOnce ? groups - first : kAtOnce;
        const size_t begin = first * kCodeGroup;
        for (size_t d = 0; d < some * kCodeGroup; d += 16)
            _mm512_store_ps(difference + d, _mm512_sub_ps(_mm512_loadu_ps(row + begin + d),
                                                          _mm512_loadu_ps(centre + begin + d)));
        size_t i = 0;
        for (; i + kRows <= count; i += kRows) {
            const int8_t* code[kRows];
            __m512 sum[kRows];
            INREACH_UNROLL
            for (size_t r = 0; r < kRows; ++r) {
                code[r] = codes + places[i + r] * stride + begin;
                sum[r] = _mm512_setzero_ps();
            }
            for (size_t d = 0; d < some * kCodeGroup; d += 16) {
                const __m512 step = _mm512_set1_ps(steps[first + d / kCodeGroup]);
                const __m512 from = _mm512_load_ps(difference + d);
                INREACH_UNROLL
                for (size_t r = 0; r < kRows; ++r) {
                    const __m512 left = _mm512_fnmadd_ps(step, sixteen_codes(code[r] + d), from);
                    sum[r] = _mm512_fmadd_ps(left, left, sum[r]);
                }
            }
            _mm_storeu_ps(out + i, _mm_add_ps(_mm_loadu_ps(out + i), sum_lanes(sum)));
        }
        for (; i < count; ++i) {
            const int8_t* const code = codes + places[i] * stride + begin;
            __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
            for (size_t d = 0; d < some * kCodeGroup; d += kCodeGroup) {
                const __m512 step = _mm512_set1_ps(steps[first + d / kCodeGroup]);
                const __m512 d0 =
                    _mm512_fnmadd_ps(step, sixteen_codes(code + d), _mm512_load_ps(difference + d));
                const __m512 d1 =
                    _mm512_fnmadd_ps(step, sixteen_codes(code + d + 16), _mm512_load_ps(difference + d + 16));
                even = _mm512_fmadd_ps(d0, d0, even);
                odd = _mm512_fmadd_ps(d1, d1, odd);
            }
            out[i] += _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
        }
    }
}

Quantized quantize(const float* row, const float* centre, int8_t* codes) {
    __m512 difference[4], size[4];
    for (int i = 0; i < 4; ++i) {
        difference[i] = _mm512_sub_ps(_mm512_loadu_ps(row + 16 * i), _mm512_loadu_ps(centre + 16 * i));
        size[i] = _mm512_abs_ps(difference[i]);
    }
    const float most =
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(size[0], size[1]), _mm512_max_ps(size[2], size[3])));
    Quantized result{most > 1e-30f ? most / 127.0f : 1e-30f, 0.0f, 0, 0};
    const __m512 inverse = _mm512_set1_ps(1.0f / result.step), step = _mm512_set1_ps(result.step);
    __m512 error = _mm512_setzero_ps();
    __m512i sum = _mm512_setzero_si512(), square = sum;
    for (int i = 0; i < 4; ++i) {
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(difference[i], inverse));
        const __m512 missed = _mm512_fnmadd_ps(step, _mm512_cvtepi32_ps(code), difference[i]);
        error = _mm512_fmadd_ps(missed, missed, error);
        sum = _mm512_add_epi32(sum, code);
        square = _mm512_add_epi32(square, _mm512_mullo_epi32(code, code));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * i), _mm512_cvtepi32_epi8(code));
    }
    result.sq_error = _mm512_reduce_add_ps(error);
    result.sum = _mm512_reduce_add_epi32(sum);
    result.sq_sum = _mm512_reduce_add_epi32(square);
    return result;
}

// Without VNNI: products of bytes summed in pairs in 16 bits, as avx2.cpp does it.
uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t, float scale, float tail,
                    const float* tails, const float* halves, float threshold, float* out) {
    const __m512i offset = _mm512_set1_epi8(-128), ones = _mm512_set1_epi16(1), zero = _mm512_setzero_si512();
    __m512i dot[4] = {zero, zero, zero, zero};
    for (int d = 0; d < kScanDims; d += 4) {
        int32_t four;
        __builtin_memcpy(&four, row + d, sizeof four);
        const __m512i query = _mm512_set1_epi32(four), size = _mm512_abs_epi8(query);
        const __mmask64 negative = _mm512_movepi8_mask(query);
        for (int c = 0; c < 4; ++c) {
            const __m512i code =
                _mm512_xor_si512(_mm512_loadu_si512(block + d * kBlockRows + 64 * c), offset);
            const __m512i turned = _mm512_mask_sub_epi8(code, negative, zero, code);
            dot[c] = _mm512_add_epi32(dot[c], _mm512_madd_epi16(_mm512_maddubs_epi16(size, turned), ones));
        }
    }
    const __m512 s = _mm512_set1_ps(scale), t = _mm512_set1_ps(tail), limit = _mm512_set1_ps(threshold);
    uint64_t bits = 0;
    for (int c = 0; c < 4; ++c) {
        const __m512 rest =
            _mm512_fmsub_ps(t, _mm512_loadu_ps(tails + 16 * c), _mm512_loadu_ps(halves + 16 * c));
        const __m512 value = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(dot[c]), rest);
        _mm512_storeu_ps(out + 16 * c, value);
        bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(value, limit, _CMP_NLT_UQ)) << (16 * c);
    }
    return bits;
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
