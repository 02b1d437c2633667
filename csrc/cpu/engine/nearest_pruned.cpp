// Exact search by bounds: batches of queries through the index, or brute force where bounds do not pay.
#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/mapped.h"
#include "engine/query_batch.h"
#include "engine/threads.h"
#include "inreach/nearest.h"

namespace inreach {

namespace {

// Batches after which the costs of bounds and of brute force are compared. From all over the set, so that one
// unusual part of it does not decide; no more, for they cost what they cost where bounds do not pay (of 784
// queries, 17 batches, a quarter).
constexpr size_t kPilotBatches = 4;

// Cost of a search in multiply-adds of dot_tile. Measured with AVX2 (1024 values, a rank of 256): a ball 33,
// a row's first codes 22, its further codes 670, a decision 2.9 a value, a distance in float32 less than 1.
// Only their order of size matters: where bounds and brute force cost nearly the same, either choice is
// right.
double pruned_cost(const SearchWork& work, size_t dim) {
    return static_cast<double>(work.balls) * 40.0 + static_cast<double>(work.counts.bounded) * 32.0 +
           static_cast<double>(work.counts.refined) * 600.0 +
           static_cast<double>(work.read + 3 * work.counts.decided) * static_cast<double>(dim);
}

}  // namespace

SearchCounts nearest_pruned(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, size_t k, const int64_t* hint,
                            int64_t* out_index, float* out_sq_distance) {
    const SearchContext context(queries, projected, bank, basis, index, k, hint);
    const std::vector<uint32_t> order = order_along_tree(context);
    const size_t batches = batches_of(queries.count);
    std::vector<SearchWork> works(batches);
    const auto batch_size = [&](size_t number) {
        return batch_begin(queries.count, number + 1) - batch_begin(queries.count, number);
    };
    const auto search = [&](const std::vector<size_t>& numbers) {
        parallel_for(numbers.size(), [&](size_t i) {
            const size_t number = numbers[i];
            QueryBatch batch(context, k, hint, order.data() + batch_begin(queries.count, number),
                             batch_size(number));
            batch.search();
            batch.write(out_index, out_sq_distance);
            works[number] = batch.work();
            limit_resident(bank);
        });
    };

    // A few batches from all over the set tell whether bounds pay here; their answers stand either way.
    const size_t pilots = std::min(kPilotBatches, batches);
    std::vector<size_t> first, rest;
    size_t first_queries = 0;
    for (size_t i = 0; i < pilots; ++i) {
        first.push_back(i * batches / pilots);
        first_queries += batch_size(first.back());
    }
    for (size_t number = 0; number < batches; ++number)
        if (!std::binary_search(first.begin(), first.end(), number)) rest.push_back(number);
    search(first);
    const SearchWork seen = std::accumulate(works.begin(), works.end(), SearchWork(),
                                            [](auto total, auto& one) { return total += one; });
    const double brute_cost =
        static_cast<double>(first_queries) * static_cast<double>(bank.count) * static_cast<double>(bank.dim);
    SearchCounts total;
    if (rest.empty() || pruned_cost(seen, bank.dim) < 0.8 * brute_cost) {
        search(rest);
    } else {
        // All queries anew in one call: leaving out the pilots' few would cost more.
        total = nearest_brute(queries, bank, k, out_index, out_sq_distance);
    }
    for (const SearchWork& work : works) total += work.counts;
    total.pairs = static_cast<uint64_t>(queries.count) * bank.count;
    return total;
}

}  // namespace inreach
