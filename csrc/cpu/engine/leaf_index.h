// Bank rows gathered into leaves of 64 that lie close together, with what is needed to pass over a leaf, then
// a row, without reading the row itself.
//
//   leaf ball    centre and radius in the head's coordinates: passes over 64 rows at once
//   head         32 leading coordinates and the length of the rest, float32, dimension by dimension (one leaf
//                = one block for scan_block): a bound of its own for each row
//   codes        the further coordinates as 8-bit codes, the exact length of what the codes miss, and the
//                length of what no coordinate sees: a tight bound for the few rows that the head lets through
//   rows         the original float32 rows: read only for what codes let through, decided in float64
//
// Leaves come from halving the set at the median of its widest coordinate until 64 rows remain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/aligned.h"
#include "engine/basis.h"
#include "engine/projected_rows.h"

namespace inreach {

class LeafIndex {
  public:
    // `projected`: the same rows in the same basis, where they were projected already.
    LeafIndex(const Basis& basis, const RowSet& rows, const ProjectedRows* projected = nullptr);

    // An index as plain arrays, to be kept in a file and mapped again. What they must hold stands beside the
    // members below.
    struct Arrays {
        StoredArray<float> blocks, starts, errors, norms, centres, centre_starts, radii;
        StoredArray<uint32_t> row_of, unbounded;
        StoredArray<int8_t> codes;
    };

    // An index of `rows` rows from its arrays, which are views of memory that outlives it. Sizes and row
    // numbers are checked, so that no search can read outside of an array; whether the numbers are those of
    // the rows cannot be told without reading them. Throws std::invalid_argument.
    LeafIndex(const Basis& basis, size_t rows, Arrays arrays);

    const Arrays& arrays() const { return arrays_; }

    struct CodeRecord {
        const int8_t* codes;  // basis.groups() * kCodeGroup
        float head_tail, full_tail, residue;
    };

    size_t leaves() const { return leaves_; }
    size_t rows_indexed() const { return rows_indexed_; }
    size_t groups() const { return groups_; }  // of codes
    size_t depth() const { return depth_; }    // head coordinates and the tail
    const float* block(size_t leaf) const { return arrays_.blocks.data() + leaf * depth_ * kBlockRows; }
    const float* start(size_t leaf) const { return arrays_.starts.data() + leaf * kBlockRows; }  // -|x|^2 / 2
    const uint32_t* rows(size_t leaf) const { return arrays_.row_of.data() + leaf * kBlockRows; }
    float error(size_t leaf) const { return arrays_.errors[leaf]; }
    float norm(size_t leaf) const { return arrays_.norms[leaf]; }
    // Balls, 64 leaves a block: centres as in block(), -|centre|^2 / 2, radius with the members' errors in
    // it.
    const float* centres(size_t block) const { return arrays_.centres.data() + block * depth_ * kBlockRows; }
    const float* centre_starts(size_t block) const {
        return arrays_.centre_starts.data() + block * kBlockRows;
    }
    const float* radii(size_t block) const { return arrays_.radii.data() + block * kBlockRows; }
    float centre_norm() const { return centre_norm_; }
    CodeRecord code(uint32_t row) const;
    void prefetch(uint32_t row) const {
        const int8_t* const record = arrays_.codes.data() + row * code_stride_;
        for (size_t at = 0; at < code_stride_; at += 64) __builtin_prefetch(record + at);
    }
    size_t bytes() const;
    // Rows too far outside the frame to be bounded: every query decides them in float64.
    const StoredArray<uint32_t>& unbounded() const { return arrays_.unbounded; }

    static constexpr uint32_t kNoRow = 0xffffffffu;

  private:
    float largest_centre_norm() const;
    void lay_out(const Basis& basis, size_t rows);
    void encode(const Basis& basis, const float* coordinates, const RowFrame& frame, int8_t* record) const;

    size_t rows_indexed_ = 0, leaves_ = 0, depth_ = 0, groups_ = 0, code_stride_ = 0;
    float centre_norm_ = 0.0f;
    Arrays arrays_;
};

}  // namespace inreach
