// Brute force in float32 tiles, decided in float64: for small sets, for one-off calls, and for data without
// structure, where bounds do not pay. One and both directions share the loop.
//
// Both sets are brought into one frame (centre, power-of-two scale), so that data far from the origin loses
// nothing. A pair is passed over only if its float32 value, less the proven rounding of the longest possible
// chain of additions, exceeds the best float64 distance so far; every other pair is decided in float64.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/frame.h"
#include "engine/mapped.h"
#include "engine/panels.h"
#include "engine/require.h"
#include "engine/rounding.h"
#include "engine/threads.h"
#include "engine/top_k.h"
#include "inreach/nearest.h"

namespace inreach {
namespace {

// Dimensions a pass: a strip of them (8 KiB) and the panels that go by stay in the first-level cache.
constexpr size_t kDepth = 128;
// Queries that meet a block of the bank one pass after the other: their panels of a pass (96 KiB) and their
// dot products (48 KiB) stay in the second-level cache.
constexpr size_t kQueryRows = 192;
// Panels of a task at most, in bytes: every block of the bank reads them all, from the last-level cache.
constexpr size_t kPanelBytes = size_t{8} << 20;
static_assert(kQueryRows % kTileRows == 0, "all but the last are whole panels");
static_assert(kBlockRows % kStripRows == 0, "blocks are whole strips");

// Queries in the frame: packed, their norms, and which of them float32 cannot hold.
struct PackedQueries {
    PackedQueries(const Frame& frame, const RowSet& rows)
        : panels(rows.count, rows.dim, kDepth), sq_norm(rows.count), usable(new bool[rows.count]) {
        constexpr size_t kRows = 8 * kTileRows;  // a task
        parallel_for((rows.count + kRows - 1) / kRows, [&](size_t task) {
            AlignedArray<float> scratch(kTileRows * rows.dim);
            for (size_t r = task * kRows; r < std::min(rows.count, (task + 1) * kRows); r += kTileRows)
                panels.set(r, frame, rows, r, std::min<size_t>(kTileRows, rows.count - r), sq_norm.data() + r,
                           usable.get() + r, scratch.data());
        });
    }

    Panels panels;
    std::vector<double> sq_norm;
    std::unique_ptr<bool[]> usable;
};

// What rounding can do to q.x - |x|^2 / 2, summed in float32 along the longest chain, and to one comparison.
class Rounding {
  public:
    explicit Rounding(size_t dim) : chain_(gamma32(dim + dim / kDepth + 16)) {}

    double slack(double norm, double other_norm) const {
        const double larger = std::max(norm, other_norm);
        return chain_ * (norm * other_norm + 0.5 * larger * larger) +
               kUnderflow;  // the rest: products that underflow
    }

  private:
    double chain_;
};

// A pair that may be the nearest of its query or of its bank row, to be decided in float64 later: by then
// better pairs may have ruled it out.
struct CandidatePair {
    double at_least;  // lower bound on the distance, scaled
    uint32_t query, row;
};

// One task: queries [q0, q1) against bank rows [b0, b1), both directions where column answers are wanted.
//
// For k = 1 the computed values themselves give upper bounds on the best distance, so that pairs wait in
// `candidates` and few are left to decide; for k > 1 every pair that passes is decided at once.
class TileSearch {
  public:
    TileSearch(const Frame& frame, const RowSet& queries, const RowSet& bank, const PackedQueries& q,
               size_t k, size_t q0, size_t q1, size_t b0, size_t b1, Answer* row_answers,
               Answer* column_answers)
        : frame_(frame),
          table_(kernels()),
          queries_(queries),
          bank_(bank),
          q_(q),
          k_(k),
          grouped_(queries.group != nullptr && bank.group != nullptr),
          q0_(q0),
          q1_(q1),
          b0_(b0),
          b1_(b1),
          row_answers_(row_answers),
          column_answers_(column_answers),
          rounding_(queries.dim),
          row_reach_(q1 - q0, kFar),
          row_limit_(q1 - q0),
          column_reach_(column_answers ? b1 - b0 : 0, kFar) {
        for (size_t i = q0; i < q1; ++i) {
            all_usable_ = all_usable_ && q.usable[i];
            if (q.usable[i]) largest_query_ = std::max(largest_query_, q.sq_norm[i]);
        }
        largest_query_ = std::sqrt(largest_query_);
    }

    // Returns the number of pairs decided in float64.
    uint64_t run() {
        const size_t dim = queries_.dim;
        AlignedArray<float> standard(kStripRows * dim), strips(kBlockRows * dim),
            dots(kQueryRows * kBlockRows);
        std::fill(dots.data(), dots.data() + dots.size(), 0.0f);
        uint64_t pass[kQueryRows];
        for (size_t b = b0_; b < b1_; b += kBlockRows) {
            const Block block = load(b, standard.data(), strips.data());
            keep_limits(block);
            for (size_t q = q0_; q < q1_; q += kQueryRows) {
                stop_point();
                const size_t count = std::min(kQueryRows, q1_ - q);
                for (size_t d = 0; d < dim; d += kDepth) {
                    // Of one direction, the last pass tells the pairs apart by itself.
                    const bool last = d + kDepth >= dim && column_answers_ == nullptr;
                    table_.dot_panels(strips.data() + d * kBlockRows, q_.panels.at(q, d), q_.panels.depth(d),
                                      count, block.width, block.start, d > 0,
                                      last ? row_limit_.data() + (q - q0_) : nullptr, dots.data(), pass);
                }
                compare(block, q, count, dots.data(), pass);
            }
            if (candidates_.size() > kMaxCandidates) decide_candidates();
            if ((b - b0_) / kBlockRows % 256 == 255) limit_resident(bank_);
        }
        decide_candidates();
        return decided_;
    }

  private:
    static constexpr double kFar = 1e18;  // squares of it still fit float32
    static constexpr size_t kMaxCandidates = size_t{1} << 18;
    static constexpr int kManyPass = 8;

    struct Block {
        size_t first, width;
        float start[kBlockRows];  // -|x|^2 / 2
        double norm[kBlockRows];
        uint64_t present, unusable;  // bits
        double largest;
    };

    Block load(size_t first, float* standard, float* strips) const {
        Block block;
        block.first = first;
        block.width = std::min<size_t>(kBlockRows, b1_ - first);
        block.present = block.width == kBlockRows ? ~uint64_t{0} : (uint64_t{1} << block.width) - 1;
        block.unusable = 0;
        block.largest = 0.0;
        const size_t dim = bank_.dim;
        for (size_t strip = 0; strip < block.width; strip += kStripRows) {
            for (size_t j = strip; j < strip + kStripRows; ++j) {
                float* s = standard + (j - strip) * dim;
                double sq = 0.0;
                bool counted = j < block.width;
                if (counted) {
                    sq = frame_.standardize(bank_.row(first + j), s);
                    if (!(sq < kUsableNorm * kUsableNorm))
                        block.unusable |= uint64_t{1} << j, counted = false;
                }
                if (!counted) std::fill(s, s + dim, 0.0f), sq = 0.0;
                block.norm[j] = std::sqrt(sq);
                block.largest = std::max(block.largest, block.norm[j]);
                // Absent rows, and those that float32 cannot hold, never pass by their value.
                block.start[j] = counted ? static_cast<float>(-0.5 * sq) : -1e37f;
            }
            for (size_t d = 0; d < dim; d += kDepth)
                table_.describe.transpose(standard + d, static_cast<ptrdiff_t>(dim),
                                          strips + d * kBlockRows + strip * q_.panels.depth(d), kStripRows,
                                          kStripRows, q_.panels.depth(d));
        }
        return block;
    }

    // Row limits hold for bank rows of up to longest_, which follows the blocks but not every small change.
    void keep_limits(const Block& block) {
        if (block.largest <= longest_ && longest_ <= 2.0 * block.largest) return;
        longest_ = 1.05 * block.largest;
        for (size_t i = 0; i < row_limit_.size(); ++i) limit_row(i);
    }

    // Limits on dot - |x|^2/2 (rows) and dot - |x|^2/2 - |q|^2/2 (columns) below which a pair is ruled out.
    void limit_row(size_t i) {
        const double sq_norm = q_.sq_norm[q0_ + i], norm = std::sqrt(sq_norm);
        const double reach = row_reach_[i] + frame_.error(norm) + frame_.error(longest_);
        row_limit_[i] = round_down(0.5 * (sq_norm - reach * reach) - rounding_.slack(norm, longest_));
    }
    float column_limit(size_t j, const Block& block) const {
        const double reach =
            column_reach_[block.first - b0_ + j] + frame_.error(block.norm[j]) + frame_.error(largest_query_);
        return round_down(-0.5 * reach * reach - 1.5 * rounding_.slack(block.norm[j], largest_query_));
    }

    void reach_row(size_t i, double reach) {
        if (!(reach < row_reach_[i])) return;
        row_reach_[i] = reach;
        limit_row(i);
    }

    // Queries first to first + count - 1 against a block. pass: the pairs at or above their row's limit, for
    // one direction; for both, dots tell.
    void compare(const Block& block, size_t first, size_t count, const float* dots, const uint64_t* pass) {
        static constexpr float kZero[kBlockRows] = {};
        const bool columns = column_answers_ != nullptr, plain = all_usable_ && block.unusable == 0;
        float column_limits[kBlockRows];
        std::fill(column_limits, column_limits + kBlockRows, std::numeric_limits<float>::max());
        if (columns)
            for (size_t j = 0; j < block.width; ++j) column_limits[j] = column_limit(j, block);
        for (size_t n = 0; n < count; ++n) {
            const size_t query = first + n, i = query - q0_;
            const float* dot = dots + n * kBlockRows;
            if (!plain && !decide_unusable(block, query)) continue;
            const float column_shift = columns ? round_down(0.5 * q_.sq_norm[query]) : 0.0f;
            uint64_t passing = columns ? ~uint64_t{0} : pass[n];
            const auto narrow = [&] {
                uint64_t now = table_.at_least(dot, kZero, row_limit_[i]);
                if (columns) now |= table_.at_least(dot, column_limits, column_shift);
                passing &= now;
            };
            if (columns) narrow();
            passing &= block.present & ~block.unusable;
            if (passing == 0) continue;
            if (k_ == 1 && __builtin_popcountll(passing) > kManyPass) {
                // Nothing is known of this query yet: its likely nearest row first leaves few of the others.
                const size_t j = greatest(dot, passing);
                if (!same_group(query, block.first + j)) {
                    wait(i, j, block, dot[j]);
                    if (columns) column_limits[j] = column_limit(j, block);
                    narrow();
                    passing &= ~(uint64_t{1} << j);
                }
            }
            for (; passing; passing &= passing - 1) {
                const size_t j = static_cast<size_t>(__builtin_ctzll(passing));
                const size_t row = block.first + j;
                if (same_group(query, row)) continue;
                if (k_ > 1) {
                    if (dot[j] >= row_limit_[i]) decide(query, row);
                    continue;
                }
                wait(i, j, block, dot[j]);
                if (columns) column_limits[j] = column_limit(j, block);
            }
        }
    }

    // Decides the pairs that float32 cannot hold; whether others are left.
    bool decide_unusable(const Block& block, size_t query) {
        const uint64_t rows = q_.usable[query] ? block.unusable : block.present;
        if (rows != 0) stop_point();
        for (uint64_t rest = rows; rest; rest &= rest - 1)
            decide(query, block.first + static_cast<size_t>(__builtin_ctzll(rest)));
        return q_.usable[query];
    }

    bool same_group(size_t query, size_t row) const {
        return grouped_ && queries_.group[query] == bank_.group[row];
    }

    // The set bit whose value is greatest.
    static size_t greatest(const float* values, uint64_t bits) {
        size_t best = static_cast<size_t>(__builtin_ctzll(bits));
        for (; bits; bits &= bits - 1) {
            const size_t j = static_cast<size_t>(__builtin_ctzll(bits));
            if (values[j] > values[best]) best = j;
        }
        return best;
    }

    // Bounds the pair from both sides; keeps it if it may be the best of its row or column.
    void wait(size_t i, size_t j, const Block& block, float dot) {
        const double sq_norm = q_.sq_norm[q0_ + i], norm = std::sqrt(sq_norm);
        const double slack = 2.0 * rounding_.slack(norm, block.norm[j]);
        const double errors = frame_.error(norm) + frame_.error(block.norm[j]);
        const double sq = sq_norm - 2.0 * static_cast<double>(dot);
        const double low = std::sqrt(std::max(0.0, sq - slack)) * (1.0 - kDecisionSlack) - errors;
        double high = std::sqrt(std::max(0.0, sq + slack)) * (1.0 + kDecisionSlack) + errors;
        if (bank_.floor != nullptr) high = std::max(high, scaled_root(bank_.floor[block.first + j]));
        bool keep = low <= row_reach_[i];
        reach_row(i, high);
        if (column_answers_ != nullptr) {
            double& reach = column_reach_[block.first - b0_ + j];
            keep = keep || low <= reach;
            reach = std::min(reach, high);
        }
        if (keep)
            candidates_.push_back(
                {low, static_cast<uint32_t>(i), static_cast<uint32_t>(block.first - b0_ + j)});
    }

    void decide_candidates() {
        size_t seen = 0;
        for (const CandidatePair& pair : candidates_) {
            if (seen++ % 4096 == 0) stop_point();
            const bool row = pair.at_least <= row_reach_[pair.query];
            const bool column = column_answers_ != nullptr && pair.at_least <= column_reach_[pair.row];
            if (row || column) decide(q0_ + pair.query, b0_ + pair.row);
        }
        candidates_.clear();
    }

    // A squared distance as a reach: at least its root in the frame.
    double scaled_root(double sq) const { return std::sqrt(sq) * frame_.scale() * (1.0 + kDecisionSlack); }

    void decide(size_t query, size_t row) {
        if (same_group(query, row)) return;
        TopK answers(row_answers_ + (query - q0_) * k_, k_);
        if (bank_.floor != nullptr && bank_.floor[row] > answers.limit()) return;
        const double sq =
            bank_.value(table_.sq_distance(queries_.row(query), bank_.row(row), queries_.dim), row);
        ++decided_;
        const double distance = scaled_root(sq);
        answers.offer({sq, static_cast<int64_t>(row)});
        if (k_ == 1)
            reach_row(query - q0_, distance);
        else if (!std::isinf(answers.limit()))
            reach_row(query - q0_, scaled_root(answers.limit()));
        if (column_answers_ != nullptr) {
            TopK(column_answers_ + (row - b0_), 1).offer({sq, static_cast<int64_t>(query)});
            column_reach_[row - b0_] = std::min(column_reach_[row - b0_], distance);
        }
    }

    const Frame& frame_;
    const KernelTable& table_;
    const RowSet &queries_, &bank_;
    const PackedQueries& q_;
    const size_t k_;
    const bool grouped_;
    const size_t q0_, q1_, b0_, b1_;
    Answer* const row_answers_;
    Answer* const column_answers_;
    const Rounding rounding_;
    bool all_usable_ = true;
    double largest_query_ = 0.0, longest_ = -1.0;
    // Scaled distances that the nearest pair of a query, or of a bank row, is known not to exceed.
    std::vector<double> row_reach_;
    std::vector<float> row_limit_;
    std::vector<double> column_reach_;
    std::vector<CandidatePair> candidates_;
    uint64_t decided_ = 0;
};

struct Chunks {
    size_t queries, bank;

    size_t across(size_t all_queries) const { return (all_queries + queries - 1) / queries; }
    size_t tasks(size_t all_queries, size_t all_bank) const {
        return across(all_queries) * ((all_bank + bank - 1) / bank);
    }
};

// A part of n in whole units.
size_t whole_chunk(size_t n, size_t parts, size_t unit) {
    return ((n + parts - 1) / parts + unit - 1) / unit * unit;
}

// The chunks that the threads should be done with first. A task costs, in multiply-adds of dot_panels, its
// pairs, the packing of its bank rows, and the first guesses and last decisions of its queries; and threads
// never end together.
Chunks plan_chunks(size_t queries, size_t bank, size_t dim) {
    constexpr double kPack = 48.0, kBegin = 32768.0, kDecide = 48.0;
    const size_t threads = static_cast<size_t>(num_threads());
    const double apart = threads > 1 ? 0.1 : 0.0;  // of a task
    Chunks best{};
    double least = std::numeric_limits<double>::infinity();
    const size_t most = std::max<size_t>(kQueryRows, kPanelBytes / (dim * sizeof(float)));
    size_t across = (queries + most - 1) / most;
    for (int halvings = 0; halvings < 5; ++halvings, across *= 2)
        for (const size_t tasks : {threads, 2 * threads, 4 * threads}) {
            const size_t along = (tasks + across - 1) / across;
            const Chunks chunks{whole_chunk(queries, across, kTileRows),
                                whole_chunk(bank, along, kBlockRows)};
            const double rounds = static_cast<double>((chunks.tasks(queries, bank) + threads - 1) / threads);
            const double q = static_cast<double>(chunks.queries), b = static_cast<double>(chunks.bank);
            const double d = static_cast<double>(dim);
            const double cost = (rounds + apart) * (q * b * d + b * d * kPack + q * (kBegin + kDecide * d));
            if (cost < least) least = cost, best = chunks;
        }
    return best;
}

SearchCounts run_all(const RowSet& queries, const RowSet& bank, size_t k, std::vector<Answer>& rows,
                     std::vector<Answer>* columns) {
    require_search(queries, bank, k);
    rows.assign(queries.count * k, Answer());
    if (columns) columns->assign(bank.count, Answer());
    SearchCounts counts;
    counts.pairs = counts.bounded = static_cast<uint64_t>(queries.count) * bank.count;
    counts.brute_force = true;
    if (counts.pairs == 0) return counts;
    const Frame frame = Frame::of(bank, queries);
    const PackedQueries q(frame, queries);
    const Chunks chunks = plan_chunks(queries.count, bank.count, queries.dim);
    const size_t query_tasks = chunks.across(queries.count);
    std::atomic<uint64_t> decided{0};
    std::mutex merging;
    parallel_for(chunks.tasks(queries.count, bank.count), [&](size_t t) {
        const size_t q0 = t % query_tasks * chunks.queries, q1 = std::min(queries.count, q0 + chunks.queries);
        const size_t b0 = t / query_tasks * chunks.bank, b1 = std::min(bank.count, b0 + chunks.bank);
        std::vector<Answer> own_rows((q1 - q0) * k), own_columns(columns ? b1 - b0 : 0);
        decided += TileSearch(frame, queries, bank, q, k, q0, q1, b0, b1, own_rows.data(),
                              columns ? own_columns.data() : nullptr)
                       .run();
        // The order of merging does not matter: answers are ordered by (distance, row).
        const std::lock_guard<std::mutex> lock(merging);
        for (size_t i = q0; i < q1; ++i)
            for (size_t j = 0; j < k; ++j) TopK(rows.data() + i * k, k).offer(own_rows[(i - q0) * k + j]);
        if (columns)
            for (size_t j = b0; j < b1; ++j) TopK(columns->data() + j, 1).offer(own_columns[j - b0]);
    });
    counts.decided = decided.load();
    return counts;
}

}  // namespace

SearchCounts nearest_brute(const RowSet& queries, const RowSet& bank, size_t k, int64_t* out_index,
                           float* out_sq_distance) {
    std::vector<Answer> rows;
    const SearchCounts counts = run_all(queries, bank, k, rows, nullptr);
    for (size_t i = 0; i < queries.count; ++i)
        TopK(rows.data() + i * k, k).write(out_index + i * k, out_sq_distance + i * k);
    return counts;
}

SearchCounts mutual_nearest_brute(const RowSet& a, const RowSet& b, int64_t* ab_index, float* ab_sq_distance,
                                  int64_t* ba_index, float* ba_sq_distance) {
    std::vector<Answer> rows, columns;
    const SearchCounts counts = run_all(a, b, 1, rows, &columns);
    for (size_t i = 0; i < a.count; ++i) TopK(rows.data() + i, 1).write(ab_index + i, ab_sq_distance + i);
    for (size_t j = 0; j < b.count; ++j) TopK(columns.data() + j, 1).write(ba_index + j, ba_sq_distance + j);
    return counts;
}

int64_t first_nonfinite_row(const RowSet& rows) {
    require_rows(rows);
    constexpr size_t kChunk = 256;
    constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    std::atomic<int64_t> first{kNone};
    parallel_for((rows.count + kChunk - 1) / kChunk, [&](size_t chunk) {
        const size_t end = std::min(rows.count, (chunk + 1) * kChunk);
        for (size_t j = chunk * kChunk; j < end; ++j) {
            const float* row = rows.row(j);
            // x * 0 is NaN for NaN and infinity, and 0 otherwise.
            float lane[16] = {};
            size_t i = 0;
            for (; i + 16 <= rows.dim; i += 16)
                for (size_t l = 0; l < 16; ++l) lane[l] += row[i + l] * 0.0f;
            for (; i < rows.dim; ++i) lane[0] += row[i] * 0.0f;
            bool finite = true;
            for (const float value : lane) finite = finite && value == 0.0f;
            if (finite) continue;
            int64_t seen = first.load();
            while (static_cast<int64_t>(j) < seen &&
                   !first.compare_exchange_weak(seen, static_cast<int64_t>(j))) {
            }
            return;
        }
    });
    return first.load() == kNone ? -1 : first.load();
}

}  // namespace inreach
