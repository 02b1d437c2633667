// The frame in which bounds are computed: centre, power-of-two scale, and orthonormal leading directions.
//
// Let s(x) = scale * (x - centre) and, for the rows V of the basis, Phi(x) = (V s(x), |s(x) - V'V s(x)|). For
// orthonormal V, |Phi(x) - Phi(y)| <= scale * |x - y| (the last coordinate by the reverse triangle
// inequality): a distance in a few dozen dimensions that never exceeds the true one. The rows of V are
// orthonormal only up to a defect eta = |V V' - 1| (Frobenius), which costs a factor of at most
// lipschitz = sqrt(1 + eta (1 + eta)).
//
// Phi itself is computed in float32, so that what is stored is Phi(x) + error; `error` below bounds the
// length of that vector: centring and scaling (one rounding for each value), the sums of the projection
// (gamma of the longest chain of additions), and the root that gives the last coordinate. docs/search.md
// has the derivation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/aligned.h"
#include "engine/frame.h"
#include "inreach/nearest.h"
#include "kernels.h"

namespace inreach {

// What is stored of a projected row besides its coordinates.
struct RowFrame {
    float norm;       // >= |s(x)|
    float head_tail;  // length of all but the leading `head` coordinates
    float full_tail;  // length of all but the `rank` coordinates; 0 where the basis spans everything
    float error;      // >= |stored - Phi(x)|, for the head's Phi and the full one alike
    bool usable;      // false: far outside the frame (float32 would overflow); decide in float64 alone
};

class Basis {
  public:
    // directions: rank x dim, row-major, orthonormal up to rounding, the principal ones first.
    // deviation: standard deviation of each coordinate over a sample, already scaled.
    Basis(Frame frame, size_t dim, size_t rank, const float* directions, const double* deviation,
          double defect);

    size_t dim() const { return dim_; }
    size_t rank() const { return rank_; }      // coordinates stored, a multiple of 64; those past dim are 0
    size_t head() const { return head_; }      // leading coordinates kept in float32
    size_t groups() const { return groups_; }  // groups of kCodeGroup further coordinates kept as codes
    double scale() const { return frame_.scale(); }
    double lipschitz() const { return lipschitz_; }
    const float* step() const { return step_.data(); }
    const float* step_sq() const { return step_sq_.data(); }

    // Coordinates (count x rank) and frames of rows first .. first + count of the set.
    void project(const RowSet& rows, size_t first, size_t count, float* coordinates, RowFrame* frames) const;

  private:
    Frame frame_;
    size_t dim_, rank_, head_, groups_;
    bool spans_all_;
    double defect_, lipschitz_;
    AlignedArray<float> packed_;  // rank / 64 blocks of dim x 64
    std::vector<float> step_, step_sq_;
};

}  // namespace inreach
