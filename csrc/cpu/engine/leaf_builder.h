// Makes the arrays of a LeafIndex, in memory or in whatever the caller maps: the same bytes either way.
//
// The rows are read three times in their own order (coordinates for the tree; each leaf's extent; codes), so
// that they may lie in a file much larger than memory: what was read of a mapping is given back after each
// chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/leaf_index.h"

namespace inreach {

// What a build may take. By default: what it likes, rows in memory.
struct BuildMemory {
    size_t limit = 0;            // bytes for chunks of rows, 0 for no limit
    bool rows_mapped = false;    // rows lie in a file mapping: give their pages back
    bool arrays_mapped = false;  // the same for the arrays that fill() writes
    float* heads = nullptr;  // rows.count * kBallDepth floats of mapped memory, if they must not be in memory
};

class LeafBuilder {
  public:
    // Builds the tree. `projected` as in LeafIndex.
    LeafBuilder(const Basis& basis, const RowSet& rows, const ProjectedRows* projected,
                const BuildMemory& memory = BuildMemory());

    size_t leaves() const { return leaves_; }

    // Arrays of the right sizes, not filled; with `count_only` no memory comes with them.
    LeafArrays allocate(bool count_only = false) const;

    // Fills arrays of these sizes.
    void fill(LeafArrays& arrays);

  private:
    struct Span {
        size_t begin, end;
    };
    struct Ball {
        float centre[kBallDepth];
        float start, radius;  // -|centre|^2 / 2; radius without the rows' errors
    };
    // coordinates (count x width) and frames of rows first .. first + count.
    struct Chunk {
        size_t first, count;
        const float* coordinates;
        const RowFrame* frames;
    };

    template <typename Use>
    void for_each_chunk(size_t width, Use&& use);
    void project_heads();
    size_t halve(Span span);
    void split(Span span);
    void measure(Span span, Ball& ball) const;
    void measure_extents(LeafArrays& arrays);
    void encode(LeafArrays& arrays);
    void encode_row(LeafArrays& arrays, uint32_t place, const float* z, const RowFrame& frame);
    void give_back(const LeafArrays& arrays) const;

    const Basis& basis_;
    RowSet rows_;
    const ProjectedRows* projected_;
    std::unique_ptr<ProjectedRows> own_projected_;
    BuildMemory memory_;
    size_t leaves_ = 0, branches_ = 0;
    AlignedArray<float> own_heads_;
    float* heads_ = nullptr;          // kBallDepth for each bounded row, in the order of the tree
    std::vector<uint32_t> row_at_;    // row at each place
    std::vector<uint32_t> place_of_;  // place of each row, kNoRow where it is unbounded
    std::vector<uint32_t> unbounded_;
    std::vector<Ball> leaf_balls_, branch_balls_;
};

}  // namespace inreach
