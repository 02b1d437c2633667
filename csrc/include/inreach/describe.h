// Patch descriptors straight from a backbone's levels: neighbourhood, both poolings and the resampling in one
// pass, with nothing unfolded (ALGORITHM section 3; formula and order of operations:
// csrc/cpu/describe/README.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace inreach {

// One axis of bilinear resampling: sample i of the grid is w0[i] * x[i0[i]] + w1[i] * x[i0[i] + 1]; where
// w1[i] is 0 it is x[i0[i]] itself, and nothing else is read.
struct AxisResample {
    const int32_t* i0 = nullptr;
    const float* w0 = nullptr;
    const float* w1 = nullptr;
};

// A view of one level of the backbone, and its part of the map. Strides count floats and may have any value:
// channels_last and contiguous tensors are both read in place.
struct DescribeLevel {
    const float* data = nullptr;  // (batch, channels, height, width)
    size_t channels = 0;
    size_t height = 0;
    size_t width = 0;
    ptrdiff_t batch_stride = 0;
    ptrdiff_t channel_stride = 0;
    ptrdiff_t row_stride = 0;
    ptrdiff_t column_stride = 0;

    // Output first_output + i sums, in this order, feature feature_begin[i] + t times weight[tap_begin[i] +
    // t] for t in [0, tap_begin[i + 1] - tap_begin[i]); at least one tap each. Feature f is channel f / k^2
    // at the place f % k^2 (row by row) of the k x k neighbourhood, zero beyond the border.
    size_t first_output = 0;
    size_t outputs = 0;
    const int64_t* feature_begin = nullptr;  // outputs
    const int64_t* tap_begin = nullptr;      // outputs + 1
    const float* weight = nullptr;           // tap_begin[outputs]

    AxisResample rows;     // grid_height entries
    AxisResample columns;  // grid_width entries
};

// Descriptor of patch p (row by row of the grid) of image b: out[b * out_batch_stride + p * out_row_stride ..
// + dim), out_row_stride >= dim. Levels come with first_output ascending and together cover [0, dim); an
// output that several levels share is their sum. neighbourhood is odd. The bits depend on neither threads,
// instruction set, batch nor layout.
void describe(const DescribeLevel* levels, size_t level_count, size_t batch, size_t neighbourhood,
              size_t grid_height, size_t grid_width, size_t dim, float* out, ptrdiff_t out_batch_stride,
              ptrdiff_t out_row_stride);

}  // namespace inreach
