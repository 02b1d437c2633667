// Centre and power-of-two scale: where float32 arithmetic on differences loses least.
//
// Distances do not change with the centre, and scale with the scale, which being a power of two rounds
// nothing. Data far from the origin, huge and tiny data all become numbers around one.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "engine/rounding.h"
#include "inreach/nearest.h"

namespace inreach {

// Standardized rows longer than this cannot be squared and summed in float32; they are decided in float64
// alone.
constexpr double kUsableNorm = 1e12;

class Frame {
  public:
    Frame(std::vector<double> centre, double scale) : centre_(std::move(centre)), scale_(scale) {}

    // From an evenly spaced sample of the bank (of the queries, where all rows of the bank are equal).
    static Frame of(const RowSet& bank, const RowSet& queries);

    double scale() const { return scale_; }
    size_t dim() const { return centre_.size(); }

    // Whether the centre is finite and the scale a power of two, which rounds nothing.
    bool valid() const {
        for (const double value : centre_)
            if (!std::isfinite(value)) return false;
        int exponent;
        return scale_ > 0.0 && std::isfinite(scale_) && std::frexp(scale_, &exponent) == 0.5;
    }

    // scale * (row - centre) in float32 into out; returns the squared length of what was stored.
    double standardize(const float* row, float* out) const;

    // >= |stored - scale * (row - centre)|: one rounding a value, and at worst the smallest normal number.
    double error(double norm) const {
        return 1.01 * kUnit32 * norm + 1.2e-38 * std::sqrt(static_cast<double>(centre_.size()));
    }

  private:
    std::vector<double> centre_;
    double scale_;
};

}  // namespace inreach
