#include "engine/query_batch.h"

#include <algorithm>
#include <cmath>

#include "engine/threads.h"

namespace inreach {
namespace {

// Coordinates of a query among the balls.
void head_of(const SearchContext& context, size_t query, float* out) {
    std::copy_n(context.projected.coordinates.data() + query * context.projected.rank, kBallDims, out);
    out[kBallDims] = context.projected.frames[query].ball_tail;
}

// Dot products of some heads with the branches of a block: branch b with head i at out[i * kBlockRows + b].
void branch_dots(const SearchContext& context, size_t block, const float* heads, size_t count, float* out) {
    for (size_t i = 0; i < count; i += kTileRows)
        context.table.dot_tile(context.index.branch_centres(block), kBallDepth, heads + i * kBallDepth,
                               kBallDepth, std::min<size_t>(kTileRows, count - i),
                               context.index.branch_starts(block), out + i * kBlockRows);
}

}  // namespace

QueryBatch::QueryBatch(const SearchContext& context, size_t k, const int64_t* hint, const uint32_t* queries,
                       size_t count)
    : context_(context),
      k_(k),
      queries_(queries),
      count_(count),
      stride_(kBatchQueries * kBlockRows),
      heads_(kBatchQueries * kBallDepth),
      dots_(context.index.branch_blocks() * stride_),
      answers_(count_ * k) {
    searches_.reserve(count_);
    for (size_t i = 0; i < count_; ++i) head_of(context, queries[i], heads_.data() + i * kBallDepth);
    for (size_t b = 0; b < context.index.branch_blocks(); ++b)
        branch_dots(context, b, heads_.data(), count_, dots_.data() + b * stride_);
    work_.balls += count_ * context.index.branches();
    int64_t previous = -1;
    for (size_t i = 0; i < count_; ++i) {
        const size_t query = queries[i];
        searches_.emplace_back(context, query, heads_.data() + i * kBallDepth, work_, answers(i));
        if (!usable(i)) {
            decide_all(i);
            continue;
        }
        QuerySearch& one = searches_.back();
        if (k == 1) {  // a row that is offered twice would fill two of several places
            if (hint != nullptr && hint[query] >= 0) one.offer(hint[query]);
            if (previous >= 0) one.offer(previous);
        }
        one.start(dots(i), stride_);
        const int64_t found = answers_[i * k].row;
        if (found != Answer::kNone) previous = found;
    }
}

// The branches, nearest to the mean of the queries first: reaches are small before far branches are looked
// at.
std::vector<uint32_t> QueryBatch::branches_by_distance() const {
    std::vector<BallGap> found(context_.index.branches());
    for (size_t b = 0; b < found.size(); ++b) {
        float sum = 0.0f;
        const float* const column = dots_.data() + b / kBlockRows * stride_ + b % kBlockRows;
        for (size_t i = 0; i < count_; ++i)
            if (usable(i)) sum -= column[i * kBlockRows];
        found[b] = {std::isnan(sum) ? 0.0f : sum, static_cast<uint32_t>(b)};
    }
    std::sort(found.begin(), found.end());
    std::vector<uint32_t> order(found.size());
    for (size_t b = 0; b < found.size(); ++b) order[b] = found[b].number;
    return order;
}

void QueryBatch::search() {
    AlignedArray<float> leaf_dots(kBatchQueries * kBlockRows);
    for (const uint32_t branch : branches_by_distance()) {
        stop_point();
        uint64_t wanted[kLeavesPerBranch] = {};
        for (size_t i = 0; i < count_; ++i)
            if (usable(i) && searches_[i].reaches_branch(dots(i), stride_, branch))
                searches_[i].want_leaves(branch, leaf_dots.data() + i * kBlockRows, uint64_t{1} << i, wanted);
        const size_t first = branch * kLeavesPerBranch;
        const size_t leaves = std::min(kLeavesPerBranch, context_.index.leaves() - first);
        for (size_t l = 0, next = 0; l < leaves; l = next) {
            for (next = l + 1; next < leaves && wanted[next] == 0;) ++next;
            if (wanted[l] != 0 && next < leaves) {
                fetch_ahead(context_.index.first_codes(first + next), kScanDims * kBlockRows);
                fetch_ahead(context_.index.first_tails(first + next), kBlockRows * sizeof(float));
                fetch_ahead(context_.index.first_halves(first + next), kBlockRows * sizeof(float));
            }
            for (uint64_t left = wanted[l]; left; left &= left - 1) {
                const auto i = static_cast<size_t>(__builtin_ctzll(left));
                searches_[i].visit(first + l, leaf_dots[i * kBlockRows + l]);
            }
        }
    }
    for (QuerySearch& one : searches_) one.finish();
}

void QueryBatch::bound(float* out_sq_lower) {
    std::vector<BallGap> heap;
    for (size_t i = 0; i < count_; ++i)
        out_sq_lower[queries_[i]] =
            usable(i) ? searches_[i].sq_lower(searches_[i].read_nearest(dots(i), stride_, heap))
                      : static_cast<float>(answers_[i].sq_distance);
}

void QueryBatch::write(int64_t* index, float* sq_distance) {
    for (size_t i = 0; i < count_; ++i)
        answers(i).write(index + queries_[i] * k_, sq_distance + queries_[i] * k_);
}

// For a query that cannot be bounded.
void QueryBatch::decide_all(size_t i) {
    constexpr size_t kRowsBetweenStops = 1024;
    const RowSet &queries = context_.queries, &bank = context_.bank;
    const size_t query = queries_[i];
    for (size_t j = 0; j < bank.count; ++j) {
        if (j % kRowsBetweenStops == 0) stop_point();
        if (context_.grouped && bank.group[j] == queries.group[query]) continue;
        const double sq_distance = context_.table.sq_distance(queries.row(query), bank.row(j), bank.dim);
        answers(i).offer({bank.value(sq_distance, j), static_cast<int64_t>(j)});
        ++work_.counts.decided;
    }
}

std::vector<uint32_t> order_along_tree(const SearchContext& context) {
    const size_t count = context.queries.count;
    std::vector<uint64_t> keys(count);  // nearest leaf, query
    parallel_for(batches_of(count), [&](size_t batch) {
        const size_t first = batch_begin(count, batch), some = batch_begin(count, batch + 1) - first;
        float heads[kBatchQueries * kBallDepth];
        AlignedArray<float> dots(kBatchQueries * kBlockRows);
        BallGap nearest[kBatchQueries];  // branches
        for (size_t i = 0; i < some; ++i) {
            head_of(context, first + i, heads + i * kBallDepth);
            nearest[i] = {std::numeric_limits<float>::infinity(), 0};
        }
        for (size_t block = 0; block < context.index.branch_blocks(); ++block) {
            branch_dots(context, block, heads, some, dots.data());
            const size_t here = std::min<size_t>(kBlockRows, context.index.branches() - block * kBlockRows);
            for (size_t i = 0; i < some; ++i)
                for (size_t b = 0; b < here; ++b) {
                    const BallGap one{-dots[i * kBlockRows + b],
                                      static_cast<uint32_t>(block * kBlockRows + b)};
                    if (one < nearest[i]) nearest[i] = one;
                }
        }
        for (size_t i = 0; i < some; ++i) {
            size_t leaf = 0;
            if (context.index.branches() > 0) {  // none where no row of the bank can be bounded
                const size_t branch = nearest[i].number;
                context.table.scan_block(context.index.leaf_centres(branch), kBallDepth,
                                         heads + i * kBallDepth, 0.0f, context.index.leaf_starts(branch),
                                         dots.data());
                leaf = branch * kLeavesPerBranch +
                       static_cast<size_t>(std::max_element(dots.data(), dots.data() + kBlockRows) -
                                           dots.data());
            }
            keys[first + i] = static_cast<uint64_t>(leaf) << 32 | (first + i);
        }
    });
    std::sort(keys.begin(), keys.end());
    std::vector<uint32_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>(keys[i]);
    return order;
}

}  // namespace inreach
