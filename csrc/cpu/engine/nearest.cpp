#include "inreach/nearest.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "engine/threads.h"

namespace inreach {

void nearest(const RowSet& queries, const RowSet& bank, size_t k, int64_t* out_index, float* out_sq_distance) {
    const KernelTable& table = kernels();
    parallel_for(queries.count, [&](size_t q, int) {
        std::vector<std::pair<double, int64_t>> best(
            k, {std::numeric_limits<double>::infinity(), std::numeric_limits<int64_t>::max()});
        for (size_t j = 0; j < bank.count; ++j) {
            if (queries.group && bank.group && queries.group[q] == bank.group[j]) continue;
            std::pair<double, int64_t> candidate{table.sq_distance(queries.row(q), bank.row(j), bank.dim),
                                                 static_cast<int64_t>(j)};
            if (!(candidate < best.back())) continue;
            best.back() = candidate;
            for (size_t i = k - 1; i > 0 && best[i] < best[i - 1]; --i) std::swap(best[i], best[i - 1]);
        }
        for (size_t i = 0; i < k; ++i) {
            const bool found = best[i].second != std::numeric_limits<int64_t>::max();
            out_index[q * k + i] = found ? best[i].second : -1;
            out_sq_distance[q * k + i] = static_cast<float>(best[i].first);
        }
    });
}

int64_t first_nonfinite_row(const RowSet& rows) {
    constexpr size_t kChunk = 256;
    std::atomic<int64_t> first{std::numeric_limits<int64_t>::max()};
    parallel_for((rows.count + kChunk - 1) / kChunk, [&](size_t chunk, int) {
        const size_t end = std::min(rows.count, (chunk + 1) * kChunk);
        for (size_t j = chunk * kChunk; j < end; ++j) {
            const float* row = rows.row(j);
            // x * 0 is NaN for NaN and infinity and 0 otherwise; a plain sum lets the compiler use vectors.
            float sum = 0.0f;
            for (size_t i = 0; i < rows.dim; ++i) sum += row[i] * 0.0f;
            if (!(sum == 0.0f)) {
                int64_t seen = first.load();
                while (static_cast<int64_t>(j) < seen && !first.compare_exchange_weak(seen, j)) {
                }
                return;
            }
        }
    });
    const int64_t found = first.load();
    return found == std::numeric_limits<int64_t>::max() ? -1 : found;
}

}  // namespace inreach
