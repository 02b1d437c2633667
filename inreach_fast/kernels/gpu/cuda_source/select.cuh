// Candidates to answers for k > 1. The k-th least of many upper bounds gives a reach before anything is
// decided; what passes is decided, gathered query by query, and every candidate counts how many of its
// query's come before it: its rank is its place. Nothing depends on the order in which candidates were
// collected.
#pragma once

#include "decide.cuh"

const int kSelectThreads = 256;

// reach[q] = min(reach[q], the k-th least of values[q * width ...]); a warp a query. Bit by bit from above:
// how many values have the prefix so far, or less?
INREACH_KERNEL(kSelectThreads)
kth_least(const u32* values, int width, int k, int count, u32* reach) {
    const i64 q = global_thread() / 32;
    if (q >= count || width < k) return;  // whole warps
    const u32* const own = values + q * width;
    u32 found = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const u32 most = found | ((1u << bit) - 1u);
        int below = 0;
        for (int i = threadIdx.x % 32; i < width; i += 32) below += own[i] <= most ? 1 : 0;
        for (int step = 16; step > 0; step >>= 1) below += __shfl_xor_sync(kFullMask, below, step);
        if (below < k) found |= 1u << bit;
    }
    if (threadIdx.x % 32 == 0 && found < reach[q]) reach[q] = found;
}

// The k best so far (rows ~0 for none) join the candidates, decided as they are; a thread each of count * k.
INREACH_KERNEL(256)
carry(const u64* best, const u64* nearest, i64 count, int k, u32* candidate_query, u32* candidate_row,
      u64* candidate_sq, u32* candidate_count, u32 capacity) {
    const i64 i = global_thread();
    if (i >= count * k || nearest[i] == kNone) return;
    const u32 at = atomicAdd(candidate_count, 1u);
    if (at >= capacity) return;
    candidate_query[at] = static_cast<u32>(i / k);
    candidate_row[at] = static_cast<u32>(nearest[i]);
    candidate_sq[at] = best[i];
}

// How many decided candidates each query has; lengths start at 0. Grid-stride.
INREACH_KERNEL(256)
segment_lengths(const u32* candidate_query, const u64* candidate_sq, const u32* candidate_count, u32 capacity,
                u32* length) {
    const u32 count = held_candidates(candidate_count, capacity);
    for (u32 at = static_cast<u32>(global_thread()); at < count; at += static_cast<u32>(thread_count()))
        if (candidate_sq[at] != kNone) atomicAdd(length + candidate_query[at], 1u);
}

const int kScanThreads = 256;

struct ScanShared {
    u32 sum[kScanThreads];
};

// begin[i] = length[0] + ... + length[i - 1] for i = 0 .. count, and filled[i] = 0; one block.
INREACH_KERNEL(kScanThreads)
segment_begins(const u32* length, int count, u32* begin, u32* filled) {
    INREACH_SHARED(ScanShared, shared);
    u32 before = 0;
    for (int first = 0; first < count; first += kScanThreads) {
        const int i = first + static_cast<int>(threadIdx.x);
        const u32 own = i < count ? length[i] : 0;
        shared.sum[threadIdx.x] = own;
        __syncthreads();
        for (int step = 1; step < kScanThreads; step *= 2) {
            const u32 left = threadIdx.x >= static_cast<u32>(step) ? shared.sum[threadIdx.x - step] : 0;
            __syncthreads();
            shared.sum[threadIdx.x] += left;
            __syncthreads();
        }
        if (i < count) {
            begin[i] = before + shared.sum[threadIdx.x] - own;
            filled[i] = 0;
        }
        before += shared.sum[kScanThreads - 1];
        __syncthreads();
    }
    if (threadIdx.x == 0) begin[count] = before;
}

// Candidate numbers, gathered by query; their order within a query does not matter. Grid-stride.
INREACH_KERNEL(256)
segment_fill(const u32* candidate_query, const u64* candidate_sq, const u32* candidate_count, u32 capacity,
             const u32* begin, u32* filled, u32* member) {
    const u32 count = held_candidates(candidate_count, capacity);
    for (u32 at = static_cast<u32>(global_thread()); at < count; at += static_cast<u32>(thread_count()))
        if (candidate_sq[at] != kNone) {
            const u32 query = candidate_query[at];
            member[begin[query] + atomicAdd(filled + query, 1u)] = at;
        }
}

// A candidate that fewer than k of its query come before goes to its place; `best` and `nearest` (count x k)
// start as ~0. Grid-stride over the members.
INREACH_KERNEL(256)
rank(const u32* candidate_query, const u32* candidate_row, const u64* candidate_sq, const u32* begin,
     int count, int k, const u32* member, u64* best, u64* nearest) {
    for (i64 m = global_thread(); m < begin[count]; m += thread_count()) {
        const u32 at = member[m], query = candidate_query[at], row = candidate_row[at];
        const u64 sq = candidate_sq[at];
        int place = 0;
        for (u32 i = begin[query]; i < begin[query + 1] && place < k; ++i) {
            const u64 other = candidate_sq[member[i]];
            place += other < sq || (other == sq && candidate_row[member[i]] < row) ? 1 : 0;
        }
        if (place >= k) continue;
        best[static_cast<i64>(query) * k + place] = sq;
        nearest[static_cast<i64>(query) * k + place] = row;
    }
}

// The k-th best lowers the reach; a thread a query.
INREACH_KERNEL(256)
advance_kth(const u64* best, int count, int k, double sq_scale, u32* reach) {
    const i64 i = global_thread();
    if (i >= count || best[i * k + k - 1] == kNone) return;
    const u32 bits = __float_as_uint(__double2float_ru(bits_double(best[i * k + k - 1]) * sq_scale));
    if (bits < reach[i]) reach[i] = bits;
}
