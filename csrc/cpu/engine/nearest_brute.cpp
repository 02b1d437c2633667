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
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/best.h"
#include "engine/frame.h"
#include "engine/rounding.h"
#include "engine/threads.h"
#include "inreach/nearest.h"

namespace inreach {
namespace {

constexpr size_t kDepth = 128;       // dimensions a pass: 128 x 64 floats of the bank stay in the first-level cache
constexpr size_t kQueryChunk = 1536;  // queries of one task at most
constexpr size_t kBankChunk = 64 * kBlockRows;

// A set in the frame: rows in float32, their norms, and which of them float32 cannot hold.
struct Standardized {
    AlignedArray<float> values;
    std::vector<double> sq_norm;
    std::vector<char> usable;
};

Standardized standardize(const Frame& frame, const RowSet& rows) {
    Standardized result;
    result.values = AlignedArray<float>(rows.count * rows.dim);
    result.sq_norm.resize(rows.count);
    result.usable.resize(rows.count);
    constexpr size_t kRows = 64;
    parallel_for((rows.count + kRows - 1) / kRows, [&](size_t task, int) {
        for (size_t r = task * kRows; r < std::min(rows.count, (task + 1) * kRows); ++r) {
            float* out = result.values.data() + r * rows.dim;
            result.sq_norm[r] = frame.standardize(rows.row(r), out);
            result.usable[r] = result.sq_norm[r] < kUsableNorm * kUsableNorm;
            if (!result.usable[r]) std::fill(out, out + rows.dim, 0.0f);
        }
    });
    return result;
}

// 64 rows of dim values to dim rows of 64, a few columns at a time: a whole column would touch 64 lines of
// memory that lie a power of two apart and push each other out of the cache.
void transpose(const float* rows, size_t dim, float* block) {
    constexpr size_t kColumns = 16;
    for (size_t d0 = 0; d0 < dim; d0 += kColumns) {
        const size_t width = std::min(kColumns, dim - d0);
        for (size_t j = 0; j < kBlockRows; ++j)
            for (size_t d = d0; d < d0 + width; ++d) block[d * kBlockRows + j] = rows[j * dim + d];
    }
}

// Thresholds on q.x - |x|^2 / 2: a pair below cannot beat the best distance so far.
class Thresholds {
  public:
    Thresholds(const Frame& frame, size_t dim) : frame_(frame), chain_(gamma32(dim + dim / kDepth + 16)) {}

    // Own norm (squared), largest norm on the other side, best squared distance so far.
    // |q - x|^2 = |q|^2 - 2 (q.x - |x|^2 / 2), all in the frame.
    double slack(double norm, double other_norm) const {
        const double larger = std::max(norm, other_norm);
        return chain_ * (norm * other_norm + 0.5 * larger * larger) + 1e-38;  // the rest: products that underflow
    }
    double reach_sq(double limit, double norm, double other_norm) const {
        if (std::isinf(limit)) return 1e36;
        const double reach = std::sqrt(limit) * frame_.scale() * (1.0 + 1e-12) +
                             frame_.error(norm) + frame_.error(other_norm);
        return reach * reach;
    }

  private:
    const Frame& frame_;
    double chain_;
};

// Everything about one task: queries [q0, q1) against bank rows [b0, b1), both directions if `columns`.
struct Task {
    const Frame& frame;
    const KernelTable& table;
    const RowSet &queries, &bank;
    const Standardized& q;
    size_t k;
    bool grouped;

    // row_answers: (q1 - q0) * k; column_answers: b1 - b0, or null. Returns pairs decided.
    uint64_t run(size_t q0, size_t q1, size_t b0, size_t b1, Answer* row_answers, Answer* column_answers) const {
        const size_t dim = queries.dim, count = q1 - q0;
        const Thresholds thresholds(frame, dim);
        AlignedArray<float> standard_block(kBlockRows * dim), block(dim * kBlockRows);
        AlignedArray<float> dots(count * kBlockRows);
        double largest_query = 0.0;
        for (size_t i = q0; i < q1; ++i)
            if (q.usable[i]) largest_query = std::max(largest_query, q.sq_norm[i]);
        largest_query = std::sqrt(largest_query);
        uint64_t decided = 0;
        for (size_t b = b0; b < b1; b += kBlockRows) {
            const size_t width = std::min<size_t>(kBlockRows, b1 - b);
            float start[kBlockRows], column_limit[kBlockRows];
            double column_norm[kBlockRows] = {};
            bool bank_usable[kBlockRows];
            double largest = 0.0;
            bool all_usable = true;
            for (size_t j = 0; j < kBlockRows; ++j) {
                float* s = standard_block.data() + j * dim;
                double sq = 0.0;
                bank_usable[j] = true;
                if (j < width) {
                    sq = frame.standardize(bank.row(b + j), s);
                    bank_usable[j] = sq < kUsableNorm * kUsableNorm;
                    all_usable = all_usable && bank_usable[j];
                }
                if (j >= width || !bank_usable[j]) {
                    std::fill(s, s + dim, 0.0f);
                    sq = 0.0;
                }
                column_norm[j] = std::sqrt(sq);
                largest = std::max(largest, column_norm[j]);
                // Absent rows, and those that float32 cannot hold, never pass by their value.
                start[j] = j < width && bank_usable[j] ? static_cast<float>(-0.5 * sq) : -1e37f;
                column_limit[j] = std::numeric_limits<float>::max();
            }
            transpose(standard_block.data(), dim, block.data());
            for (size_t d = 0; d < dim; d += kDepth)
                for (size_t i = 0; i < count; i += kTileRows)
                    table.dot_tile(block.data() + d * kBlockRows, std::min(kDepth, dim - d),
                                   q.values.data() + (q0 + i) * dim + d, dim, std::min<size_t>(kTileRows, count - i),
                                   start, d > 0, dots.data() + i * kBlockRows);
            const auto limit_column = [&](size_t j) {
                // q.x - |x|^2/2 - |q|^2/2 >= -(reach^2)/2 - slack, the query's own half norm added when compared.
                const double reach_sq =
                    thresholds.reach_sq(column_answers[b - b0 + j].sq_distance, column_norm[j], largest_query);
                column_limit[j] = round_down(-0.5 * reach_sq * (1.0 + 1e-12) -
                                             1.5 * thresholds.slack(column_norm[j], largest_query));
            };
            if (column_answers != nullptr)
                for (size_t j = 0; j < width; ++j)
                    if (bank_usable[j]) limit_column(j);

            for (size_t i = 0; i < count; ++i) {
                const size_t query = q0 + i;
                const float* dot = dots.data() + i * kBlockRows;
                Best best(row_answers + i * k, k);
                const double norm = std::sqrt(q.sq_norm[query]);
                const double slack = thresholds.slack(norm, largest);
                const auto row_limit = [&] {
                    return round_down(0.5 * (q.sq_norm[query] - thresholds.reach_sq(best.limit(), norm, largest)) - slack);
                };
                uint64_t wanted = 0, columns_wanted = 0;
                const uint64_t present = width == kBlockRows ? ~uint64_t{0} : (uint64_t{1} << width) - 1;
                if (!q.usable[query]) {
                    wanted = columns_wanted = present;
                } else {
                    static constexpr float kZero[kBlockRows] = {};
                    wanted = table.at_least(dot, kZero, row_limit());
                    if (column_answers != nullptr)
                        columns_wanted = table.at_least(dot, column_limit, round_down(0.5 * q.sq_norm[query]));
                    if (!all_usable)
                        for (size_t j = 0; j < width; ++j)
                            if (!bank_usable[j]) wanted |= uint64_t{1} << j, columns_wanted |= uint64_t{1} << j;
                    wanted &= present;
                    columns_wanted = column_answers != nullptr ? columns_wanted & present : 0;
                }
                if (column_answers == nullptr) columns_wanted = 0;
                if ((wanted | columns_wanted) == 0) continue;
                // The most promising row first: its distance may rule out the others.
                if (q.usable[query] && (wanted & (wanted - 1)) != 0 && columns_wanted == 0) {
                    int first = __builtin_ctzll(wanted);
                    for (uint64_t rest = wanted; rest; rest &= rest - 1) {
                        const int j = __builtin_ctzll(rest);
                        if (dot[j] > dot[first]) first = j;
                    }
                    if (consider(query, b + static_cast<size_t>(first), best)) ++decided;
                    wanted &= ~(uint64_t{1} << first);
                    const float limit = row_limit();
                    uint64_t left = 0;
                    for (uint64_t rest = wanted; rest; rest &= rest - 1) {
                        const int j = __builtin_ctzll(rest);
                        if (dot[j] >= limit || !bank_usable[j]) left |= uint64_t{1} << j;
                    }
                    wanted = left;
                }
                for (uint64_t rest = wanted | columns_wanted; rest; rest &= rest - 1) {
                    const size_t j = static_cast<size_t>(__builtin_ctzll(rest));
                    if (grouped && queries.group[query] == bank.group[b + j]) continue;
                    const double sq = table.sq_distance(queries.row(query), bank.row(b + j), dim);
                    ++decided;
                    best.offer({sq, static_cast<int64_t>(b + j)});
                    if (column_answers != nullptr) {
                        Best column(column_answers + (b - b0 + j), 1);
                        const double before = column.limit();
                        column.offer({sq, static_cast<int64_t>(query)});
                        if (column.limit() < before && bank_usable[j]) limit_column(j);
                    }
                }
            }
        }
        return decided;
    }

    bool consider(size_t query, size_t row, Best& best) const {
        if (grouped && queries.group[query] == bank.group[row]) return false;
        best.offer({table.sq_distance(queries.row(query), bank.row(row), queries.dim), static_cast<int64_t>(row)});
        return true;
    }
};

struct Chunks {
    size_t queries, bank;
};

// Large query chunks share the packing of the bank; with few queries the bank is split instead.
Chunks plan_chunks(size_t queries, size_t bank) {
    const size_t threads = static_cast<size_t>(num_threads());
    const size_t per_thread = (queries + threads - 1) / threads;
    const size_t tiles = (std::min(per_thread, kQueryChunk) + kTileRows - 1) / kTileRows;
    Chunks chunks{std::max<size_t>(1, tiles) * kTileRows, bank};
    const size_t query_tasks = (queries + chunks.queries - 1) / chunks.queries;
    if (query_tasks < threads || query_tasks % threads != 0)
        chunks.bank = std::max(kBankChunk, (bank / (4 * threads) + kBlockRows - 1) / kBlockRows * kBlockRows);
    return chunks;
}

SearchCounts run_all(const RowSet& queries, const RowSet& bank, size_t k, std::vector<Answer>& rows,
                     std::vector<Answer>* columns) {
    const Frame frame = Frame::of(bank, queries);
    const Standardized q = standardize(frame, queries);
    const bool grouped = queries.group != nullptr && bank.group != nullptr;
    const Task task{frame, kernels(), queries, bank, q, k, grouped};
    const Chunks chunks = plan_chunks(queries.count, bank.count);
    const size_t query_tasks = (queries.count + chunks.queries - 1) / chunks.queries;
    const size_t bank_tasks = (bank.count + chunks.bank - 1) / chunks.bank;
    rows.assign(queries.count * k, Answer());
    if (columns) columns->assign(bank.count, Answer());
    std::atomic<uint64_t> decided{0};
    std::mutex merging;
    parallel_for(query_tasks * bank_tasks, [&](size_t t, int) {
        const size_t q0 = t % query_tasks * chunks.queries, q1 = std::min(queries.count, q0 + chunks.queries);
        const size_t b0 = t / query_tasks * chunks.bank, b1 = std::min(bank.count, b0 + chunks.bank);
        std::vector<Answer> own_rows((q1 - q0) * k), own_columns(columns ? b1 - b0 : 0);
        decided += task.run(q0, q1, b0, b1, own_rows.data(), columns ? own_columns.data() : nullptr);
        // The order of merging does not matter: answers are ordered by (distance, row).
        const std::lock_guard<std::mutex> lock(merging);
        for (size_t i = q0; i < q1; ++i)
            for (size_t j = 0; j < k; ++j) Best(rows.data() + i * k, k).offer(own_rows[(i - q0) * k + j]);
        if (columns)
            for (size_t j = b0; j < b1; ++j) Best(columns->data() + j, 1).offer(own_columns[j - b0]);
    });
    SearchCounts counts;
    counts.pairs = counts.bounded = static_cast<uint64_t>(queries.count) * bank.count;
    counts.decided = decided.load();
    counts.brute_force = true;
    return counts;
}

}  // namespace

SearchCounts nearest_brute(const RowSet& queries, const RowSet& bank, size_t k, int64_t* out_index,
                           float* out_sq_distance) {
    std::vector<Answer> rows;
    const SearchCounts counts = run_all(queries, bank, k, rows, nullptr);
    for (size_t i = 0; i < queries.count; ++i)
        Best(rows.data() + i * k, k).write(out_index + i * k, out_sq_distance + i * k);
    return counts;
}

SearchCounts mutual_nearest_brute(const RowSet& a, const RowSet& b, int64_t* ab_index, float* ab_sq_distance,
                                  int64_t* ba_index, float* ba_sq_distance) {
    std::vector<Answer> rows, columns;
    const SearchCounts counts = run_all(a, b, 1, rows, &columns);
    for (size_t i = 0; i < a.count; ++i) Best(rows.data() + i, 1).write(ab_index + i, ab_sq_distance + i);
    for (size_t j = 0; j < b.count; ++j) Best(columns.data() + j, 1).write(ba_index + j, ba_sq_distance + j);
    return counts;
}

int64_t first_nonfinite_row(const RowSet& rows) {
    constexpr size_t kChunk = 256;
    constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    std::atomic<int64_t> first{kNone};
    parallel_for((rows.count + kChunk - 1) / kChunk, [&](size_t chunk, int) {
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
            while (static_cast<int64_t>(j) < seen && !first.compare_exchange_weak(seen, static_cast<int64_t>(j))) {
            }
            return;
        }
    });
    return first.load() == kNone ? -1 : first.load();
}

}  // namespace inreach
