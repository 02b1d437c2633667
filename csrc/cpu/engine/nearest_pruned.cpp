// Exact search that proves instead of computing.
//
// For each query a first answer (a hint, its neighbour's answer, the nearest leaves) gives a reach: the best
// distance so far, brought into the basis' frame, with every error that either side may carry. Branches, then
// leaves whose ball lies beyond the reach are passed over. In a leaf, the first codes leave few rows, the
// middle codes fewer, the last codes very few, and these are decided in float64 on the original rows, the
// lowest bound first. A row is passed over only if its lower bound, less all rounding, exceeds the reach: so
// ties survive and the lowest row number wins them. docs/search.md proves the bounds.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

#include "dispatch.h"
#include "engine/best.h"
#include "engine/leaf_index.h"
#include "engine/mapped.h"
#include "engine/projected_rows.h"
#include "engine/rounding.h"
#include "engine/threads.h"
#include "inreach/nearest.h"

namespace inreach {

namespace {

constexpr size_t kQueries = 48;          // queries of a task, at most 64
constexpr size_t kFirstBranches = 4;     // branches whose leaves may be read first
constexpr size_t kFirstLeaves = 4;       // leaves with an answer read before the others are looked at
constexpr size_t kMostFirstLeaves = 32;  // with or without an answer
constexpr size_t kBoundLeaves = 12;      // leaves that nearest_bounds reads
constexpr size_t kDrainAt = 64;          // rows waiting for a decision
constexpr size_t kPilotTasks = 4;        // tasks after which bounds and brute force are compared

// What is read soon is on its way meanwhile: its start, from which the processor goes on by itself. To ask
// for more would wait for the lines that the present reading needs.
void fetch_ahead(const void* data, size_t bytes) {
    constexpr size_t kMost = 1024, kLine = 64;
    for (size_t i = 0; i < std::min(bytes, kMost); i += kLine)
        __builtin_prefetch(static_cast<const char*>(data) + i);
}

struct Candidate {
    float bound;  // lower bound on the distance, in the frame, less all errors
    uint32_t row;
};

// A leaf or a branch, and the distance to its ball.
struct Ball {
    float gap;
    uint32_t number;

    bool operator<(const Ball& other) const {
        return gap < other.gap || (gap == other.gap && number < other.number);
    }
};

// What several searches did, balls counted as well.
struct Work {
    SearchCounts counts;
    uint64_t balls = 0;
    uint64_t look_at = 16;  // decisions after which to look at what came into memory
};

// All that a search looks into, the same for every query.
struct Ground {
    const RowSet& queries;
    const ProjectedRows& projected;
    const RowSet& bank;
    const Basis& basis;
    const LeafIndex& index;
    const KernelTable& table;
    bool grouped;
};

class QuerySearch {
  public:
    QuerySearch(const Ground& ground, size_t query, const float* head, Work& work, Best best)
        : ground_(ground),
          bank_(ground.bank),
          index_(ground.index),
          table_(ground.table),
          original_(ground.queries.row(query)),
          frame_(ground.projected.frames[query]),
          coordinates_(ground.projected.coordinates.data() + query * ground.projected.rank),
          head_(head),
          work_(work),
          best_(best),
          group_(ground.grouped ? ground.queries.group[query] : 0),
          scale_(ground.basis.lipschitz() * ground.basis.scale()) {
        double sq = 0.0;
        for (size_t i = 0; i < kBallDepth; ++i) sq += static_cast<double>(head[i]) * head[i];
        // Lowered by what rounding can do to the dot products with the balls' centres.
        const double norms = static_cast<double>(frame_.norm) + index_.centre_norm() + frame_.error;
        ball_sq_ = round_down(sq - 2.0 * kRoundingSlack * norms * norms - kUnderflow);
        update_reach();
    }

    double reach() const { return reach_; }

    void offer(int64_t row) {
        if (!eligible(row)) return;
        decide(static_cast<uint32_t>(row));
        update_reach();
    }

    // First answers: the nearest leaves of the branches whose centres are nearest. dots: what dot_tile gave
    // for this query and the branches; block b of it at dots + b * stride. With groups the nearest leaves
    // hold the query's own rows, which say nothing: those are read as well, but do not count.
    void start(const float* dots, size_t stride) {
        const StoredArray<uint32_t>& unbounded = index_.unbounded();
        for (size_t i = 0; i < unbounded.size(); ++i) offer(unbounded[i]);
        Ball nearest[kFirstBranches];  // by distance from their centres
        size_t found = 0;
        for (size_t b = 0; b < index_.branches(); ++b) {
            const Ball one{-dot_of(dots, stride, b), static_cast<uint32_t>(b)};
            if (found == kFirstBranches && !(one < nearest[found - 1])) continue;
            size_t i = found < kFirstBranches ? found++ : found - 1;
            for (; i > 0 && one < nearest[i - 1]; --i) nearest[i] = nearest[i - 1];
            nearest[i] = one;
        }
        size_t productive = 0;
        for (size_t n = 0; n < found && productive < kFirstLeaves && read_.size() < kMostFirstLeaves; ++n) {
            const size_t b = nearest[n].number;
            if (n > 0 && branch_gap(dot_of(dots, stride, b), b) > reach_) continue;
            Ball leaves[kBlockRows];
            const size_t count = leaves_in_reach(b, leaves);
            std::sort(leaves, leaves + count);
            for (size_t i = 0; i < count && productive < kFirstLeaves && read_.size() < kMostFirstLeaves;
                 ++i) {
                if (leaves[i].gap > reach_) break;
                read_.push_back(leaves[i].number);
                read_leaf(leaves[i].number);
                if (candidates_.empty()) continue;
                drain();
                ++productive;
            }
        }
    }

    // Leaves that start() has read.
    const std::vector<uint32_t>& read() const { return read_; }

    bool reaches_branch(const float* dots, size_t stride, size_t branch) const {
        return branch_gap(dot_of(dots, stride, branch), branch) <= reach_;
    }

    // The leaves of a branch within reach, their bits set in `wanted`; dots of all its leaves into `dots`.
    void want_leaves(size_t branch, float* dots, uint64_t bit, uint64_t* wanted) {
        uint32_t in[kBlockRows];
        scan_balls(branch, dots);
        const size_t found = table_.collect_in_reach(dots, index_.leaf_radii(branch), kBlockRows, ball_sq_,
                                                     round_up(reach_ * (1.0 + 1e-6)), in);
        for (size_t i = 0; i < found; ++i) wanted[in[i]] |= bit;
        for (const uint32_t leaf : read_)
            if (leaf / kLeavesPerBranch == branch) wanted[leaf % kLeavesPerBranch] &= ~bit;
    }

    void visit(size_t leaf, float centre_dot) {
        if (leaf_gap(centre_dot, leaf) > reach_) return;
        read_leaf(leaf);
        if (candidates_.size() >= kDrainAt) drain();
    }

    void finish() { drain(); }

    // Reads the few nearest leaves of all and returns a bound: no row that was not decided is nearer than
    // that, in the frame.
    double read_nearest(const float* dots, size_t stride, std::vector<Ball>& heap) {
        const auto later = [](const Ball& a, const Ball& b) { return b < a; };
        const auto push = [&](const Ball& ball) {
            heap.push_back(ball);
            std::push_heap(heap.begin(), heap.end(), later);
        };
        heap.clear();
        const auto leaves = static_cast<uint32_t>(index_.leaves());
        for (size_t b = 0; b < index_.branches(); ++b) {  // numbered after the leaves
            const float gap = round_down(branch_gap(dot_of(dots, stride, b), b));
            if (gap <= reach_) push({gap, leaves + static_cast<uint32_t>(b)});
        }
        size_t left = kBoundLeaves;
        while (!heap.empty()) {
            const Ball ball = heap.front();
            if (ball.gap > reach_ || (left == 0 && ball.number < leaves)) break;
            std::pop_heap(heap.begin(), heap.end(), later);
            heap.pop_back();
            if (ball.number < leaves) {
                --left;
                if (std::find(read_.begin(), read_.end(), ball.number) != read_.end()) continue;
                read_leaf(ball.number);
                drain();
                continue;
            }
            Ball found[kBlockRows];
            const size_t count = leaves_in_reach(ball.number - leaves, found);
            for (size_t i = 0; i < count; ++i) push(found[i]);
        }
        return heap.empty() ? reach_ : std::min(reach_, static_cast<double>(heap.front().gap));
    }

    // The float32 at or below the squared distance of every row, where those not decided lie at least `bound`
    // away in the frame.
    float sq_lower(double bound) const {
        if (bound >= reach_) return static_cast<float>(best_.limit());  // what was found is the nearest
        const double distance = std::max(0.0, bound - frame_.error) / scale_ * (1.0 - 4.0 * kDecisionSlack);
        return std::min(round_down(distance * distance), static_cast<float>(best_.limit()));
    }

  private:
    // Relative rounding of a dot product over head and tail in float32, its start value and the squared
    // norms.
    static constexpr double kRoundingSlack = 64 * kUnit32;

    static float dot_of(const float* dots, size_t stride, size_t ball) {
        return dots[ball / kBlockRows * stride + ball % kBlockRows];
    }

    // Lower bound on the distance to every row of a ball, from the dot product with its centre.
    double gap(float centre_dot, float radius) const {
        const double sq = static_cast<double>(ball_sq_) - 2.0 * static_cast<double>(centre_dot);
        return std::sqrt(std::max(0.0, sq)) * (1.0 - 1e-9) - static_cast<double>(radius);
    }
    double branch_gap(float centre_dot, size_t branch) const {
        return gap(centre_dot, index_.branch_radii(branch / kBlockRows)[branch % kBlockRows]);
    }
    double leaf_gap(float centre_dot, size_t leaf) const {
        return gap(centre_dot, index_.leaf_radii(leaf / kLeavesPerBranch)[leaf % kLeavesPerBranch]);
    }

    void scan_balls(size_t branch, float* dots) {
        table_.scan_block(index_.leaf_centres(branch), kBallDepth, head_, 0.0f, index_.leaf_starts(branch),
                          dots);
        work_.balls += kBlockRows;
    }

    size_t leaves_in_reach(size_t branch, Ball* out) {
        float dots[kBlockRows];
        uint32_t in[kBlockRows];
        scan_balls(branch, dots);
        const size_t found = table_.collect_in_reach(dots, index_.leaf_radii(branch), kBlockRows, ball_sq_,
                                                     round_up(reach_ * (1.0 + 1e-6)), in);
        size_t count = 0;
        for (size_t i = 0; i < found; ++i) {
            const size_t leaf = branch * kLeavesPerBranch + in[i];
            if (leaf < index_.leaves())
                out[count++] = {round_down(leaf_gap(dots[in[i]], leaf)), static_cast<uint32_t>(leaf)};
        }
        return count;
    }

    bool eligible(int64_t row) const { return !ground_.grouped || bank_.group[row] != group_; }

    // The largest distance in the frame at which a row can still matter.
    void update_reach() {
        const double limit = best_.limit();
        reach_ = std::isinf(limit) ? 1e18 : scale_ * std::sqrt(limit) * (1.0 + kDecisionSlack) + frame_.error;
        reach_ = std::min(reach_, 1e18);
    }

    void decide(uint32_t row) {
        best_.offer({table_.sq_distance(original_, bank_.row(row), bank_.dim), static_cast<int64_t>(row)});
        if (++work_.counts.decided >= work_.look_at)
            work_.look_at = work_.counts.decided + limit_resident(ground_.bank);
    }

    // The query in codes about the centre of a group of leaves.
    void quantize(size_t group) {
        if (group == group_at_) return;
        group_at_ = group;
        quantized_ = table_.quantize(coordinates_, index_.group_centre(group), codes_);
        const double length =
            static_cast<double>(quantized_.step) * std::sqrt(static_cast<double>(quantized_.sq_sum));
        const double missed =
            std::sqrt(static_cast<double>(quantized_.sq_error) * (1.0 + 256 * kUnit32) + kUnderflow);
        missed_ = missed + 4.0 * kUnit32 * (length + missed);
        const double tail = frame_.scan_tail;
        code_sq_ = length * length + tail * tail;
        code_norm_ = std::sqrt(code_sq_);
    }

    void read_leaf(size_t leaf) {
        const LeafNumbers& numbers = index_.numbers(leaf);
        quantize(leaf / kLeavesPerGroup);
        const double norms = (code_norm_ + numbers.norm) * (1.0 + 1e-9);
        const double slack = kRoundingSlack * norms * norms + kUnderflow;
        const double far = reach_ + numbers.error + numbers.residue + missed_;
        const double threshold = 0.5 * (code_sq_ - far * far) - slack;
        float values[kBlockRows];
        uint64_t survivors = table_.scan_codes(index_.first_codes(leaf), codes_, quantized_.sum,
                                               quantized_.step * index_.group_step(leaf / kLeavesPerGroup),
                                               frame_.scan_tail, index_.first_tails(leaf),
                                               index_.first_halves(leaf), round_down(threshold), values);
        work_.counts.bounded += kBlockRows;
        if (survivors == 0) return;
        const uint32_t* const rows = index_.rows(leaf);
        uint8_t places[kBlockRows];
        size_t count = 0;
        for (; survivors; survivors &= survivors - 1) {
            const auto j = static_cast<size_t>(__builtin_ctzll(survivors));
            // What the next stage reads is on its way meanwhile.
            __builtin_prefetch(index_.middle_codes(leaf * kBlockRows + j));
            __builtin_prefetch(&index_.rest(leaf * kBlockRows + j));
            places[count] = static_cast<uint8_t>(j);
            count += rows[j] != kNoRow && eligible(rows[j]);
        }
        work_.counts.refined += count;
        double middles[kBlockRows];
        count = pass_middle(leaf, places, count, values, slack, middles);
        if (count != 0) refine(leaf, places, count, middles);
    }

    // Sums of squares over coded coordinates: `lowered`, not more than the true ones but for what kCoded
    // allows.
    void coded(size_t leaf, const int8_t* codes, size_t stride, const uint8_t* places, size_t count,
               size_t first_coordinate, size_t coordinates, float* sums) const {
        table_.code_distances(codes, stride, places, count, coordinates_ + first_coordinate,
                              index_.code_centre(leaf) + first_coordinate,
                              index_.code_steps(leaf) + first_coordinate / kCodeGroup,
                              coordinates / kCodeGroup, sums);
    }
    static double lowered(double sum) { return std::max(0.0, sum * (1.0 - kRoundingSlack) - kUnderflow); }

    // Bounds from sums of squares. Each difference is off by 2u (|row - centre| + |step * code|); row -
    // centre is at most the difference and the code together, so that a length is off by `kCoded` times
    // itself and the length of the leaf's longest code. A row can matter while its length is at most
    // longest().
    static constexpr double kCoded = 4.1 * kUnit32;
    double longest(const LeafNumbers& numbers, double missed) const {
        return (reach_ + numbers.error + missed + kCoded * numbers.codes) * (1.0 + 2.0 * kCoded);
    }

    // Of `places` in a leaf those that may be within reach by first and middle codes, in their order, and the
    // sums of squares over their middle codes.
    size_t pass_middle(size_t leaf, uint8_t* places, size_t count, const float* values, double slack,
                       double* middles) const {
        if (index_.middle_width() == 0) {
            for (size_t i = 0; i < count; ++i) middles[i] = 0.0;
            return count;
        }
        const size_t first_place = leaf * kBlockRows;
        float sums[kBlockRows];
        coded(leaf, index_.middle_codes(first_place), index_.middle_width(), places, count, kScanDims,
              index_.middle_width(), sums);
        const float* const tails = index_.first_tails(leaf);
        const double first_sq = code_sq_ - 2.0 * slack, most = longest(index_.numbers(leaf), missed_);
        size_t left = 0;
        for (size_t i = 0; i < count; ++i) {
            const size_t j = places[i];
            const RowRest& rest = index_.rest(first_place + j);
            const double tail = static_cast<double>(tails[j]) - frame_.scan_tail;
            const double first = std::max(0.0, first_sq - 2.0 * static_cast<double>(values[j]) - tail * tail);
            const double beyond = static_cast<double>(rest.middle_tail) - frame_.middle_tail;
            const double middle = lowered(static_cast<double>(sums[i]));
            const double limit = most + static_cast<double>(rest.middle_residue) * (1.0 + 2.0 * kCoded);
            // Without a branch: which rows pass is past guessing.
            places[left] = static_cast<uint8_t>(j);
            middles[left] = middle;
            left += first + middle + beyond * beyond <= limit * limit;
        }
        return left;
    }

    void refine(size_t leaf, const uint8_t* places, size_t count, const double* middles) {
        const size_t first_place = leaf * kBlockRows, width = index_.last_width();
        const int8_t* const codes = index_.last_codes(first_place);
        for (size_t i = 0; i < count; ++i) fetch_ahead(codes + places[i] * width, width);
        float first[kBlockRows], others[kBlockRows] = {};
        coded(leaf, codes, width, places, count, 0, kScanDims, first);
        if (width > kScanDims)
            coded(leaf, codes + kScanDims, width, places, count, kScanDims + index_.middle_width(),
                  width - kScanDims, others);
        const LeafNumbers& numbers = index_.numbers(leaf);
        const double most = longest(numbers, 0.0);
        for (size_t i = 0; i < count; ++i) {
            const RowRest& rest = index_.rest(first_place + places[i]);
            const double tail = static_cast<double>(rest.last_tail) - frame_.full_tail;
            const double sq = lowered(static_cast<double>(first[i])) +
                              lowered(static_cast<double>(others[i])) + middles[i] + tail * tail;
            const double limit = most + static_cast<double>(rest.last_residue) * (1.0 + 2.0 * kCoded);
            if (sq > limit * limit) continue;
            const double length = std::sqrt(sq);
            const double bound = length - kCoded * (length + numbers.codes) - rest.last_residue;
            candidates_.push_back(
                {round_down(bound * (1.0 - 1e-9) - numbers.error), index_.rows(leaf)[places[i]]});
        }
    }

    void drain() {
        std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
            return a.bound < b.bound || (a.bound == b.bound && a.row < b.row);
        });
        for (size_t i = 0; i < candidates_.size() && candidates_[i].bound <= reach_; ++i) {
            if (i + 1 < candidates_.size() && candidates_[i + 1].bound <= reach_)
                fetch_ahead(bank_.row(candidates_[i + 1].row), bank_.dim * sizeof(float));
            decide(candidates_[i].row);
            update_reach();
        }
        candidates_.clear();
    }

    const Ground& ground_;
    const RowSet& bank_;
    const LeafIndex& index_;
    const KernelTable& table_;
    const float* original_;
    const RowFrame& frame_;
    const float* coordinates_;
    const float* head_;
    Work& work_;
    Best best_;
    int64_t group_;
    double scale_;
    float ball_sq_ = 0.0f;
    double reach_ = 0.0;
    std::vector<Candidate> candidates_;
    std::vector<uint32_t> read_;
    // About the centre of group_at_.
    size_t group_at_ = std::numeric_limits<size_t>::max();
    Quantized quantized_{};
    double missed_ = 0.0, code_sq_ = 0.0, code_norm_ = 0.0;
    alignas(64) int8_t codes_[kScanDims];
};

// Coordinates of a query among the balls.
void head_of(const Ground& ground, size_t query, float* out) {
    std::copy_n(ground.projected.coordinates.data() + query * ground.projected.rank, kBallDims, out);
    out[kBallDims] = ground.projected.frames[query].ball_tail;
}

// Dot products of some heads with the branches of a block: branch b with head i at out[i * kBlockRows + b].
void branch_dots(const Ground& ground, size_t block, const float* heads, size_t count, float* out) {
    for (size_t i = 0; i < count; i += kTileRows)
        ground.table.dot_tile(ground.index.branch_centres(block), kBallDepth, heads + i * kBallDepth,
                              kBallDepth, std::min<size_t>(kTileRows, count - i), kBlockRows,
                              ground.index.branch_starts(block), false, out + i * kBlockRows);
}

void decide_all(const Ground& ground, size_t query, Best best, SearchCounts& counts) {
    for (size_t j = 0; j < ground.bank.count; ++j) {
        if (ground.grouped && ground.bank.group[j] == ground.queries.group[query]) continue;
        best.offer({ground.table.sq_distance(ground.queries.row(query), ground.bank.row(j), ground.bank.dim),
                    static_cast<int64_t>(j)});
        ++counts.decided;
    }
}

// Some queries, at most kQueries, searched together. What it computes of them, their answers among it, is in
// the order in which they are given.
class Task {
  public:
    Task(const Ground& ground, size_t k, const int64_t* hint, const uint32_t* queries, size_t count)
        : ground_(ground),
          k_(k),
          queries_(queries),
          count_(count),
          stride_(kQueries * kBlockRows),
          heads_(kQueries * kBallDepth),
          dots_(ground.index.branch_blocks() * stride_),
          answers_(count_ * k) {
        searches_.reserve(count_);
        for (size_t i = 0; i < count_; ++i) head_of(ground, queries[i], heads_.data() + i * kBallDepth);
        for (size_t b = 0; b < ground.index.branch_blocks(); ++b)
            branch_dots(ground, b, heads_.data(), count_, dots_.data() + b * stride_);
        work_.balls += count_ * ground.index.branches();
        int64_t previous = -1;
        for (size_t i = 0; i < count_; ++i) {
            const size_t query = queries[i];
            searches_.emplace_back(ground, query, heads_.data() + i * kBallDepth, work_, best(i));
            if (!ground.projected.frames[query].usable) {
                decide_all(ground, query, best(i), work_.counts);
                continue;
            }
            QuerySearch& one = searches_.back();
            if (k == 1) {  // offering a row twice would fill two of several places
                if (hint != nullptr && hint[query] >= 0) one.offer(hint[query]);
                if (previous >= 0) one.offer(previous);
            }
            one.start(dots(i), stride_);
            const int64_t found = answers_[i * k].row;
            if (found != std::numeric_limits<int64_t>::max()) previous = found;
        }
    }

    // Neighbouring queries reach much the same leaves: leaf by leaf, each is read from memory once for all.
    void search() {
        AlignedArray<float> leaf_dots(kQueries * kBlockRows);
        for (size_t branch = 0; branch < ground_.index.branches(); ++branch) {
            uint64_t wanted[kLeavesPerBranch] = {};
            for (size_t i = 0; i < count_; ++i)
                if (usable(i) && searches_[i].reaches_branch(dots(i), stride_, branch))
                    searches_[i].want_leaves(branch, leaf_dots.data() + i * kBlockRows, uint64_t{1} << i,
                                             wanted);
            const size_t first = branch * kLeavesPerBranch;
            const size_t leaves = std::min(kLeavesPerBranch, ground_.index.leaves() - first);
            for (size_t l = 0, next = 0; l < leaves; l = next) {
                for (next = l + 1; next < leaves && wanted[next] == 0;) ++next;
                if (wanted[l] != 0 && next < leaves)
                    fetch_ahead(ground_.index.first_codes(first + next), kScanDims * kBlockRows);
                for (uint64_t left = wanted[l]; left; left &= left - 1) {
                    const auto i = static_cast<size_t>(__builtin_ctzll(left));
                    searches_[i].visit(first + l, leaf_dots[i * kBlockRows + l]);
                }
            }
        }
        for (QuerySearch& one : searches_) one.finish();
    }

    // Lower bounds on the squared distance of every row, for k = 1.
    void bound(float* out_sq_lower) {
        std::vector<Ball> heap;
        for (size_t i = 0; i < count_; ++i)
            out_sq_lower[queries_[i]] =
                usable(i) ? searches_[i].sq_lower(searches_[i].read_nearest(dots(i), stride_, heap))
                          : static_cast<float>(answers_[i].sq_distance);
    }

    // Each to the place of its query.
    void write(int64_t* index, float* sq_distance) {
        for (size_t i = 0; i < count_; ++i)
            best(i).write(index + queries_[i] * k_, sq_distance + queries_[i] * k_);
    }

    const Work& work() const { return work_; }

  private:
    Best best(size_t i) { return Best(answers_.data() + i * k_, k_); }
    const float* dots(size_t i) const { return dots_.data() + i * kBlockRows; }
    bool usable(size_t i) const { return ground_.projected.frames[queries_[i]].usable; }

    const Ground& ground_;
    size_t k_;
    const uint32_t* queries_;
    size_t count_, stride_;
    AlignedArray<float> heads_, dots_;
    std::vector<Answer> answers_;
    std::vector<QuerySearch> searches_;
    Work work_;
};

// The queries in the order of the leaves whose centres are nearest to them: those searched together then want
// much the same leaves and much the same rows, which are read from memory once for all of them.
std::vector<uint32_t> along_the_tree(const Ground& ground) {
    const size_t count = ground.queries.count;
    std::vector<uint64_t> keys(count);  // nearest leaf, query
    parallel_for((count + kQueries - 1) / kQueries, [&](size_t number, int) {
        const size_t first = number * kQueries, some = std::min(kQueries, count - first);
        float heads[kQueries * kBallDepth];
        AlignedArray<float> dots(kQueries * kBlockRows);
        Ball nearest[kQueries];
        for (size_t i = 0; i < some; ++i) {
            head_of(ground, first + i, heads + i * kBallDepth);
            nearest[i] = {std::numeric_limits<float>::infinity(), 0};
        }
        for (size_t block = 0; block < ground.index.branch_blocks(); ++block) {
            branch_dots(ground, block, heads, some, dots.data());
            const size_t here = std::min<size_t>(kBlockRows, ground.index.branches() - block * kBlockRows);
            for (size_t i = 0; i < some; ++i)
                for (size_t b = 0; b < here; ++b) {
                    const Ball one{-dots[i * kBlockRows + b], static_cast<uint32_t>(block * kBlockRows + b)};
                    if (one < nearest[i]) nearest[i] = one;
                }
        }
        for (size_t i = 0; i < some; ++i) {
            const size_t branch = nearest[i].number;
            ground.table.scan_block(ground.index.leaf_centres(branch), kBallDepth, heads + i * kBallDepth,
                                    0.0f, ground.index.leaf_starts(branch), dots.data());
            const auto leaf =
                static_cast<size_t>(std::max_element(dots.data(), dots.data() + kBlockRows) - dots.data());
            keys[first + i] = static_cast<uint64_t>(branch * kLeavesPerBranch + leaf) << 32 | (first + i);
        }
    });
    std::sort(keys.begin(), keys.end());
    std::vector<uint32_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>(keys[i]);
    return order;
}

// Costs in multiply-adds of the tile kernel, measured once and rounded: only their order of size matters.
double pruned_cost(const Work& work, size_t dim) {
    return static_cast<double>(work.balls) * 40.0 + static_cast<double>(work.counts.bounded) * 32.0 +
           static_cast<double>(work.counts.refined) * 600.0 +
           static_cast<double>(work.counts.decided) * 4.0 * static_cast<double>(dim);
}

void check(const RowSet& bank, const Basis& basis, const LeafIndex& index) {
    if (index.rows_indexed() != bank.count || index.rank() != basis.rank())
        throw std::invalid_argument("nearest_pruned: the index belongs to another bank or basis");
}

}  // namespace

SearchCounts nearest_pruned(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, size_t k, const int64_t* hint,
                            int64_t* out_index, float* out_sq_distance) {
    check(bank, basis, index);
    const Ground ground{
        queries, projected, bank, basis, index, kernels(), queries.group != nullptr && bank.group != nullptr};
    const size_t tasks = (queries.count + kQueries - 1) / kQueries;
    const std::vector<uint32_t> sorted = along_the_tree(ground);
    std::vector<Work> works(tasks);

    const auto search = [&](size_t number, int) {
        const size_t first = number * kQueries;
        Task task(ground, k, hint, sorted.data() + first, std::min(kQueries, queries.count - first));
        task.search();
        task.write(out_index, out_sq_distance);
        works[number] = task.work();
        limit_resident(bank);
    };

    // A few tasks from all over the set tell whether bounds pay here; their answers stand either way.
    const size_t pilots = std::min(kPilotTasks, tasks);
    std::vector<size_t> first_ones;
    for (size_t i = 0; i < pilots; ++i) first_ones.push_back(i * tasks / pilots);
    std::vector<char> is_pilot(tasks, 0);
    for (const size_t task : first_ones) is_pilot[task] = 1;
    parallel_for(pilots, [&](size_t i, int worker) { search(first_ones[i], worker); });
    const auto sum = [&] {
        Work total;
        for (const Work& work : works) {
            total.balls += work.balls;
            total.counts.bounded += work.counts.bounded;
            total.counts.refined += work.counts.refined;
            total.counts.decided += work.counts.decided;
        }
        return total;
    };
    size_t pilot_queries = 0;
    for (const size_t task : first_ones) pilot_queries += std::min(kQueries, queries.count - task * kQueries);
    const double brute_cost =
        static_cast<double>(pilot_queries) * static_cast<double>(bank.count) * static_cast<double>(bank.dim);
    SearchCounts total;
    if (pilots < tasks) {
        std::vector<size_t> rest;
        for (size_t task = 0; task < tasks; ++task)
            if (!is_pilot[task]) rest.push_back(task);
        if (pruned_cost(sum(), bank.dim) < 0.8 * brute_cost) {
            parallel_for(rest.size(), [&](size_t i, int worker) { search(rest[i], worker); });
        } else {
            // All queries anew in one call: skipping the pilots' few would cost more in bookkeeping.
            total = nearest_brute(queries, bank, k, out_index, out_sq_distance);
        }
    }
    const SearchCounts seen = sum().counts;
    total.bounded += seen.bounded;
    total.refined += seen.refined;
    total.decided += seen.decided;
    total.pairs = static_cast<uint64_t>(queries.count) * bank.count;
    return total;
}

SearchCounts nearest_bounds(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, const int64_t* hint,
                            int64_t* out_index, float* out_sq_upper, float* out_sq_lower) {
    check(bank, basis, index);
    const Ground ground{
        queries, projected, bank, basis, index, kernels(), queries.group != nullptr && bank.group != nullptr};
    const size_t tasks = (queries.count + kQueries - 1) / kQueries;
    const std::vector<uint32_t> sorted = along_the_tree(ground);
    std::vector<SearchCounts> counts(tasks);
    parallel_for(tasks, [&](size_t number, int) {
        const size_t first = number * kQueries;
        Task task(ground, 1, hint, sorted.data() + first, std::min(kQueries, queries.count - first));
        task.bound(out_sq_lower);
        task.write(out_index, out_sq_upper);
        counts[number] = task.work().counts;
        limit_resident(bank);
    });
    SearchCounts total;
    for (const SearchCounts& one : counts) {
        total.bounded += one.bounded;
        total.refined += one.refined;
        total.decided += one.decided;
    }
    total.pairs = static_cast<uint64_t>(queries.count) * bank.count;
    return total;
}

}  // namespace inreach
