// The specification: one value at a time, in the order that every other file of this folder keeps.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace inreach {
namespace scalar {
namespace {

// a * b + c, rounded once, as std::fma where a library has it right: MinGW's rounds twice. The product is
// exact in double; the sum, rounded to the neighbour with an odd last bit, is rounded to float as the exact
// one would be.
float fused(float a, float b, float c) {
    const double product = static_cast<double>(a) * b, wide = c;
    double sum = product + wide;
    const double part = sum - product, error = (product - (sum - part)) + (wide - part);
    if (error != 0.0 && std::isfinite(sum)) {
        uint64_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        if ((bits & 1) == 0) bits += (error > 0.0) == (sum > 0.0) ? 1 : ~uint64_t{0};
        std::memcpy(&sum, &bits, sizeof bits);
    }
    return static_cast<float>(sum);
}

// One axis of a tile of 2 or 4 outputs, whose values are `stride` apart.
void input_axis(int out, const float* d, float* t, int stride) {
    const auto in = [&](int i) { return d[i * stride]; };
    const auto to = [&](int i) -> float& { return t[i * stride]; };
    if (out == 2) {
        const float t0 = in(2) - in(0), t1 = in(1) + in(2), t2 = in(2) - in(1), t3 = in(3) - in(1);
        to(0) = t0, to(1) = t1, to(2) = t2, to(3) = t3;
        return;
    }
    const float t0 = fused(81.0f / 64, in(0), fused(-45.0f / 16, in(2), in(4)));
    const float t5 = fused(81.0f / 64, in(1), fused(-45.0f / 16, in(3), in(5)));
    const float even_a = fused(-9.0f / 4, in(2), in(4)), odd_a = fused(-9.0f / 4, in(1), in(3));
    const float even_b = fused(-9.0f / 16, in(2), in(4)), odd_b = fused(-9.0f / 16, in(1), in(3));
    to(0) = t0, to(5) = t5;
    to(1) = fused(0.75f, odd_a, even_a), to(2) = fused(-0.75f, odd_a, even_a);
    to(3) = fused(1.5f, odd_b, even_b), to(4) = fused(-1.5f, odd_b, even_b);
}

void output_axis(int out, const float* m, float* y, int stride) {
    const auto in = [&](int i) { return m[i * stride]; };
    const auto to = [&](int i) -> float& { return y[i * stride]; };
    if (out == 2) {
        const float y0 = (in(0) + in(1)) + in(2), y1 = (in(1) - in(2)) + in(3);
        to(0) = y0, to(1) = y1;
        return;
    }
    const float sum_a = in(1) + in(2), difference_a = in(1) - in(2);
    const float sum_b = in(3) + in(4), difference_b = in(3) - in(4);
    const float y0 = (in(0) + sum_a) + sum_b;
    const float y3 = fused(27.0f / 8, difference_b, fused(27.0f / 64, difference_a, in(5)));
    to(0) = y0, to(3) = y3;
    to(1) = fused(1.5f, difference_b, 0.75f * difference_a);
    to(2) = fused(9.0f / 4, sum_b, 9.0f / 16 * sum_a);
}

void transform_input(int tile, const float* const* pixels, size_t channels, float* out, size_t step) {
    const int n = tile + 2;
    for (size_t c = 0; c < channels; ++c) {
        float values[36];
        for (int i = 0; i < n * n; ++i) values[i] = pixels[i][c];
        for (int x = 0; x < n; ++x) input_axis(tile, values + x, values + x, n);
        for (int y = 0; y < n; ++y) input_axis(tile, values + y * n, values + y * n, 1);
        for (int i = 0; i < n * n; ++i) out[static_cast<size_t>(i) * step + c] = values[i];
    }
}

void transform_output(int tile, const float* sums, size_t step, const float* bias, const float* const* others,
                      Activation activation, size_t channels, float* const* pixels) {
    const int n = tile + 2;
    for (size_t c = 0; c < channels; ++c) {
        float values[36];
        for (int i = 0; i < n * n; ++i) values[i] = sums[static_cast<size_t>(i) * step + c];
        for (int x = 0; x < n; ++x) output_axis(tile, values + x, values + x, n);
        for (int y = 0; y < tile; ++y) output_axis(tile, values + y * n, values + y * n, 1);
        for (int y = 0; y < tile; ++y)
            for (int x = 0; x < tile; ++x) {
                const int i = y * tile + x;
                if (pixels[i] == nullptr) continue;
                float value = values[y * n + x] + bias[c];
                if (others != nullptr) value = value + others[i][c];
                if (activation != Activation::kNone) value = 0.0f > value ? 0.0f : value;
                if (activation == Activation::kRelu6) value = 6.0f < value ? 6.0f : value;
                pixels[i][c] = value;
            }
    }
}

}  // namespace

void winograd_input2(const float* const* pixels, size_t channels, float* out, size_t step) {
    transform_input(2, pixels, channels, out, step);
}

void winograd_input4(const float* const* pixels, size_t channels, float* out, size_t step) {
    transform_input(4, pixels, channels, out, step);
}

void winograd_output2(const float* sums, size_t step, const float* bias, const float* const* others,
                      Activation activation, size_t channels, float* const* pixels) {
    transform_output(2, sums, step, bias, others, activation, channels, pixels);
}

void winograd_output4(const float* sums, size_t step, const float* bias, const float* const* others,
                      Activation activation, size_t channels, float* const* pixels) {
    transform_output(4, sums, step, bias, others, activation, channels, pixels);
}

void winograd_multiply(const float* rows, size_t stride, size_t count, const float* strips, size_t depth,
                       size_t width, float* out, size_t out_stride) {
    for (size_t r = 0; r < count; ++r)
        for (size_t j = 0; j < width; ++j) {
            const float* const column = strips + j / kStripRows * depth * kStripRows + j % kStripRows;
            float sum = 0.0f;
            for (size_t k = 0; k < depth; ++k) sum = fused(rows[r * stride + k], column[k * kStripRows], sum);
            out[r * out_stride + j] = sum;
        }
}

}  // namespace scalar
}  // namespace inreach
