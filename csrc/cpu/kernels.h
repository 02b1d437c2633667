// The whole instruction-set contract on a page.
//
// One table of function pointers for each instruction set; cpu/dispatch.cpp fills and chooses it, the engine
// calls through it and knows nothing of vector registers. Every entry of every table computes the same
// function: those marked EXACT give the same bits everywhere, those marked FILTER may differ in rounding
// within the bound that their comment states, which the engine accounts for.
//
// Files that fill a table are compiled with that instruction set's flags. All their symbols live in a
// namespace of their own, and they use no inline function of the standard library: the linker keeps one copy
// of a weak symbol, and if that copy held AVX-512 instructions, older processors would crash on it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "inreach/activation.h"

namespace inreach {

// Rows of a bank are laid out for the tile kernels in blocks of kBlockRows, dimension by dimension: value d
// of row r of a block lies at block[d * kBlockRows + r].
constexpr int kBlockRows = 64;

// Rows that the tile kernels take at once: 6 x 64 sums fill the registers of AVX-512, 6 x 16 those of AVX2.
constexpr int kTileRows = 6;

// Rows that map_rows takes at once.
constexpr int kMapRows = 6;

// dot_panels takes both sides packed in the order in which it reads them, some values (its depth) of each row
// at a time. Queries come in panels of kTileRows rows: value d of a panel's row r lies at [d * kTileRows +
// r]. Rows of a bank come in strips of kStripRows: value d of a strip's row j lies at [d * kStripRows + j].
constexpr int kStripRows = 16;

// Low-precision codes come in groups of this many dimensions, each group with a step of its own.
constexpr int kCodeGroup = 32;

// Coordinates of a leaf's first codes. A leaf's block holds them four by four, so that a sum of four products
// is one step of the wide integer units: coordinate d of row r lies at block[d / 4 * 256 + 4 * r + d % 4], as
// code + 128.
constexpr int kScanDims = 64;

// A query in codes: row - centre = step * codes + missed.
struct Quantized {
    float step;      // > 0
    float sq_error;  // its root is |missed|, up to gamma(72) |missed| + 2u |row - centre|
    int32_t sum;     // of the codes
    int32_t sq_sum;  // of their squares
};

// The inner loops of `describe`, all EXACT: separate multiplications and additions in the order written here.
struct DescribeKernels {
    // dst[c * dst_stride + r] = src[r * src_stride + c] for rows r and columns c.
    void (*transpose)(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride, size_t rows,
                      size_t columns);

    // dst[i] = weight[0] * src[offset[0] + i]; then, for t = 1 .. taps - 1 in turn,
    // dst[i] = dst[i] + weight[t] * src[offset[t] + i]. With `resume` the first tap, too, is added to dst.
    // taps >= 1, n a multiple of 16.
    void (*sum_taps)(const float* src, const int32_t* offset, const float* weight, size_t taps, bool resume,
                     float* dst, size_t n);

    // dst[i] = (wa * a[i]) + (wb * b[i]).
    void (*blend)(const float* a, const float* b, float wa, float wb, float* dst, size_t n);
};

// The inner loops of 3x3 convolutions by tiles, all EXACT: the operations of winograd/scalar.cpp in its order
// (winograd/README.md). A tile of m x m outputs, m = 2 or 4, has n x n inputs, n = m + 2.
struct WinogradKernels {
    // pixels[y * n + x]: the `channels` values of a pixel. Value i of the transformed tile goes to out[i *
    // step
    // + c]; up to the next multiple of 16 channels anything may be written.
    using Input = void (*)(const float* const* pixels, size_t channels, float* out, size_t step);
    Input input2, input4;

    // Back, from sums[i * step + c]; bias[c] and then, unless null, others[y * m + x][c] is added, and the
    // activation is applied. Written to pixels[y * m + x][c], where that is not null. sums and bias hold
    // values up to a multiple of 16 channels.
    using Output = void (*)(const float* sums, size_t step, const float* bias, const float* const* others,
                            Activation activation, size_t channels, float* const* pixels);
    Output output2, output4;

    // out[r * out_stride + j] = sum over k, in ascending order from 0 and by fused multiply-adds, of rows[r *
    // stride + k] * strips[(j / 16 * depth + k) * 16 + j % 16], for r < count and j < width, a multiple
    // of 16.
    void (*multiply)(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                     size_t width, float* out, size_t out_stride);
};

struct KernelTable {
    const char* name;

    // EXACT. Squared L2 distance of two float32 rows: differences, products and sums in float64; lane l of 16
    // sums i = l, l+16, ...; lanes are folded 16 -> 8 -> 4 -> 2 -> 1 (upper half added to the lower).
    double (*sq_distance)(const float* a, const float* b, size_t dim);

    // FILTER. The same in float32, in any order: relative error <= gamma(dim / 16 + 40), but for squares that
    // underflow (2^-149 each) or overflow.
    float (*sq_distance32)(const float* a, const float* b, size_t dim);

    // out[i] = scale * (row[i] - centre[i]), computed in float64 and rounded to float32: EXACT. Returns the
    // sum of their squares in float64, in any order: relative error <= dim * 2^-53.
    double (*standardize)(const float* row, const double* centre, double scale, size_t dim, float* out);

    // FILTER. out[r * 64 + j] = init[j] (0 where init is null) + sum over d of rows[r * stride + d] * block[d
    // * 64
    // + j], for r < count <= kTileRows and j < 64. The sum runs over d in order, each term rounded at most
    // twice: error <= gamma(depth + 1) * (|init| + sum |terms|).
    void (*dot_tile)(const float* block, size_t depth, const float* rows, size_t stride, size_t count,
                     const float* init, float* out);

    // FILTER. The same, with the same bound, for packed strips and panels: count rows of the panels against
    // width <= 64 rows of the strips. The sum starts at out itself where `add` is set, else at init[j]. The
    // last strip is computed to its end; out has 64 columns. Where limits is not null, bit j of pass[r] tells
    // whether out[r * 64 + j] >= limits[r], and out need not be written where no bit is set.
    void (*dot_panels)(const float* strips, const float* panels, size_t depth, size_t count, size_t width,
                       const float* init, bool add, const float* limits, float* out, uint64_t* pass);

    // FILTER. One row against one block: out[j] as in dot_tile (sums in up to four parts), and a bit set for
    // each j with out[j] >= threshold. Same error bound with gamma(depth + 4).
    uint64_t (*scan_block)(const float* block, size_t depth, const float* row, float threshold,
                           const float* init, float* out);

    // EXACT. sums[i] += values[i] in float64, for i < count, a multiple of 16.
    void (*add_to_sums)(const float* values, size_t count, double* sums);

    // EXACT comparison of given floats: bit j set where values[j] >= thresholds[j] + shift, 64 values.
    uint64_t (*at_least)(const float* values, const float* thresholds, float shift);

    // FILTER. out[i] = sum over groups of kCodeGroup dimensions of (row - centre - step * code)^2, one step
    // for each group, code those at codes + places[i] * stride, for i < count. Each difference is off by at
    // most 2u (|row - centre| + |step * code|); the sum of their squares has terms >= 0: relative error <=
    // gamma(48 + groups).
    void (*code_distances)(const int8_t* codes, size_t stride, const uint8_t* places, size_t count,
                           const float* row, const float* centre, const float* steps, size_t groups,
                           float* out);

    // FILTER. Rounds row - centre, kScanDims values computed in float32, to codes of -127 to 127.
    Quantized (*quantize)(const float* row, const float* centre, int8_t* codes);

    // FILTER. The codes of a query against those of a leaf: out[j] = scale * dot[j] + (tail * tails[j] -
    // halves[j]), dot[j] the exact integer sum of products, and a bit set for each j unless out[j] <
    // threshold: NaN passes. Error <= gamma(4) * (|scale * dot[j]| + |tail * tails[j]| + |halves[j]|).
    // row_sum: the sum of row.
    uint64_t (*scan_codes)(const uint8_t* block, const int8_t* row, int32_t row_sum, float scale, float tail,
                           const float* tails, const float* halves, float threshold, float* out);

    // FILTER. Appends each i < count with sq_norm - 2 * dots[i] <= (reach + radius[i])^2 to out; returns how
    // many. Each side is computed in float32 with at most four roundings.
    size_t (*collect_in_reach)(const float* dots, const float* radius, size_t count, float sq_norm,
                               float reach, uint32_t* out);

    // EXACT. out[r * width + j] = rows[r * stride] * matrix[j], to which rows[r * stride + t] * matrix[t *
    // width + j] is added for t = 1 .. depth - 1 in turn, for r < count <= kMapRows and j < width, a multiple
    // of 16. With `resume` the first product, too, is added to out. Products and sums are rounded separately.
    // depth >= 1.
    void (*map_rows)(const float* rows, size_t stride, size_t count, const float* matrix, size_t width,
                     size_t depth, bool resume, float* out);

    DescribeKernels describe;
    WinogradKernels winograd;
};

}  // namespace inreach
