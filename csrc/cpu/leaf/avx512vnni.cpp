// vpdpbusd sums four products of an unsigned and a signed byte into 32 bits. Rows are stored as code + 128:
// what that adds to a sum is the same for every row, 128 times the sum of the query's codes.
#include <immintrin.h>

#include "kernels.h"

namespace inreach {
namespace avx512vnni {

uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t row_sum, float scale, float tail,
                    const float* tails, const float* halves, float threshold, float* out) {
    // Eight chains, so that the latency of a step is hidden.
    const __m512i start = _mm512_set1_epi32(-128 * row_sum), zero = _mm512_setzero_si512();
    __m512i even[4] = {start, start, start, start}, odd[4] = {zero, zero, zero, zero};
    for (int d = 0; d < kScanDims; d += 8) {
        int32_t four[2];
        __builtin_memcpy(four, row + d, sizeof four);
        const __m512i first = _mm512_set1_epi32(four[0]), second = _mm512_set1_epi32(four[1]);
        const uint8_t* const codes = block + d * kBlockRows;
        for (int c = 0; c < 4; ++c) {
            even[c] = _mm512_dpbusd_epi32(even[c], _mm512_loadu_si512(codes + 64 * c), first);
            odd[c] = _mm512_dpbusd_epi32(odd[c], _mm512_loadu_si512(codes + 4 * kBlockRows + 64 * c), second);
        }
    }
    const __m512 s = _mm512_set1_ps(scale), t = _mm512_set1_ps(tail), limit = _mm512_set1_ps(threshold);
    uint64_t bits = 0;
    for (int c = 0; c < 4; ++c) {
        const __m512 rest =
            _mm512_fmsub_ps(t, _mm512_loadu_ps(tails + 16 * c), _mm512_loadu_ps(halves + 16 * c));
        const __m512 value = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(_mm512_add_epi32(even[c], odd[c])), rest);
        _mm512_storeu_ps(out + 16 * c, value);
        bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(value, limit, _CMP_NLT_UQ)) << (16 * c);
    }
    return bits;
}

}  // namespace avx512vnni
}  // namespace inreach
