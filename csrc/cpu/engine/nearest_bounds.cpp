// Certified bounds on the nearest distance: the start of a search, and the nearest leaves.
#include <algorithm>
#include <vector>

#include "engine/mapped.h"
#include "engine/query_batch.h"
#include "engine/threads.h"
#include "inreach/nearest.h"

namespace inreach {

SearchCounts nearest_bounds(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, const int64_t* hint,
                            int64_t* out_index, float* out_sq_upper, float* out_sq_lower) {
    const SearchContext context(queries, projected, bank, basis, index, 1, hint);
    const std::vector<uint32_t> order = order_along_tree(context);
    std::vector<SearchCounts> counts(batches_of(queries.count));
    parallel_for(counts.size(), [&](size_t number) {
        const size_t first = batch_begin(queries.count, number);
        QueryBatch batch(context, 1, hint, order.data() + first,
                         batch_begin(queries.count, number + 1) - first);
        batch.bound(out_sq_lower);
        batch.write(out_index, out_sq_upper);
        counts[number] = batch.work().counts;
        limit_resident(bank);
    });
    SearchCounts total;
    for (const SearchCounts& one : counts) total += one;
    total.pairs = static_cast<uint64_t>(queries.count) * bank.count;
    return total;
}

}  // namespace inreach
