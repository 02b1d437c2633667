// 6 rows x 64 columns: 24 sums in registers, 4 loads and 6 broadcasts for 24 multiply-adds. A block that is
// not full takes as many of the four columns of registers as it fills.
#include <immintrin.h>

#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace avx512 {
namespace {

template <int kRows, int kColumns>
using Sums = __m512[kRows][kColumns];

template <int kRows, int kColumns>
__attribute__((always_inline)) inline void start_at(Sums<kRows, kColumns>& sum, const float* init) {
    INREACH_UNROLL
    for (int c = 0; c < kColumns; ++c) {
        const __m512 start = init ? _mm512_loadu_ps(init + 16 * c) : _mm512_setzero_ps();
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) sum[r][c] = start;
    }
}

// Sixteen columns at a time, `gap` floats apart: those of d at columns + d * kColumnStep. Value d of row r is
// rows[r * stride + d * kRowStep].
template <int kRows, int kColumns, int kColumnStep, int kRowStep>
__attribute__((always_inline)) inline void multiply_add(const float* columns, size_t gap, const float* rows,
                                                        size_t stride, size_t depth,
                                                        Sums<kRows, kColumns>& sum) {
    for (size_t d = 0; d < depth; ++d, columns += kColumnStep, rows += kRowStep) {
        __m512 column[kColumns];
        INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c) column[c] = _mm512_loadu_ps(columns + c * gap);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const __m512 value = _mm512_set1_ps(rows[r * stride]);
            INREACH_UNROLL
            for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_fmadd_ps(value, column[c], sum[r][c]);
        }
    }
}

template <int kRows, int kColumns>
__attribute__((always_inline)) inline void store(const Sums<kRows, kColumns>& sum, float* out) {
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) {
        INREACH_UNROLL
        for (int c = 0; c < kColumns; ++c) _mm512_storeu_ps(out + r * kBlockRows + 16 * c, sum[r][c]);
    }
}

template <int kRows>
void block_tile(const float* block, size_t depth, const float* rows, size_t stride, const float* init,
                float* out) {
    Sums<kRows, 4> sum;
    start_at<kRows, 4>(sum, init);
    multiply_add<kRows, 4, kBlockRows, 1>(block, 16, rows, stride, depth, sum);
    store<kRows, 4>(sum, out);
}

template <int kRows, int kColumns>
void panel_tile(const float* strips, const float* panel, size_t depth, const float* init, bool add,
                const float* limits, float* out, uint64_t* pass) {
    Sums<kRows, kColumns> sum;
    if (add) {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            INREACH_UNROLL
            for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_loadu_ps(out + r * kBlockRows + 16 * c);
        }
    } else {
        start_at<kRows, kColumns>(sum, init);
    }
    multiply_add<kRows, kColumns, kStripRows, kTileRows>(strips, depth * kStripRows, panel, 1, depth, sum);
    if (limits) {
        uint64_t any = 0;
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const __m512 limit = _mm512_set1_ps(limits[r]);
            uint64_t bits = 0;
            INREACH_UNROLL
            for (int c = 0; c < kColumns; ++c)
                bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(sum[r][c], limit, _CMP_GE_OQ)) << (16 * c);
            pass[r] = bits;
            any |= bits;
        }
        if (any == 0) return;
    }
    store<kRows, kColumns>(sum, out);
}

using BlockTile = void (*)(const float*, size_t, const float*, size_t, const float*, float*);
constexpr BlockTile kBlockTiles[] = {block_tile<1>, block_tile<2>, block_tile<3>,
                                     block_tile<4>, block_tile<5>, block_tile<6>};

using PanelTile = void (*)(const float*, const float*, size_t, const float*, bool, const float*, float*,
                           uint64_t*);
constexpr PanelTile kPanelTiles[][4] = {
    {panel_tile<1, 1>, panel_tile<1, 2>, panel_tile<1, 3>, panel_tile<1, 4>},
    {panel_tile<2, 1>, panel_tile<2, 2>, panel_tile<2, 3>, panel_tile<2, 4>},
    {panel_tile<3, 1>, panel_tile<3, 2>, panel_tile<3, 3>, panel_tile<3, 4>},
    {panel_tile<4, 1>, panel_tile<4, 2>, panel_tile<4, 3>, panel_tile<4, 4>},
    {panel_tile<5, 1>, panel_tile<5, 2>, panel_tile<5, 3>, panel_tile<5, 4>},
    {panel_tile<6, 1>, panel_tile<6, 2>, panel_tile<6, 3>, panel_tile<6, 4>},
};

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count,
              const float* init, float* out) {
    kBlockTiles[count - 1](block, depth, rows, stride, init, out);
}

void dot_panels(const float* strips, const float* panels, size_t depth, size_t count, size_t width,
                const float* init, bool add, const float* limits, float* out, uint64_t* pass) {
    const size_t columns = (width + kStripRows - 1) / kStripRows;
    for (size_t r = 0; r < count; r += kTileRows) {
        const size_t rows = count - r < kTileRows ? count - r : kTileRows;
        kPanelTiles[rows - 1][columns - 1](strips, panels + r * depth, depth, init, add,
                                           limits ? limits + r : nullptr, out + r * kBlockRows,
                                           limits ? pass + r : nullptr);
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
