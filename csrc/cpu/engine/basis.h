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

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/aligned.h"
#include "engine/frame.h"
#include "inreach/nearest.h"
#include "kernels.h"

namespace inreach {

// Coordinates in which balls are measured, with the length of the rest as one more.
constexpr size_t kBallDims = 32;

// kRoundingSlack and `lowered` (query_search.cpp) cover sums over codes of so many coordinates.
constexpr size_t kMostRank = 512;
static_assert(kBallDims <= kScanDims, "balls see the leading coordinates of the first codes");

// What is stored of a projected row besides its coordinates.
struct RowFrame {
    float norm;         // >= |s(x)|
    float ball_tail;    // length of all but the leading `ball` coordinates
    float scan_tail;    // length of all but the leading kScanDims coordinates
    float middle_tail;  // length of all but the leading `middle` coordinates
    float full_tail;    // length of all but the `rank` coordinates; 0 where the basis spans everything
    float error;        // >= |stored - Phi(x)|, for each of the four Phi that these tails make
    bool usable;        // false: far outside the frame (float32 would overflow); decide in float64 alone
};

class Basis {
  public:
    // directions: rank x dim, row-major, orthonormal up to rounding (|V V' - 1| <= defect, Frobenius), the
    // principal ones first; 1 to kMostRank of them. Throws std::invalid_argument.
    Basis(Frame frame, size_t dim, size_t rank, const float* directions, double defect);

    size_t dim() const { return dim_; }
    // Tells this basis from every other in the process: what was made in one is of no use in another.
    uint64_t id() const { return id_; }
    // Coordinates stored, a multiple of 64; those past dim are 0. Balls see the leading kBallDims of them,
    // the first codes kScanDims, the second `middle`, the third all.
    size_t rank() const { return rank_; }
    size_t middle() const { return std::min<size_t>(rank_, 2 * kScanDims); }
    double scale() const { return frame_.scale(); }
    double lipschitz() const { return lipschitz_; }

    // Coordinates (count x rank) and frames of rows first .. first + count of the set.
    void project(const RowSet& rows, size_t first, size_t count, float* coordinates, RowFrame* frames) const {
        project(rows, first, count, rank_, coordinates, frames);
    }
    // The leading `width` of them alone (a multiple of 64; count x width): the same bits. Of the frames,
    // tails of more coordinates than that are left 0.
    void project(const RowSet& rows, size_t first, size_t count, size_t width, float* coordinates,
                 RowFrame* frames) const;

  private:
    uint64_t id_;
    Frame frame_;
    size_t dim_, rank_;
    bool spans_all_;
    double defect_, lipschitz_;
    AlignedArray<float> packed_;  // rank / 64 blocks of dim x 64 values, as dot_panels takes them
};

}  // namespace inreach
