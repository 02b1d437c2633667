// 3x3 convolutions with stride 1, by Winograd's algorithm, with what follows them in a network.
#pragma once

#include <cstddef>
#include <memory>

#include "inreach/activation.h"

namespace inreach {

// Images (count, height, width, channels) in C order.
struct Images {
    const float* data;
    size_t count, height, width;
};

// The threads that work: `run(work, argument, threads, 0)` calls work(argument) on each of them and returns
// when all are done, as GOMP_parallel of an OpenMP library does. Null: the engine's own.
struct Team {
    int threads = 1;
    void (*run)(void (*work)(void*), void* argument, unsigned threads, unsigned flags) = nullptr;
};

// Tiles of 2 or 4 outputs in each direction that a convolution of such images takes; 0: a direct convolution
// is as fast. It depends on nothing else.
int winograd_tile(size_t height, size_t width, size_t inputs, size_t outputs);

class Convolution {
  public:
    // weight: (outputs, inputs, 3, 3) in C order; bias: `outputs` values; tile: 2 or 4.
    Convolution(const float* weight, const float* bias, size_t inputs, size_t outputs, int tile);
    ~Convolution();

    size_t inputs() const;
    size_t outputs() const;

    // out[n, y, x, o] = activation(bias[o] + other[n, y, x, o] + the sum of weight[o, c, i, j] * images[n, y
    // + i
    // - pad_y, x + j - pad_x, c]): height + 2 * pad_y - 2 rows and width + 2 * pad_x - 2 columns; images are
    // 0 outside. `other` may be null. The same bits on every instruction set, for any number of threads and
    // in any batch; NaN and infinity spread within a tile.
    void operator()(const Images& images, size_t pad_y, size_t pad_x, const float* other,
                    Activation activation, const Team& team, float* out) const;

  private:
    struct Packed;
    std::unique_ptr<const Packed> packed_;
};

}  // namespace inreach
