#include "engine/winograd_weights.h"

#include <algorithm>
#include <array>

#include "engine/threads.h"

namespace inreach {
namespace {

// Rows of the weights' transform: values at the points of the polynomial of a row of weights, over the
// product of the differences from the other points (infinity last).
std::array<std::array<double, 3>, 6> weight_transform(int tile) {
    std::array<std::array<double, 3>, 6> rows{};
    const std::array<double, 5> points =
        tile == 2 ? std::array<double, 5>{0, 1, -1, 0, 0} : std::array<double, 5>{0, 0.75, -0.75, 1.5, -1.5};
    const size_t finite = tile_edge(tile) - 1;
    for (size_t i = 0; i < finite; ++i) {
        double product = 1.0;
        for (size_t j = 0; j < finite; ++j)
            if (j != i) product *= points[i] - points[j];
        rows[i] = {1.0 / product, points[i] / product, points[i] * points[i] / product};
    }
    rows[finite] = {0.0, 0.0, 1.0};
    return rows;
}

}  // namespace

void transform_weights(const float* weight, size_t inputs, size_t outputs, int tile, float* strips) {
    const size_t n = tile_edge(tile), padded = whole_strips(outputs);
    const auto transform = weight_transform(tile);
    parallel_for(padded / kStrip, [&](size_t s) {
        const size_t some = std::min(kStrip, outputs - s * kStrip);
        for (size_t c = 0; c < inputs; ++c) {
            double given[9][kStrip] = {}, half[6][3][kStrip];
            for (size_t o = 0; o < some; ++o)
                for (size_t i = 0; i < 9; ++i)
                    given[i][o] = static_cast<double>(weight[((s * kStrip + o) * inputs + c) * 9 + i]);
            for (size_t y = 0; y < n; ++y)
                for (size_t x = 0; x < 3; ++x)
                    for (size_t o = 0; o < kStrip; ++o)
                        half[y][x][o] = (transform[y][0] * given[x][o] + transform[y][1] * given[3 + x][o]) +
                                        transform[y][2] * given[6 + x][o];
            for (size_t y = 0; y < n; ++y)
                for (size_t x = 0; x < n; ++x) {
                    float* const to =
                        strips + ((y * n + x) * padded / kStrip + s) * inputs * kStrip + c * kStrip;
                    for (size_t o = 0; o < kStrip; ++o)
                        to[o] = static_cast<float>(
                            (transform[x][0] * half[y][0][o] + transform[x][1] * half[y][1][o]) +
                            transform[x][2] * half[y][2][o]);
                }
        }
    });
}

}  // namespace inreach
