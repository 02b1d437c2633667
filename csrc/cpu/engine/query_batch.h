// Queries that are searched together, so that each leaf is read from memory once for all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/aligned.h"
#include "engine/query_search.h"

namespace inreach {

// Queries of a batch at most: the more, the fewer times a leaf is read from memory, and the fewer batches
// there are for the threads. 191, 182, 169, 159 ms for 12, 24, 48, 64 (query_search.cpp says of what).
constexpr size_t kBatchQueries = 64;
static_assert(kBatchQueries <= 64, "a leaf's queries are the bits of one uint64_t");
// From this number on there are a multiple of four batches, all of about one size, so that 2 or 4 threads
// have equal shares.
constexpr size_t kManyQueries = 128;

// At most kBatchQueries queries. Searches and answers are in the order in which the queries are given.
class QueryBatch {
  public:
    // Finds first answers.
    QueryBatch(const SearchContext& context, size_t k, const int64_t* hint, const uint32_t* queries,
               size_t count);

    // Branch by branch, leaf by leaf: what no query of the batch can rule out.
    void search();

    // Lower bounds on the squared distance of every row, for k = 1.
    void bound(float* out_sq_lower);

    // Each answer to the place of its query.
    void write(int64_t* index, float* sq_distance);

    const SearchWork& work() const { return work_; }

  private:
    TopK answers(size_t i) { return TopK(answers_.data() + i * k_, k_); }
    const float* dots(size_t i) const { return dots_.data() + i * kBlockRows; }
    bool usable(size_t i) const { return context_.projected.frames[queries_[i]].usable; }
    std::vector<uint32_t> branches_by_distance() const;
    void decide_all(size_t i);

    const SearchContext& context_;
    size_t k_;
    const uint32_t* queries_;
    size_t count_, stride_;
    AlignedArray<float> heads_, dots_;
    std::vector<Answer> answers_;
    std::vector<QuerySearch> searches_;
    SearchWork work_;
};

// The queries, neighbours together: in the order of the leaves whose centres are nearest to them. A batch of
// them then wants much the same leaves and decides much the same rows.
std::vector<uint32_t> order_along_tree(const SearchContext& context);

inline size_t batches_of(size_t queries) {
    const size_t least = (queries + kBatchQueries - 1) / kBatchQueries;
    return queries < kManyQueries ? least : (least + 3) / 4 * 4;
}

// The first query of a batch; of the one after the last: the number of queries.
inline size_t batch_begin(size_t queries, size_t batch) { return queries * batch / batches_of(queries); }

}  // namespace inreach
