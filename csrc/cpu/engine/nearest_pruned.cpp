// Exact search that proves instead of computing.
//
// For each query: the leaf whose centre is nearest gives a first answer, and with it a reach (the best
// distance so far, brought into the basis' frame, with every error that either side may carry). Leaves whose
// ball lies beyond the reach are passed over; of those left the most promising are read first, since a
// smaller reach passes over more. In a leaf, the head's bound leaves few rows, the codes' bound far fewer,
// and these are decided in float64 on the original rows, the lowest bound first. A row is passed over only if
// its lower bound, less all rounding, exceeds the reach: so ties survive and the lowest row number wins them.
// docs/search.md proves the bounds.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

#include "dispatch.h"
#include "engine/best.h"
#include "engine/leaf_index.h"
#include "engine/projected_rows.h"
#include "engine/rounding.h"
#include "engine/threads.h"
#include "inreach/nearest.h"

namespace inreach {

namespace {

constexpr size_t kQueries = 48;          // queries of a task, at most 64
constexpr size_t kFirstLeaves = 4;       // leaves with an answer read before the others are tested again
constexpr size_t kMostFirstLeaves = 32;  // with or without an answer
constexpr size_t kDrainAt = 96;          // rows waiting for a decision
constexpr size_t kPilotTasks = 4;        // tasks after which bounds and brute force are compared

struct Candidate {
    float bound;  // lower bound on the distance, in the frame, less all errors
    uint32_t row;
};

struct ReachableLeaf {
    double gap;  // distance to the ball
    uint32_t leaf;
};

struct Scratch {
    std::vector<float> dots;   // centre blocks x kQueries x 64
    std::vector<float> heads;  // kQueries x depth
    std::vector<Answer> answers;
    SearchCounts counts;
};

class QuerySearch {
  public:
    QuerySearch(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank, const Basis& basis,
                const LeafIndex& index, const KernelTable& table, size_t query, const float* head,
                SearchCounts& counts, Best best)
        : bank_(bank),
          basis_(basis),
          index_(index),
          table_(table),
          original_(queries.row(query)),
          frame_(projected.frames[query]),
          coordinates_(projected.coordinates.data() + query * projected.rank),
          head_(head),
          counts_(counts),
          best_(best),
          grouped_(queries.group != nullptr && bank.group != nullptr),
          group_(grouped_ ? queries.group[query] : 0) {
        double sq = static_cast<double>(frame_.head_tail) * frame_.head_tail;
        for (size_t i = 0; i < basis.head(); ++i)
            sq += static_cast<double>(coordinates_[i]) * coordinates_[i];
        head_sq_ = sq;
        // For the leaves' balls: lowered by what rounding can do to the dot products with their centres.
        const double norms = static_cast<double>(frame_.norm) + index.centre_norm() + frame_.error;
        ball_sq_ = round_down(head_sq_ - 2.0 * kRoundingSlack * norms * norms - kUnderflow);
        code_row_.resize(std::max<size_t>(1, basis.groups() * kCodeGroup));
        for (size_t g = 0; g < basis.groups(); ++g)
            for (size_t i = 0; i < kCodeGroup; ++i) {
                const size_t at = g * kCodeGroup + i;
                code_row_[at] = coordinates_[basis.head() + at] / basis.step()[g];
            }
        update_reach();
    }

    void offer(int64_t row) {
        if (!eligible(row)) return;
        decide(static_cast<uint32_t>(row));
        update_reach();
    }

    // First answers: the leaf whose centre is nearest, then the few nearest balls. Returns in `reachable` the
    // leaves that remain. dots: what dot_tile gave for this query; block b of it at dots + b * block_stride.
    void start(const float* dots, size_t block_stride, std::vector<ReachableLeaf>& reachable) {
        reachable.clear();
        const size_t blocks = (index_.leaves() + kBlockRows - 1) / kBlockRows;
        for (size_t i = 0; i < index_.unbounded().size(); ++i) offer(index_.unbounded()[i]);
        if (index_.leaves() == 0) return;
        size_t nearest_leaf = 0;
        float largest = -std::numeric_limits<float>::infinity();
        for (size_t b = 0; b < blocks; ++b) {
            const float* d = dots + b * block_stride;
            for (size_t j = 0; j < kBlockRows; ++j)
                if (d[j] > largest) largest = d[j], nearest_leaf = b * kBlockRows + j;
        }
        nearest_leaf = std::min(nearest_leaf, index_.leaves() - 1);
        read_leaf(nearest_leaf);
        drain();

        for (size_t b = 0; b < blocks; ++b) {
            uint32_t in[kBlockRows];
            const float* d = dots + b * block_stride;
            const size_t found =
                table_.collect_in_reach(d, index_.radii(b), kBlockRows, ball_sq_, reach_up(), in);
            for (size_t i = 0; i < found; ++i) {
                const size_t leaf = b * kBlockRows + in[i];
                if (leaf == nearest_leaf || leaf >= index_.leaves()) continue;
                reachable.push_back({gap(leaf, d[in[i]]), static_cast<uint32_t>(leaf)});
            }
        }
        // The nearest balls first, each answer drawing the reach in. With groups the nearest hold the query's
        // own rows, which say nothing: those are read as well, but do not count.
        const size_t sorted = std::min(kMostFirstLeaves, reachable.size());
        std::partial_sort(reachable.begin(), reachable.begin() + static_cast<std::ptrdiff_t>(sorted),
                          reachable.end(), [](const ReachableLeaf& a, const ReachableLeaf& b) {
                              return a.gap < b.gap || (a.gap == b.gap && a.leaf < b.leaf);
                          });
        size_t read = 0;
        for (size_t productive = 0; read < sorted && productive < kFirstLeaves; ++read) {
            if (reachable[read].gap > reach_) break;
            read_leaf(reachable[read].leaf);
            if (candidates_.empty()) continue;
            drain();
            ++productive;
        }
        reachable.erase(reachable.begin(), reachable.begin() + static_cast<std::ptrdiff_t>(read));
    }

    double reach() const { return reach_; }

    void visit(size_t leaf, float centre_dot) {
        if (gap(leaf, centre_dot) > reach_) return;
        read_leaf(leaf);
        if (candidates_.size() >= kDrainAt) drain();
    }

    void finish() { drain(); }

  private:
    // Relative rounding of a dot product over head and tail in float32, its start value and the squared
    // norms.
    static constexpr double kRoundingSlack = 64 * kUnit32;

    // Lower bound on the distance to every row of a leaf, from the dot product with its centre.
    double gap(size_t leaf, float centre_dot) const {
        const double sq = static_cast<double>(ball_sq_) - 2.0 * static_cast<double>(centre_dot);
        return std::sqrt(std::max(0.0, sq)) * (1.0 - 1e-9) -
               static_cast<double>(index_.radii(leaf / kBlockRows)[leaf % kBlockRows]);
    }

    bool eligible(int64_t row) const { return !grouped_ || bank_.group[row] != group_; }

    // The largest distance in the frame at which a row can still matter.
    void update_reach() {
        const double limit = best_.limit();
        reach_ = std::isinf(limit)
                     ? 1e18
                     : basis_.lipschitz() * std::sqrt(limit) * basis_.scale() * (1.0 + kDecisionSlack) +
                           frame_.error;
        reach_ = std::min(reach_, 1e18);
    }

    float reach_up() const { return round_up(reach_ * (1.0 + 1e-6)); }

    void decide(uint32_t row) {
        best_.offer({table_.sq_distance(original_, bank_.row(row), bank_.dim), static_cast<int64_t>(row)});
        ++counts_.decided;
    }

    void read_leaf(size_t leaf) {
        const double norms =
            static_cast<double>(frame_.norm) + index_.norm(leaf) + frame_.error + index_.error(leaf);
        const double slack = kRoundingSlack * norms * norms + kUnderflow;
        const double reach = reach_ + index_.error(leaf);
        const double threshold = 0.5 * (head_sq_ - reach * reach) - slack;
        float dots[kBlockRows];
        uint64_t survivors = table_.scan_block(index_.block(leaf), index_.depth(), head_,
                                               round_down(threshold), index_.start(leaf), dots);
        counts_.bounded += kBlockRows;
        for (uint64_t ahead = survivors; ahead; ahead &= ahead - 1) {
            const uint32_t row = index_.rows(leaf)[__builtin_ctzll(ahead)];
            if (row != LeafIndex::kNoRow) index_.prefetch(row);
        }
        for (; survivors; survivors &= survivors - 1) {
            const int j = __builtin_ctzll(survivors);
            const uint32_t row = index_.rows(leaf)[j];
            if (row == LeafIndex::kNoRow || !eligible(row)) continue;
            refine(row, dots[j], slack, reach, index_.error(leaf));
        }
    }

    void refine(uint32_t row, float dot, double slack, double reach, float error) {
        const LeafIndex::CodeRecord code = index_.code(row);
        const double head_tail = static_cast<double>(code.head_tail) - frame_.head_tail;
        const double full_tail = static_cast<double>(code.full_tail) - frame_.full_tail;
        const double head =
            std::max(0.0, head_sq_ - 2.0 * static_cast<double>(dot) - head_tail * head_tail - 2.0 * slack);
        const double coded = static_cast<double>(table_.code_distance(code.codes, code_row_.data(),
                                                                      basis_.step_sq(), basis_.groups())) *
                                 (1.0 - kRoundingSlack) -
                             kUnderflow;
        ++counts_.refined;
        // The codes see all but `residue` of the row: the bound they give may be short by that much.
        const double bound = std::sqrt(head + std::max(0.0, coded) + full_tail * full_tail) - code.residue;
        // Either bound alone is right; with few coordinates the head's can be the tighter one.
        const double head_bound = std::sqrt(head + head_tail * head_tail);
        const double tightest = std::max(bound, head_bound);
        if (tightest * (1.0 - 1e-9) > reach) return;
        candidates_.push_back({round_down(tightest * (1.0 - 1e-9) - error), row});
    }

    void drain() {
        std::vector<Candidate>& waiting = candidates_;
        std::sort(waiting.begin(), waiting.end(), [](const Candidate& a, const Candidate& b) {
            return a.bound < b.bound || (a.bound == b.bound && a.row < b.row);
        });
        for (const Candidate& candidate : waiting) {
            if (candidate.bound > reach_) break;
            decide(candidate.row);
            update_reach();
        }
        waiting.clear();
    }

    const RowSet& bank_;
    const Basis& basis_;
    const LeafIndex& index_;
    const KernelTable& table_;
    const float* original_;
    const RowFrame& frame_;
    const float* coordinates_;
    const float* head_;
    SearchCounts& counts_;
    Best best_;
    std::vector<Candidate> candidates_;
    std::vector<float> code_row_;
    bool grouped_;
    int64_t group_;
    double head_sq_ = 0.0;
    float ball_sq_ = 0.0f;
    double reach_ = 0.0;
};

void decide_all(const RowSet& queries, const RowSet& bank, const KernelTable& table, size_t query, Best& best,
                SearchCounts& counts) {
    const bool grouped = queries.group != nullptr && bank.group != nullptr;
    for (size_t j = 0; j < bank.count; ++j) {
        if (grouped && bank.group[j] == queries.group[query]) continue;
        best.offer({table.sq_distance(queries.row(query), bank.row(j), bank.dim), static_cast<int64_t>(j)});
        ++counts.decided;
    }
}

// Costs in multiply-adds of the tile kernel, measured once and rounded: only their order of size matters.
double pruned_cost(const SearchCounts& counts, size_t queries, const LeafIndex& index, size_t dim) {
    const double depth = static_cast<double>(index.depth());
    return static_cast<double>(queries) * static_cast<double>(index.leaves()) * (depth + 4) +
           static_cast<double>(counts.bounded) * (depth + 16) + static_cast<double>(counts.refined) * 600.0 +
           static_cast<double>(counts.decided) * 4.0 * static_cast<double>(dim);
}

}  // namespace

SearchCounts nearest_pruned(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, size_t k, const int64_t* hint,
                            int64_t* out_index, float* out_sq_distance) {
    if (index.rows_indexed() != bank.count || index.depth() != basis.head() + 1 ||
        index.groups() != basis.groups())
        throw std::invalid_argument("nearest_pruned: the index belongs to another bank or basis");
    const KernelTable& table = kernels();
    const size_t blocks = (index.leaves() + kBlockRows - 1) / kBlockRows;
    const size_t depth = index.depth();
    const size_t tasks = (queries.count + kQueries - 1) / kQueries;
    std::vector<SearchCounts> counts(tasks);

    const auto search = [&](size_t task, int) {
        const size_t first = task * kQueries;
        const size_t count = std::min(kQueries, queries.count - first);
        Scratch scratch;
        scratch.dots.resize(blocks * kQueries * kBlockRows);
        scratch.heads.resize(kQueries * depth);
        for (size_t i = 0; i < count; ++i) {
            const float* z = projected.coordinates.data() + (first + i) * projected.rank;
            std::copy(z, z + basis.head(), scratch.heads.data() + i * depth);
            scratch.heads[i * depth + basis.head()] = projected.frames[first + i].head_tail;
        }
        for (size_t b = 0; b < blocks; ++b)
            for (size_t i = 0; i < count; i += kTileRows)
                table.dot_tile(index.centres(b), depth, scratch.heads.data() + i * depth, depth,
                               std::min<size_t>(kTileRows, count - i), index.centre_starts(b), false,
                               scratch.dots.data() + (b * kQueries + i) * kBlockRows);
        scratch.answers.assign(count * k, Answer());
        std::vector<QuerySearch> searches;
        searches.reserve(count);
        std::vector<uint64_t> wanted_by(index.leaves(), 0);  // a bit for each query of the task
        std::vector<ReachableLeaf> reachable;
        int64_t previous = -1;
        for (size_t i = 0; i < count; ++i) {
            const size_t query = first + i;
            Best best(scratch.answers.data() + i * k, k);
            searches.emplace_back(queries, projected, bank, basis, index, table, query,
                                  scratch.heads.data() + i * depth, scratch.counts, best);
            if (!projected.frames[query].usable) {
                decide_all(queries, bank, table, query, best, scratch.counts);
                continue;
            }
            QuerySearch& one = searches.back();
            if (k == 1) {  // offering a row twice would fill two of several places
                if (hint != nullptr && hint[query] >= 0) one.offer(hint[query]);
                if (previous >= 0) one.offer(previous);
            }
            one.start(scratch.dots.data() + i * kBlockRows, kQueries * kBlockRows, reachable);
            for (const ReachableLeaf& leaf : reachable)
                if (leaf.gap <= one.reach()) wanted_by[leaf.leaf] |= uint64_t{1} << i;
            const int64_t found = scratch.answers[i * k].row;
            if (found != std::numeric_limits<int64_t>::max()) previous = found;
        }
        // Neighbouring queries reach much the same leaves: leaf by leaf, each is read from memory once for
        // all.
        for (size_t leaf = 0; leaf < wanted_by.size(); ++leaf)
            for (uint64_t queries_left = wanted_by[leaf]; queries_left; queries_left &= queries_left - 1) {
                const size_t i = static_cast<size_t>(__builtin_ctzll(queries_left));
                const size_t at = (leaf / kBlockRows * kQueries + i) * kBlockRows + leaf % kBlockRows;
                searches[i].visit(leaf, scratch.dots[at]);
            }
        for (size_t i = 0; i < count; ++i) {
            searches[i].finish();
            Best(scratch.answers.data() + i * k, k)
                .write(out_index + (first + i) * k, out_sq_distance + (first + i) * k);
        }
        counts[task] = scratch.counts;
    };

    // A few tasks from all over the set tell whether bounds pay here; their answers stand either way.
    const size_t pilots = std::min(kPilotTasks, tasks);
    std::vector<size_t> order;
    for (size_t i = 0; i < pilots; ++i) order.push_back(i * tasks / pilots);
    std::vector<char> is_pilot(tasks, 0);
    for (const size_t task : order) is_pilot[task] = 1;
    parallel_for(pilots, [&](size_t i, int worker) { search(order[i], worker); });
    SearchCounts seen;
    size_t pilot_queries = 0;
    for (const size_t task : order) {
        seen.bounded += counts[task].bounded;
        seen.refined += counts[task].refined;
        seen.decided += counts[task].decided;
        pilot_queries += std::min(kQueries, queries.count - task * kQueries);
    }
    const double brute_cost =
        static_cast<double>(pilot_queries) * static_cast<double>(bank.count) * static_cast<double>(bank.dim);
    SearchCounts total;
    if (pilots < tasks) {
        std::vector<size_t> rest;
        for (size_t task = 0; task < tasks; ++task)
            if (!is_pilot[task]) rest.push_back(task);
        if (pruned_cost(seen, pilot_queries, index, bank.dim) < 0.8 * brute_cost) {
            parallel_for(rest.size(), [&](size_t i, int worker) { search(rest[i], worker); });
        } else {
            // All queries anew in one call: skipping the pilots' few would cost more in bookkeeping.
            total = nearest_brute(queries, bank, k, out_index, out_sq_distance);
        }
    }
    for (const SearchCounts& c : counts) {
        total.bounded += c.bounded;
        total.refined += c.refined;
        total.decided += c.decided;
    }
    total.pairs = static_cast<uint64_t>(queries.count) * bank.count;
    return total;
}

}  // namespace inreach
