// Weights of 3x3 convolutions as `multiply` of ../winograd takes them.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace inreach {

constexpr size_t kStrip = kStripRows;

inline size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
inline size_t whole_strips(size_t channels) { return divide_up(channels, kStrip) * kStrip; }

// Inputs of a tile of `tile` outputs, in one direction.
inline size_t tile_edge(int tile) { return static_cast<size_t>(tile) + 2; }

// strips[((i * whole_strips(outputs) / 16 + o / 16) * inputs + c) * 16 + o % 16] = value i = y * tile_edge +
// x of the transformed weight[o, c], with zeros up to a whole strip. Computed in float64 and rounded once.
void transform_weights(const float* weight, size_t inputs, size_t outputs, int tile, float* strips);

}  // namespace inreach
