// The search of one query through an index: from a first answer to the proof that nothing is nearer.
//
// The best distance so far, brought into the basis' frame with all errors of both sides, is the query's
// reach. Balls beyond the reach are passed over. In a leaf, the first codes leave few rows, the middle codes
// fewer, the last codes very few; these are decided in float64 on the original rows, lowest bound first. A
// row is passed over only if its lower bound, less all rounding, exceeds the reach: ties survive, and the
// lowest row number wins them. docs/search.md proves the bounds.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "engine/leaf_index.h"
#include "engine/projected_rows.h"
#include "engine/top_k.h"
#include "inreach/nearest.h"
#include "kernels.h"

namespace inreach {

// What a search looks into, the same for every query.
struct SearchContext {
    const RowSet& queries;
    const ProjectedRows& projected;
    const RowSet& bank;
    const Basis& basis;
    const LeafIndex& index;
    const KernelTable& table;
    bool grouped;

    // Throws std::invalid_argument where these do not belong together.
    SearchContext(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                  const Basis& basis, const LeafIndex& index, size_t k, const int64_t* hint);
};

// What some searches did.
struct SearchWork {
    SearchCounts counts;
    uint64_t balls = 0;
    uint64_t read = 0;              // rows read: decided, or ruled out in float32
    uint64_t check_memory_at = 16;  // rows read at which limit_resident is called next

    SearchWork& operator+=(const SearchWork& other) {
        counts += other.counts;
        balls += other.balls;
        read += other.read;
        return *this;
    }
};

// A leaf or a branch, and a lower bound on the distance to its rows.
struct BallGap {
    float gap;
    uint32_t number;

    bool operator<(const BallGap& other) const {
        return gap < other.gap || (gap == other.gap && number < other.number);
    }
};

// Asks the processor to load the beginning of what is read soon; it continues by itself. Asking for more
// would delay what is read now.
inline void fetch_ahead(const void* data, size_t bytes) {
    constexpr size_t kMost = 1024, kLine = 64;
    for (size_t i = 0; i < (bytes < kMost ? bytes : kMost); i += kLine)
        __builtin_prefetch(static_cast<const char*>(data) + i);
}

class QuerySearch {
  public:
    // head: the query's coordinates among the balls (kBallDepth). answers: empty at first.
    QuerySearch(const SearchContext& context, size_t query, const float* head, SearchWork& work,
                TopK answers);

    // Decides a row, if the query may choose it.
    void offer(int64_t row);

    // First answers: the nearest leaves of the branches whose centres are nearest. dots: what dot_tile gave
    // for this query and the branches; block b of it at dots + b * stride. With groups the nearest leaves
    // hold the query's own rows: those leaves are read, but do not count.
    void start(const float* dots, size_t stride);

    bool reaches_branch(const float* dots, size_t stride, size_t branch) const {
        return branch_gap(dot_of(dots, stride, branch), branch) <= reach_;
    }

    // Sets `bit` in `wanted` for each leaf of a branch within reach that start() has not read; the dots of
    // all its leaves go to `dots`.
    void want_leaves(size_t branch, float* dots, uint64_t bit, uint64_t* wanted);

    // Reads a leaf, if it is still within reach.
    void visit(size_t leaf, float centre_dot) {
        if (leaf_gap(centre_dot, leaf) > reach_) return;
        read_leaf(leaf);
        if (candidates_.size() >= kDrainAt) drain();
    }

    // Decides what waits.
    void finish() { drain(); }

    // Reads the nearest leaves of all, nearest first, and returns a bound: in the frame, no row that was not
    // decided is nearer than that.
    double read_nearest(const float* dots, size_t stride, std::vector<BallGap>& heap);

    // The float32 at or below the squared distance of every row, where those not decided lie at least `bound`
    // away in the frame.
    float sq_lower(double bound) const;

  private:
    // Rows that wait for a decision: sorted by their bounds, so that each may rule out those behind it. 153,
    // 156, 157 ms for 16, 64, 256 (query_search.cpp says of what).
    static constexpr size_t kDrainAt = 64;

    struct Candidate {
        float bound;  // lower bound on the distance, in the frame, less all errors
        uint32_t row;
    };

    static float dot_of(const float* dots, size_t stride, size_t ball) {
        return dots[ball / kBlockRows * stride + ball % kBlockRows];
    }

    // Lower bound on the distance to every row of a ball, from the dot product with its centre.
    double gap(float centre_dot, float radius) const {
        const double sq = static_cast<double>(ball_sq_) - 2.0 * static_cast<double>(centre_dot);
        return std::sqrt(sq > 0.0 ? sq : 0.0) * (1.0 - 1e-9) - static_cast<double>(radius);
    }
    double branch_gap(float centre_dot, size_t branch) const {
        return gap(centre_dot, index_.branch_radii(branch / kBlockRows)[branch % kBlockRows]);
    }
    double leaf_gap(float centre_dot, size_t leaf) const {
        return gap(centre_dot, index_.leaf_radii(leaf / kLeavesPerBranch)[leaf % kLeavesPerBranch]);
    }

    // Whether the query may choose the row, and its floor does not rule it out.
    bool eligible(int64_t row) const {
        return (!context_.grouped || bank_.group[row] != group_) &&
               (bank_.floor == nullptr || bank_.floor[row] <= answers_.limit());
    }

    void update_reach();
    void decide(uint32_t row);
    void scan_balls(size_t branch, float* dots);
    size_t scan_balls(size_t branch, float* dots, uint32_t* in_reach);
    size_t leaves_in_reach(size_t branch, BallGap* out);
    void quantize(size_t group);
    void read_leaf(size_t leaf);
    size_t likely_best(const uint32_t* rows, const float* values, uint64_t places) const;
    double longest(const LeafNumbers& numbers, double missed) const;
    void code_sums(size_t leaf, const int8_t* codes, size_t stride, const uint8_t* places, size_t count,
                   size_t first_coordinate, size_t coordinates, float* sums) const;
    size_t pass_middle(size_t leaf, const LeafNumbers& numbers, uint8_t* places, size_t count,
                       const float* values, double slack, double* middles) const;
    void refine(size_t leaf, const LeafNumbers& numbers, const uint8_t* places, size_t count,
                const double* middles);
    void drain();

    const SearchContext& context_;
    const RowSet& bank_;
    const LeafIndex& index_;
    const KernelTable& table_;
    const float* original_;
    const RowFrame& frame_;
    const float* coordinates_;
    const float* head_;
    SearchWork& work_;
    TopK answers_;
    int64_t group_;
    double scale_;
    const double certain32_;  // share of a distance in float32 that the float64 one certainly reaches
    float ball_sq_ = 0.0f;
    double reach_ = 0.0;
    bool starting_ = false;  // within start()
    std::vector<Candidate> candidates_;
    std::vector<uint32_t> read_;  // leaves that start() has read
    // About the centre of group_at_.
    size_t group_at_ = std::numeric_limits<size_t>::max();
    Quantized quantized_{};
    double missed_ = 0.0, code_sq_ = 0.0, code_norm_ = 0.0;
    alignas(64) int8_t codes_[kScanDims];
};

}  // namespace inreach
