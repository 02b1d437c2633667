// 6 rows x 16 columns at a time: 12 sums of the 16 registers; two loads and six broadcasts for 12
// multiply-adds.
#include <immintrin.h>

#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace avx2 {
namespace {

template <int kRows>
using Sums = __m256[kRows][2];

template <int kRows>
__attribute__((always_inline)) inline void start_at(Sums<kRows>& sum, const float* init) {
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) {
        sum[r][0] = init ? _mm256_loadu_ps(init) : _mm256_setzero_ps();
        sum[r][1] = init ? _mm256_loadu_ps(init + 8) : _mm256_setzero_ps();
    }
}

// Column d begins at columns + d * kColumnStep, value d of row r is rows[r * stride + d * kRowStep].
template <int kRows, int kColumnStep, int kRowStep>
__attribute__((always_inline)) inline void multiply_add(const float* columns, const float* rows,
                                                        size_t stride, size_t depth, Sums<kRows>& sum) {
    INREACH_UNROLL_TWICE
    for (size_t d = 0; d < depth; ++d, columns += kColumnStep, rows += kRowStep) {
        const __m256 b0 = _mm256_loadu_ps(columns);
        const __m256 b1 = _mm256_loadu_ps(columns + 8);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const __m256 value = _mm256_broadcast_ss(rows + r * stride);
            sum[r][0] = _mm256_fmadd_ps(value, b0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(value, b1, sum[r][1]);
        }
    }
}

template <int kRows>
__attribute__((always_inline)) inline void store(const Sums<kRows>& sum, float* out) {
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) {
        _mm256_storeu_ps(out + r * kBlockRows, sum[r][0]);
        _mm256_storeu_ps(out + r * kBlockRows + 8, sum[r][1]);
    }
}

template <int kRows>
void block_strip(const float* block, size_t depth, const float* rows, size_t stride, const float* init,
                 float* out) {
    Sums<kRows> sum;
    start_at<kRows>(sum, init);
    multiply_add<kRows, kBlockRows, 1>(block, rows, stride, depth, sum);
    store<kRows>(sum, out);
}

template <int kRows>
void panel_strip(const float* strip, const float* panel, size_t depth, const float* init, bool add,
                 const float* limits, float* out, uint64_t* pass, size_t first_column) {
    Sums<kRows> sum;
    if (add) {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            sum[r][0] = _mm256_loadu_ps(out + r * kBlockRows);
            sum[r][1] = _mm256_loadu_ps(out + r * kBlockRows + 8);
        }
    } else {
        start_at<kRows>(sum, init);
    }
    multiply_add<kRows, kStripRows, kTileRows>(strip, panel, 1, depth, sum);
    if (limits) {
        __m256 any = _mm256_setzero_ps();
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const __m256 limit = _mm256_broadcast_ss(limits + r);
            any = _mm256_or_ps(any, _mm256_or_ps(_mm256_cmp_ps(sum[r][0], limit, _CMP_GE_OQ),
                                                 _mm256_cmp_ps(sum[r][1], limit, _CMP_GE_OQ)));
        }
        if (_mm256_testz_ps(any, any)) return;
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const __m256 limit = _mm256_broadcast_ss(limits + r);
            const int low = _mm256_movemask_ps(_mm256_cmp_ps(sum[r][0], limit, _CMP_GE_OQ));
            const int high = _mm256_movemask_ps(_mm256_cmp_ps(sum[r][1], limit, _CMP_GE_OQ));
            pass[r] |= static_cast<uint64_t>(static_cast<unsigned>(low | high << 8)) << first_column;
        }
    }
    store<kRows>(sum, out);
}

using BlockStrip = void (*)(const float*, size_t, const float*, size_t, const float*, float*);
constexpr BlockStrip kBlockStrips[] = {block_strip<1>, block_strip<2>, block_strip<3>,
                                       block_strip<4>, block_strip<5>, block_strip<6>};

using PanelStrip = void (*)(const float*, const float*, size_t, const float*, bool, const float*, float*,
                            uint64_t*, size_t);
constexpr PanelStrip kPanelStrips[] = {panel_strip<1>, panel_strip<2>, panel_strip<3>,
                                       panel_strip<4>, panel_strip<5>, panel_strip<6>};

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count,
              const float* init, float* out) {
    for (size_t column = 0; column < kBlockRows; column += kStripRows)
        kBlockStrips[count - 1](block + column, depth, rows, stride, init ? init + column : nullptr,
                                out + column);
}

// A strip stays in the first-level cache while the panels pass.
void dot_panels(const float* strips, const float* panels, size_t depth, size_t count, size_t width,
                const float* init, bool add, const float* limits, float* out, uint64_t* pass) {
    if (limits)
        for (size_t r = 0; r < count; ++r) pass[r] = 0;
    for (size_t column = 0; column < width; column += kStripRows)
        for (size_t r = 0; r < count; r += kTileRows) {
            const size_t rows = count - r < kTileRows ? count - r : kTileRows;
            kPanelStrips[rows - 1](strips + column * depth, panels + r * depth, depth,
                                   init ? init + column : nullptr, add, limits ? limits + r : nullptr,
                                   out + r * kBlockRows + column, limits ? pass + r : nullptr, column);
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
