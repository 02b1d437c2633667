// 6 rows x 16 columns at a time: 24 sums of the 32 registers; five loads for 24 multiply-adds.
#include <arm_neon.h>

#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace neon {
namespace {

template <int kRows>
using Sums = float32x4_t[kRows][4];

template <int kRows>
__attribute__((always_inline)) inline void start_at(Sums<kRows>& sum, const float* init) {
    INREACH_UNROLL
    for (int c = 0; c < 4; ++c) {
        const float32x4_t start = init ? vld1q_f32(init + 4 * c) : vdupq_n_f32(0);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) sum[r][c] = start;
    }
}

// The columns of one d times the rows' values.
template <int kRows, typename Value>
__attribute__((always_inline)) inline void multiply_add(const float* columns, const Value& value,
                                                        Sums<kRows>& sum) {
    float32x4_t column[4];
    INREACH_UNROLL
    for (int c = 0; c < 4; ++c) column[c] = vld1q_f32(columns + 4 * c);
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) {
        INREACH_UNROLL
        for (int c = 0; c < 4; ++c) sum[r][c] = vfmaq_n_f32(sum[r][c], column[c], value(r));
    }
}

template <int kRows>
__attribute__((always_inline)) inline void store(const Sums<kRows>& sum, float* out) {
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) {
        INREACH_UNROLL
        for (int c = 0; c < 4; ++c) vst1q_f32(out + r * kBlockRows + 4 * c, sum[r][c]);
    }
}

template <int kRows>
void block_strip(const float* block, size_t depth, const float* rows, size_t stride, const float* init,
                 float* out) {
    Sums<kRows> sum;
    start_at<kRows>(sum, init);
    for (size_t d = 0; d < depth; ++d)
        multiply_add<kRows>(block + d * kBlockRows, [&](int r) { return rows[r * stride + d]; }, sum);
    store<kRows>(sum, out);
}

template <int kRows>
void panel_strip(const float* strip, const float* panel, size_t depth, const float* init, bool add,
                 const float* limits, float* out, uint64_t* pass, size_t first_column) {
    Sums<kRows> sum;
    if (add) {
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            INREACH_UNROLL
            for (int c = 0; c < 4; ++c) sum[r][c] = vld1q_f32(out + r * kBlockRows + 4 * c);
        }
    } else {
        start_at<kRows>(sum, init);
    }
    // A panel's values of one d in two registers, not in six: with 24 sums and four columns they fit.
    INREACH_UNROLL_TWICE
    for (size_t d = 0; d < depth; ++d) {
        const float32x4_t first = vld1q_f32(panel + d * kTileRows);
        const float32x2_t last = vld1_f32(panel + d * kTileRows + 4);
        multiply_add<kRows>(
            strip + d * kStripRows, [&](int r) { return r < 4 ? first[r] : last[r - 4]; }, sum);
    }
    if (limits) {
        uint32x4_t any = vdupq_n_u32(0);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const float32x4_t limit = vdupq_n_f32(limits[r]);
            INREACH_UNROLL
            for (int c = 0; c < 4; ++c) any = vorrq_u32(any, vcgeq_f32(sum[r][c], limit));
        }
        if (vmaxvq_u32(any) == 0) return;
    }
    store<kRows>(sum, out);
    if (limits) {  // a few tiles get here: their bits from memory, not from registers that the others need
        for (int r = 0; r < kRows; ++r)
            for (int j = 0; j < kStripRows; ++j)
                pass[r] |= static_cast<uint64_t>(out[r * kBlockRows + j] >= limits[r]) << (first_column + j);
    }
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
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j)
        bits |= static_cast<uint64_t>(values[j] >= thresholds[j] + shift) << j;
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; i += 4) {
        const float32x4_t four = vld1q_f32(values + i);
        vst1q_f64(sums + i, vaddq_f64(vld1q_f64(sums + i), vcvt_f64_f32(vget_low_f32(four))));
        vst1q_f64(sums + i + 2, vaddq_f64(vld1q_f64(sums + i + 2), vcvt_high_f64_f32(four)));
    }
}

}  // namespace neon
}  // namespace inreach
