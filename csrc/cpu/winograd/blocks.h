// The loops of this folder, with the vector type as a parameter; each file of an instruction set includes it
// once.
//
// All of it has internal linkage, so that no symbol leaves the object file. A Vector has Type, kLanes, load,
// store, set1, add, sub, mul, fma (a * b + c, rounded once), above (a > b ? a : b) and below (a < b ? a : b).
#pragma once

#include "kernels.h"
#include "unroll.h"

namespace inreach {
namespace {

// F(2x2, 3x3): points 0, 1, -1 and infinity.
struct Tile2 {
    static constexpr int kOut = 2, kIn = 4;

    template <class Vector, class V>
    static inline void input(const V* d, V* t) {
        t[0] = Vector::sub(d[2], d[0]);
        t[1] = Vector::add(d[1], d[2]);
        t[2] = Vector::sub(d[2], d[1]);
        t[3] = Vector::sub(d[3], d[1]);
    }

    template <class Vector, class V>
    static inline void output(const V* m, V* y) {
        y[0] = Vector::add(Vector::add(m[0], m[1]), m[2]);
        y[1] = Vector::add(Vector::sub(m[1], m[2]), m[3]);
    }
};

// F(4x4, 3x3): points 0, a, -a, b, -b and infinity, a = 3/4, b = 3/2. All factors are exact in float32.
struct Tile4 {
    static constexpr int kOut = 4, kIn = 6;
    static constexpr float kA = 0.75f, kB = 1.5f;

    template <class Vector, class V>
    static inline void input(const V* d, V* t) {
        const V product = Vector::set1(kA * kA * kB * kB), sum = Vector::set1(-(kA * kA + kB * kB));
        t[0] = Vector::fma(product, d[0], Vector::fma(sum, d[2], d[4]));
        t[5] = Vector::fma(product, d[1], Vector::fma(sum, d[3], d[5]));
        const V square_b = Vector::set1(-kB * kB), square_a = Vector::set1(-kA * kA);
        const V even_a = Vector::fma(square_b, d[2], d[4]), odd_a = Vector::fma(square_b, d[1], d[3]);
        t[1] = Vector::fma(Vector::set1(kA), odd_a, even_a);
        t[2] = Vector::fma(Vector::set1(-kA), odd_a, even_a);
        const V even_b = Vector::fma(square_a, d[2], d[4]), odd_b = Vector::fma(square_a, d[1], d[3]);
        t[3] = Vector::fma(Vector::set1(kB), odd_b, even_b);
        t[4] = Vector::fma(Vector::set1(-kB), odd_b, even_b);
    }

    template <class Vector, class V>
    static inline void output(const V* m, V* y) {
        const V sum_a = Vector::add(m[1], m[2]), difference_a = Vector::sub(m[1], m[2]);
        const V sum_b = Vector::add(m[3], m[4]), difference_b = Vector::sub(m[3], m[4]);
        y[0] = Vector::add(Vector::add(m[0], sum_a), sum_b);
        y[1] = Vector::fma(Vector::set1(kB), difference_b, Vector::mul(Vector::set1(kA), difference_a));
        y[2] = Vector::fma(Vector::set1(kB * kB), sum_b, Vector::mul(Vector::set1(kA * kA), sum_a));
        y[3] = Vector::fma(Vector::set1(kB * kB * kB), difference_b,
                           Vector::fma(Vector::set1(kA * kA * kA), difference_a, m[5]));
    }
};

template <class Vector, class Tile>
inline void input_vectors(const float* const* pixels, size_t channels, float* out, size_t step) {
    using V = typename Vector::Type;
    constexpr int n = Tile::kIn;
    for (size_t c = 0; c + Vector::kLanes <= channels; c += Vector::kLanes) {
        V half[n][n];  // [column][row]
        INREACH_UNROLL
        for (int x = 0; x < n; ++x) {
            V column[n];
            INREACH_UNROLL
            for (int y = 0; y < n; ++y) column[y] = Vector::load(pixels[y * n + x] + c);
            Tile::template input<Vector>(column, half[x]);
        }
        INREACH_UNROLL
        for (int y = 0; y < n; ++y) {
            V row[n], done[n];
            INREACH_UNROLL
            for (int x = 0; x < n; ++x) row[x] = half[x][y];
            Tile::template input<Vector>(row, done);
            INREACH_UNROLL
            for (int x = 0; x < n; ++x)
                Vector::store(out + static_cast<size_t>(y * n + x) * step + c, done[x]);
        }
    }
}

template <class Vector, class Tile>
inline void transform_input(const float* const* pixels, size_t channels, float* out, size_t step) {
    constexpr int n = Tile::kIn;
    input_vectors<Vector, Tile>(pixels, channels, out, step);
    const size_t left = channels % Vector::kLanes, done = channels - left;
    if (left == 0) return;
    float padded[n * n][Vector::kLanes] = {};
    const float* own[n * n];
    for (int i = 0; i < n * n; ++i) {
        for (size_t l = 0; l < left; ++l) padded[i][l] = pixels[i][done + l];
        own[i] = padded[i];
    }
    input_vectors<Vector, Tile>(own, Vector::kLanes, out + done, step);
}

template <class Vector, class Tile>
inline void output_vectors(const float* sums, size_t step, const float* bias, const float* const* others,
                           Activation activation, size_t channels, float* const* pixels) {
    using V = typename Vector::Type;
    constexpr int n = Tile::kIn, m = Tile::kOut;
    const V zero = Vector::set1(0.0f), six = Vector::set1(6.0f);
    for (size_t c = 0; c + Vector::kLanes <= channels; c += Vector::kLanes) {
        V half[n][m];
        INREACH_UNROLL
        for (int x = 0; x < n; ++x) {
            V column[n];
            INREACH_UNROLL
            for (int y = 0; y < n; ++y)
                column[y] = Vector::load(sums + static_cast<size_t>(y * n + x) * step + c);
            Tile::template output<Vector>(column, half[x]);
        }
        const V offset = Vector::load(bias + c);
        INREACH_UNROLL
        for (int y = 0; y < m; ++y) {
            V row[n], done[m];
            INREACH_UNROLL
            for (int x = 0; x < n; ++x) row[x] = half[x][y];
            Tile::template output<Vector>(row, done);
            INREACH_UNROLL
            for (int x = 0; x < m; ++x) {
                float* const pixel = pixels[y * m + x];
                if (pixel == nullptr) continue;
                V value = Vector::add(done[x], offset);
                if (others != nullptr) value = Vector::add(value, Vector::load(others[y * m + x] + c));
                if (activation != Activation::kNone) value = Vector::above(zero, value);
                if (activation == Activation::kRelu6) value = Vector::below(six, value);
                Vector::store(pixel + c, value);
            }
        }
    }
}

template <class Vector, class Tile>
inline void transform_output(const float* sums, size_t step, const float* bias, const float* const* others,
                             Activation activation, size_t channels, float* const* pixels) {
    constexpr int m = Tile::kOut;
    output_vectors<Vector, Tile>(sums, step, bias, others, activation, channels, pixels);
    const size_t left = channels % Vector::kLanes, done = channels - left;
    if (left == 0) return;
    float padded[m * m][Vector::kLanes] = {}, added[m * m][Vector::kLanes] = {};
    float* own[m * m];
    const float* own_others[m * m];
    for (int i = 0; i < m * m; ++i) {
        own[i] = pixels[i] == nullptr ? nullptr : padded[i];
        own_others[i] = added[i];
        if (others != nullptr && pixels[i] != nullptr)
            for (size_t l = 0; l < left; ++l) added[i][l] = others[i][done + l];
    }
    output_vectors<Vector, Tile>(sums + done, step, bias + done, others == nullptr ? nullptr : own_others,
                                 activation, Vector::kLanes, own);
    for (int i = 0; i < m * m; ++i)
        if (pixels[i] != nullptr)
            for (size_t l = 0; l < left; ++l) pixels[i][done + l] = padded[i][l];
}

// kRows rows x kVectors vectors, whose sums stay in registers.
template <class Vector, int kRows, int kVectors>
inline void multiply_block(const float* rows, size_t stride, const float* strips, size_t depth, float* out,
                           size_t out_stride) {
    using V = typename Vector::Type;
    constexpr int kInStrip = kStripRows / static_cast<int>(Vector::kLanes);
    V sum[kRows][kVectors];
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) INREACH_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Vector::set1(0.0f);
    for (size_t k = 0; k < depth; ++k) {
        V column[kVectors];
        INREACH_UNROLL
        for (int v = 0; v < kVectors; ++v)
            column[v] = Vector::load(strips + (static_cast<size_t>(v / kInStrip) * depth + k) * kStripRows +
                                     static_cast<size_t>(v % kInStrip) * Vector::kLanes);
        INREACH_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const V value = Vector::set1(rows[static_cast<size_t>(r) * stride + k]);
            INREACH_UNROLL
            for (int v = 0; v < kVectors; ++v) sum[r][v] = Vector::fma(value, column[v], sum[r][v]);
        }
    }
    INREACH_UNROLL
    for (int r = 0; r < kRows; ++r) INREACH_UNROLL
    for (int v = 0; v < kVectors; ++v)
        Vector::store(out + static_cast<size_t>(r) * out_stride + static_cast<size_t>(v) * Vector::kLanes,
                      sum[r][v]);
}

// A block of `count` <= kRows rows.
template <class Vector, int kRows, int kVectors>
inline void multiply_rows(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                          float* out, size_t out_stride) {
    if constexpr (kRows > 0) {
        if (count == kRows)
            multiply_block<Vector, kRows, kVectors>(rows, stride, strips, depth, out, out_stride);
        else
            multiply_rows<Vector, kRows - 1, kVectors>(rows, stride, count, strips, depth, out, out_stride);
    }
}

// All rows against kVectors vectors of outputs, in blocks of at most kRows rows and of nearly equal height.
template <class Vector, int kRows, int kVectors>
inline void multiply_strips(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                            float* out, size_t out_stride) {
    size_t blocks = (count + kRows - 1) / kRows;
    for (size_t r = 0; r < count; --blocks) {
        const size_t height = (count - r + blocks - 1) / blocks;
        multiply_rows<Vector, kRows, kVectors>(rows + r * stride, stride, height, strips, depth,
                                               out + r * out_stride, out_stride);
        r += height;
    }
}

}  // namespace
}  // namespace inreach

// The transforms of an instruction set's namespace, with its Vector.
#define INREACH_WINOGRAD_TRANSFORMS(Vector)                                                              \
    void winograd_input2(const float* const* pixels, size_t channels, float* out, size_t step) {         \
        transform_input<Vector, Tile2>(pixels, channels, out, step);                                     \
    }                                                                                                    \
    void winograd_input4(const float* const* pixels, size_t channels, float* out, size_t step) {         \
        transform_input<Vector, Tile4>(pixels, channels, out, step);                                     \
    }                                                                                                    \
    void winograd_output2(const float* sums, size_t step, const float* bias, const float* const* others, \
                          Activation activation, size_t channels, float* const* pixels) {                \
        transform_output<Vector, Tile2>(sums, step, bias, others, activation, channels, pixels);         \
    }                                                                                                    \
    void winograd_output4(const float* sums, size_t step, const float* bias, const float* const* others, \
                          Activation activation, size_t channels, float* const* pixels) {                \
        transform_output<Vector, Tile4>(sums, step, bias, others, activation, channels, pixels);         \
    }
