// Bank rows gathered into leaves of 64 that lie close together, with what is needed to pass over a leaf, then
// a row, without reading the row itself.
//
//   branch ball   64 leaves: centre and radius in the ball's coordinates, passes over 4096 rows at once
//   leaf ball     the same for 64 rows
//   first codes   64 leading coordinates about the centre of 16 leaves in 8 bits, and the length of the rest:
//                 a bound of its own for each row, by sums of integers
//   middle codes  the next coordinates (to basis.middle()) about the leaf's own centre: for what is left
//   last codes    all others, and the first ones once more about the leaf's own centre, which is finer
//   rows          the original float32 rows: read only for what codes let through, decided in float64
//
// Each code comes with the exact length of what it misses, so that its bound is certain. Leaves come from
// cutting the set in two across its widest direction, where that leaves the least variance on both sides,
// until 64 rows remain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/aligned.h"
#include "engine/basis.h"
#include "engine/projected_rows.h"

namespace inreach {

constexpr size_t kBallDepth = kBallDims + 1;     // coordinates of a ball and the length of the rest
constexpr size_t kLeavesPerBranch = kBlockRows;  // one block for the tile kernels
constexpr size_t kLeavesPerGroup = 16;           // leaves whose first codes have one centre and step
constexpr uint32_t kNoRow = 0xffffffffu;         // a place without a row, in the last leaf

// Bounds that hold for all rows of a leaf, in the frame. Stored as 4 floats.
struct LeafNumbers {
    float error;    // >= RowFrame::error
    float norm;     // >= length of (first codes, tail)
    float residue;  // >= length of what the first codes miss
    float codes;    // >= length of any row's further codes
};

// What further codes leave of one row: the length of all coordinates beyond those coded, and of what the
// codes miss (residues are rounded up). Stored as 4 floats.
struct RowRest {
    float middle_tail, middle_residue;
    float last_tail, last_residue;
};
static_assert(sizeof(LeafNumbers) == 4 * sizeof(float) && sizeof(RowRest) == 4 * sizeof(float),
              "both are stored as 4 floats");
static_assert(kLeavesPerBranch % kLeavesPerGroup == 0, "a group lies in one branch");
static_assert(kBlockRows == 64, "the rows of a leaf, and the leaves of a branch, are the bits of a uint64_t");

// The index as plain arrays, to be kept in a file and mapped again. Leaves are numbered along the tree;
// places are leaf * 64 + position in the leaf.
struct LeafArrays {
    StoredArray<float> branch_centres, branch_starts,
        branch_radii;                                          // blocks of 64 branches, as LeafIndex says
    StoredArray<float> leaf_centres, leaf_starts, leaf_radii;  // blocks of 64 leaves: one a branch
    StoredArray<float> leaf_numbers;                           // LeafNumbers
    StoredArray<uint32_t> row_of;                              // row at each place, kNoRow for none
    StoredArray<float> group_centres, group_steps;             // kScanDims and 1 for each group
    StoredArray<uint8_t> first_codes;                          // kScanDims bytes a row, see kernels.h
    StoredArray<float> first_tails, first_halves;              // by place
    StoredArray<float> code_centres, code_steps;               // rank and rank / 32 for each leaf
    StoredArray<int8_t> middle_codes, last_codes;              // by place
    StoredArray<float> row_rests;                              // by place: RowRest
    StoredArray<uint32_t> unbounded;                           // rows far outside the frame

    // Calls visit(name, array) for each, in a fixed order.
    template <typename Arrays, typename Visit>
    static void each(Arrays& arrays, Visit&& visit) {
        visit("branch_centres", arrays.branch_centres);
        visit("branch_starts", arrays.branch_starts);
        visit("branch_radii", arrays.branch_radii);
        visit("leaf_centres", arrays.leaf_centres);
        visit("leaf_starts", arrays.leaf_starts);
        visit("leaf_radii", arrays.leaf_radii);
        visit("leaf_numbers", arrays.leaf_numbers);
        visit("leaf_rows", arrays.row_of);
        visit("group_centres", arrays.group_centres);
        visit("group_steps", arrays.group_steps);
        visit("first_codes", arrays.first_codes);
        visit("first_tails", arrays.first_tails);
        visit("first_halves", arrays.first_halves);
        visit("code_centres", arrays.code_centres);
        visit("code_steps", arrays.code_steps);
        visit("middle_codes", arrays.middle_codes);
        visit("last_codes", arrays.last_codes);
        visit("row_rests", arrays.row_rests);
        visit("unbounded", arrays.unbounded);
    }
};

class LeafIndex {
  public:
    // `projected`: the same rows in the same basis, where they were projected already.
    LeafIndex(const Basis& basis, const RowSet& rows, const ProjectedRows* projected = nullptr);

    // An index of `rows` rows from its arrays, which are views of memory that outlives it. Sizes, row numbers
    // and the finiteness of balls are checked, so that no search reads outside of an array. A search takes
    // NaN among the numbers of single rows as "nothing is known". Whether the numbers are those of these rows
    // cannot be told without reading the rows. Throws std::invalid_argument.
    LeafIndex(const Basis& basis, size_t rows, LeafArrays arrays);

    const LeafArrays& arrays() const { return arrays_; }

    uint64_t basis_id() const { return basis_id_; }
    size_t rows_indexed() const { return rows_indexed_; }
    size_t rank() const { return rank_; }
    size_t leaves() const { return leaves_; }
    size_t branches() const { return branches_; }
    size_t branch_blocks() const { return (branches_ + kBlockRows - 1) / kBlockRows; }

    // Balls, 64 a block: centres dimension by dimension as in kernels.h, -|centre|^2 / 2, radius with the
    // members' errors in it.
    const float* branch_centres(size_t block) const {
        return at(arrays_.branch_centres, block, kBallDepth * kBlockRows);
    }
    const float* branch_starts(size_t block) const { return at(arrays_.branch_starts, block, kBlockRows); }
    const float* branch_radii(size_t block) const { return at(arrays_.branch_radii, block, kBlockRows); }
    const float* leaf_centres(size_t branch) const {
        return at(arrays_.leaf_centres, branch, kBallDepth * kBlockRows);
    }
    const float* leaf_starts(size_t branch) const { return at(arrays_.leaf_starts, branch, kBlockRows); }
    const float* leaf_radii(size_t branch) const { return at(arrays_.leaf_radii, branch, kBlockRows); }
    float centre_norm() const { return centre_norm_; }  // >= length of every ball's centre

    LeafNumbers numbers(size_t leaf) const {
        LeafNumbers numbers;
        std::memcpy(&numbers, at(arrays_.leaf_numbers, leaf, 4), sizeof numbers);
        return numbers;
    }
    const uint32_t* rows(size_t leaf) const { return at(arrays_.row_of, leaf, kBlockRows); }
    const float* group_centre(size_t group) const { return at(arrays_.group_centres, group, kScanDims); }
    float group_step(size_t group) const { return arrays_.group_steps[group]; }
    const uint8_t* first_codes(size_t leaf) const {
        return at(arrays_.first_codes, leaf, kScanDims * kBlockRows);
    }
    const float* first_tails(size_t leaf) const { return at(arrays_.first_tails, leaf, kBlockRows); }
    // (|codes|^2 + tail^2) / 2
    const float* first_halves(size_t leaf) const { return at(arrays_.first_halves, leaf, kBlockRows); }
    const float* code_centre(size_t leaf) const { return at(arrays_.code_centres, leaf, rank_); }
    const float* code_steps(size_t leaf) const { return at(arrays_.code_steps, leaf, rank_ / kCodeGroup); }

    // Coordinates kScanDims to middle; then 0 to kScanDims, and from middle to rank.
    size_t middle_width() const { return middle_ - kScanDims; }
    size_t last_width() const { return kScanDims + rank_ - middle_; }
    const int8_t* middle_codes(size_t place) const { return at(arrays_.middle_codes, place, middle_width()); }
    const int8_t* last_codes(size_t place) const { return at(arrays_.last_codes, place, last_width()); }
    const float* rest_data(size_t place) const { return at(arrays_.row_rests, place, 4); }
    RowRest rest(size_t place) const {
        RowRest rest;
        std::memcpy(&rest, rest_data(place), sizeof rest);
        return rest;
    }

    // Rows too far outside the frame to be bounded: every query decides them in float64.
    const StoredArray<uint32_t>& unbounded() const { return arrays_.unbounded; }

    size_t bytes() const;

  private:
    template <typename T>
    static const T* at(const StoredArray<T>& array, size_t i, size_t each) {
        return array.data() + i * each;
    }
    void lay_out(const Basis& basis, size_t rows, size_t leaves);
    void check_sizes();
    void find_centre_norm();

    uint64_t basis_id_ = 0;
    size_t rows_indexed_ = 0, rank_ = 0, middle_ = 0, leaves_ = 0, branches_ = 0;
    float centre_norm_ = 0.0f;
    LeafArrays arrays_;
};

}  // namespace inreach
