// Rows in a frame, packed for dot_panels.
#pragma once

#include <algorithm>
#include <cstddef>

#include "engine/aligned.h"
#include "engine/frame.h"
#include "inreach/nearest.h"
#include "kernels.h"

namespace inreach {

// The dimensions are taken in passes, all panels of a pass behind each other.
class Panels {
  public:
    // Room for so many rows of dim values, `pass` of them at a time.
    Panels(size_t rows, size_t dim, size_t pass)
        : rows_((rows + kTileRows - 1) / kTileRows * kTileRows),
          dim_(dim),
          pass_(pass),
          values_(rows_ * dim) {}

    // Brings rows first to first + count - 1, kTileRows of them or fewer, into the frame as the panel of row
    // `at`. sq_norm, usable: their squared length there, and whether float32 can hold them; those that it
    // cannot become 0. scratch: kTileRows * dim values.
    void set(size_t at, const Frame& frame, const RowSet& rows, size_t first, size_t count, double* sq_norm,
             bool* usable, float* scratch);

    // Of the pass that begins with dimension d.
    size_t depth(size_t d) const { return std::min(pass_, dim_ - d); }
    const float* at(size_t row, size_t d) const { return values_.data() + place(row, d); }

  private:
    size_t place(size_t row, size_t d) const { return d * rows_ + row * depth(d); }

    size_t rows_, dim_, pass_;
    AlignedArray<float> values_;
};

}  // namespace inreach
