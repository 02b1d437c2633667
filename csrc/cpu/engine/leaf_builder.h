// Makes the arrays of a LeafIndex, in memory or in whatever the caller maps: the same bytes either way.
//
// The rows are read three times in their own order (coordinates for the tree; each leaf's extent; codes), so
// that they may lie in a file much larger than memory: what was read of a mapping is given back after each
// chunk.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "engine/leaf_index.h"

namespace inreach {

// What a build may take. By default: no limit, rows in memory.
struct BuildMemory {
    // Bytes beside the rows, 0 for no limit. Some 34 bytes a row are needed always (at a rank of 256), also
    // where the limit is less; the rest of the limit is for chunks of rows, of at least 768.
    size_t limit = 0;
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

    // Fills arrays of these sizes, any number of times: the same bytes.
    void fill(LeafArrays& arrays);

  private:
    // Greatest values of a leaf's rows so far, raised by many threads. The bits of floats that are not
    // negative are ordered as the floats are.
    class AtomicMaximum {
      public:
        void raise(float value) {
            const uint32_t wanted = bits_of(value);
            uint32_t seen = bits_.load(std::memory_order_relaxed);
            while (seen < wanted && !bits_.compare_exchange_weak(seen, wanted, std::memory_order_relaxed)) {
            }
        }
        float value() const {
            const uint32_t bits = bits_.load(std::memory_order_relaxed);
            float value;
            std::memcpy(&value, &bits, sizeof value);
            return value;
        }

      private:
        static uint32_t bits_of(float value) {
            static_assert(sizeof(float) == sizeof(uint32_t) && std::numeric_limits<float>::is_iec559);
            uint32_t bits;
            std::memcpy(&bits, &value, sizeof bits);
            return bits;
        }

        std::atomic<uint32_t> bits_{0};
    };
    struct LeafMaxima {
        AtomicMaximum error, norm, residue;
    };
    struct Span {
        size_t begin, end;
    };
    struct Ball {
        float centre[kBallDepth];
        float start, radius;  // -|centre|^2 / 2; radius without the rows' errors
    };
    // coordinates (count x width) and frames of rows first .. first + count.
    struct ProjectedChunk {
        size_t first, count;
        const float* coordinates;
        const RowFrame* frames;
    };

    template <typename Use>
    void for_each_chunk(size_t width, Use&& use);
    void project_heads();
    size_t divide(Span span);
    void split(Span span);
    void measure(Span span, Ball& ball) const;
    void measure_extents(LeafArrays& arrays);
    void encode(LeafArrays& arrays);
    void encode_row(LeafArrays& arrays, uint32_t place, const float* z, const RowFrame& frame,
                    LeafMaxima& maxima) const;
    void lay_balls(LeafArrays& arrays) const;
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
