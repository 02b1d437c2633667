// For processors that nothing else here serves: no intrinsics, but vectors of four, which compilers map to
// what every processor of the architecture has (on x86-64 SSE2). 3 rows x 16 columns at a time: 12 sums.
#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace scalar {
namespace {

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

Four load(const float* values) { return *reinterpret_cast<const Four*>(values); }

// kRows of the panel's rows from `panel` on.
template <size_t kRows>
void panel_strip(const float* strip, const float* panel, size_t depth, const float* init, bool add,
                 float* out) {
    Four sum[kRows][4];
    INREACH_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
        INREACH_UNROLL
        for (size_t c = 0; c < 4; ++c)
            sum[r][c] = add ? load(out + r * kBlockRows + 4 * c) : init ? load(init + 4 * c) : Four{};
    }
    for (size_t d = 0; d < depth; ++d) {
        INREACH_UNROLL
        for (size_t r = 0; r < kRows; ++r) {
            const float value = panel[d * kTileRows + r];
            INREACH_UNROLL
            for (size_t c = 0; c < 4; ++c) sum[r][c] += value * load(strip + d * kStripRows + 4 * c);
        }
    }
    INREACH_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
        INREACH_UNROLL
        for (size_t c = 0; c < 4; ++c) *reinterpret_cast<Four*>(out + r * kBlockRows + 4 * c) = sum[r][c];
    }
}

}  // namespace

void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count,
              const float* init, float* out) {
    for (size_t r = 0; r < count; ++r) {
        float* sum = out + r * kBlockRows;
        for (size_t j = 0; j < kBlockRows; ++j) sum[j] = init ? init[j] : 0.0f;
        for (size_t d = 0; d < depth; ++d) {
            const float value = rows[r * stride + d];
            const float* column = block + d * kBlockRows;
            for (size_t j = 0; j < kBlockRows; ++j) sum[j] += value * column[j];
        }
    }
}

void dot_panels(const float* strips, const float* panels, size_t depth, size_t count, size_t width,
                const float* init, bool add, const float* limits, float* out, uint64_t* pass) {
    const size_t columns = (width + kStripRows - 1) / kStripRows * kStripRows;
    for (size_t j = 0; j < columns; j += kStripRows) {
        const float* const start = init ? init + j : nullptr;
        for (size_t r = 0; r < count;) {
            const float* const panel = panels + r / kTileRows * kTileRows * depth + r % kTileRows;
            float* const sums = out + r * kBlockRows + j;
            if (count - r >= 3) {
                panel_strip<3>(strips + j * depth, panel, depth, start, add, sums);
                r += 3;
            } else {
                panel_strip<1>(strips + j * depth, panel, depth, start, add, sums);
                r += 1;
            }
        }
    }
    if (limits == nullptr) return;
    for (size_t r = 0; r < count; ++r) {
        const float* const sums = out + r * kBlockRows;
        const float limit = limits[r];
        pass[r] = 0;
        int any = 0;
        for (size_t j = 0; j < columns; ++j) any |= sums[j] >= limit;
        if (any == 0) continue;
        for (size_t j = 0; j < columns; ++j) pass[r] |= static_cast<uint64_t>(sums[j] >= limit) << j;
    }
}

uint64_t at_least(const float* values, const float* thresholds, float shift) {
    uint64_t bits = 0;
    for (int j = 0; j < kBlockRows; ++j)
        bits |= static_cast<uint64_t>(values[j] >= thresholds[j] + shift) << j;
    return bits;
}

void add_to_sums(const float* values, size_t count, double* sums) {
    for (size_t i = 0; i < count; ++i) sums[i] += static_cast<double>(values[i]);
}

}  // namespace scalar
}  // namespace inreach
