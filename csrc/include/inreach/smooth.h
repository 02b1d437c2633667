// Maps from patch scores: a banded linear map along each axis, as upsampling and a Gaussian filter are
// together.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inreach {

// What each of `cells` input values adds to the outputs of an axis: weights to outputs low[c] .. high[c] - 1.
// Those of cell c follow those of c - 1 in `weights`.
struct Band {
    size_t cells;
    const int32_t *low, *high;
    const double* weights;
};

// out[y * width + x] for a grid of scores (rows.cells x columns.cells), in float64 and rounded to float32 at
// the end. Along y first: cells are added in ascending order, from 0; then along x in the same way. Each
// product and sum is rounded by itself: the same bits on every instruction set. Throws std::invalid_argument
// where a band leaves its axis.
void smooth(const double* scores, const Band& rows, const Band& columns, size_t height, size_t width,
            float* out);

}  // namespace inreach
