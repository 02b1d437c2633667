// Candidates to answers for k = 1, one direction or both. No winner depends on who comes first: the least
// distance is found by atomicMin on the bits of non-negative float64 numbers, then the lowest row among those
// that have it.
#pragma once

#include "distance.cuh"
#include "tile.cuh"

const int kDecideThreads = 256;

INREACH_DEVICE u32 held_candidates(const u32* count, u32 capacity) {
    return *count < capacity ? *count : capacity;
}

// Squared distance of every candidate that the reaches as they are now do not rule out, else ~0; grid-stride.
// row_base: number of the bank row that `first` stands for. Where `best` is given it is lowered, `row_best`
// (by row - row_base) as well. `decided` counts.
INREACH_KERNEL(kDecideThreads)
decide(const float* q_rows, const i64* q_index, i64 q_first, const float* x_rows, const i64* x_index,
       i64 x_first, u32 row_base, int dim, const u32* candidate_query, const u32* candidate_row,
       const float* candidate_low, const u32* candidate_count, u32 capacity, float stretch, float floor,
       const u32* q_reach, const u32* x_reach, u64* candidate_sq, u64* best, u64* row_best, u64* decided) {
    const u32 count = held_candidates(candidate_count, capacity);
    TileTask task = {};
    task.stretch = stretch;
    task.floor = floor;
    const u32 step = gridDim.x * (kDecideThreads / 16);
    // Both halves of a warp go round equally often: shuffles want all lanes.
    for (u32 start = blockIdx.x * (kDecideThreads / 16) + threadIdx.x / 32 * 2; start < count;
         start += step) {
        const u32 at = start + threadIdx.x % 32 / 16;
        const float *a = q_rows, *b = x_rows;
        u32 query = 0, row = 0;
        bool wanted = at < count;
        if (wanted) {
            query = candidate_query[at];
            row = candidate_row[at] - row_base;
            const float low = candidate_low[at];
            wanted =
                low <= limit_of(q_reach[query], task) || (x_reach && low <= limit_of(x_reach[row], task));
            a = q_rows + picked(q_index, q_first + query) * dim;
            b = x_rows + picked(x_index, x_first + row) * dim;
        }
        const double sq = half_warp_sq_distance(a, b, wanted ? dim : 0);
        if (at >= count || threadIdx.x % 16 != 0) continue;
        candidate_sq[at] = wanted ? double_bits(sq) : kNone;
        if (!wanted) continue;
        atomicAdd(decided, 1ull);
        if (best) atomicMin(best + query, double_bits(sq));
        if (row_best) atomicMin(row_best + row, double_bits(sq));
    }
}

// After `decide`: where a query's best has been beaten since the last time, its row is forgotten; and the
// best lowers the reach. One thread a query.
INREACH_KERNEL(256)
advance(const u64* best, u64* seen, u64* nearest, u32* reach, double sq_scale, int count) {
    const i64 i = global_thread();
    if (i >= count || best[i] == kNone) return;
    if (best[i] < seen[i]) {
        seen[i] = best[i];
        nearest[i] = kNone;
    }
    // Slack of the decision (docs/search.md, section 1): stretch has it as well.
    const u32 bits = __float_as_uint(__double2float_ru(bits_double(best[i]) * sq_scale));
    if (bits < reach[i]) reach[i] = bits;
}

// The lowest row among the candidates at a query's least distance; grid-stride. by_row: the other direction.
INREACH_KERNEL(256)
pick(const u32* candidate_query, const u32* candidate_row, const u64* candidate_sq,
     const u32* candidate_count, u32 capacity, u32 row_base, u32 query_base, int by_row, const u64* best,
     u64* nearest) {
    const u32 count = held_candidates(candidate_count, capacity);
    for (u32 at = static_cast<u32>(global_thread()); at < count; at += static_cast<u32>(thread_count())) {
        const u32 row = candidate_row[at], query = candidate_query[at];
        const u32 owner = by_row ? row - row_base : query;
        const u64 sq = candidate_sq[at];
        if (sq != kNone && sq == best[owner])
            atomicMin(nearest + owner, static_cast<u64>(by_row ? query_base + query : row));
    }
}

// Best and row to what callers get: row (-1 for none) and distance rounded to float32 (infinity for none).
INREACH_KERNEL(256)
finish(const u64* best, const u64* nearest, i64 count, i64* index, float* sq_distance) {
    const i64 i = global_thread();
    if (i >= count) return;
    index[i] = nearest[i] == kNone ? -1 : static_cast<i64>(nearest[i]);
    sq_distance[i] =
        nearest[i] == kNone ? __uint_as_float(kInfinity) : __double2float_rn(bits_double(best[i]));
}

// ----------------------------------------------------------------------------------- guesses, the way back

// A caller's guess at each query's nearest row becomes a candidate, decided whatever the reach; guesses at
// rows that are not among `rows` from `base` on, or that the query must not meet, are passed over.
INREACH_KERNEL(256)
guess(const i64* hint, const i64* q_group, const i64* x_group, u32 base, int rows, int count,
      u32* candidate_query, u32* candidate_row, float* candidate_low, u32* candidate_count, u32 capacity) {
    const i64 i = global_thread();
    if (i >= count) return;
    const i64 row = hint[i] - static_cast<i64>(base);
    if (row < 0 || row >= rows) return;
    if (q_group && x_group && q_group[i] == x_group[row]) return;
    const u32 at = atomicAdd(candidate_count, 1u);
    if (at >= capacity) return;
    candidate_query[at] = static_cast<u32>(i);
    candidate_row[at] = base + static_cast<u32>(row);
    candidate_low[at] = -__uint_as_float(kInfinity);
}

// The other way of `nearest`: the row that each query has found is about to look among the queries, of which
// it knows one at a distance that is known. `row` is where that row lies (of a query that found none, any
// row, with a reach of zero: nobody asks for its answer).
INREACH_KERNEL(256)
ask_back(const u64* best, const u64* nearest, const i64* x_index, i64 x_first, int count, i64* row,
         u64* back_best, u64* back_seen, u64* back_nearest) {
    const i64 i = global_thread();
    if (i >= count) return;
    const bool found = nearest[i] != kNone;
    row[i] = picked(x_index, x_first + (found ? static_cast<i64>(nearest[i]) : 0));
    back_best[i] = back_seen[i] = found ? best[i] : 0;
    back_nearest[i] = static_cast<u64>(i);
}

// Whether the row that a query found has found that query.
INREACH_KERNEL(256)
answered(const u64* nearest, const u64* back_nearest, int count, unsigned char* answer) {
    const i64 i = global_thread();
    if (i < count) answer[i] = nearest[i] != kNone && back_nearest[i] == static_cast<u64>(i);
}

// ------------------------------------------------------------------------------------- by leading directions

// One candidate a query: the row of its least bound. A `low` of -infinity: it is decided whatever the reach.
INREACH_KERNEL(256)
seed(const u64* argmin, int count, u32* candidate_query, u32* candidate_row, float* candidate_low,
     u32* candidate_count, u32 capacity) {
    const i64 i = global_thread();
    if (i >= count || argmin[i] == kNone) return;
    const u32 at = atomicAdd(candidate_count, 1u);
    if (at >= capacity) return;
    candidate_query[at] = static_cast<u32>(i);
    candidate_row[at] = static_cast<u32>(argmin[i]);
    candidate_low[at] = -__uint_as_float(kInfinity);
}

// Candidates found in leading directions, bounded once more in all of them: a warp a pair, grid-stride. `low`
// becomes the new bound, in the sense of this frame's stretch and floor, or infinity where the first one
// rules the pair out by now. FILTER: the sum is a chain of depth / 32 + 5 additions at most.
template <class Format>
INREACH_DEVICE void refine_candidates(const Side<typename Format::type>& q,
                                      const Side<typename Format::type>& x, int depth, const TileTask& task,
                                      float head_stretch, float head_floor, u64* refined) {
    TileTask head = task;
    head.stretch = head_stretch;
    head.floor = head_floor;
    const u32 count = held_candidates(task.candidate_count, task.capacity);
    const u32 step = gridDim.x * (kDecideThreads / 32);
    for (u32 at = blockIdx.x * (kDecideThreads / 32) + threadIdx.x / 32; at < count; at += step) {
        const u32 query = task.candidate_query[at], row = task.candidate_row[at] - task.base;
        const u32 reach = *static_cast<volatile u32*>(q.reach + query);
        const bool out = !(task.candidate_low[at] <= limit_of(reach, head));
        __syncwarp();  // all lanes have read what lane 0 may write below
        // Lanes of a warp may have read different reaches; one decides for all.
        if (__shfl_sync(kFullMask, static_cast<int>(out), 0)) {
            if (threadIdx.x % 32 == 0) task.candidate_low[at] = __uint_as_float(kInfinity);
            continue;
        }
        const typename Format::type* const a = q.rows + static_cast<i64>(query) * depth;
        const typename Format::type* const b = x.rows + static_cast<i64>(row) * depth;
        float dot = 0.0f;
        for (int d = threadIdx.x % 32; d < depth; d += 32)
            dot = __fmaf_rn(Format::load(a[d]), Format::load(b[d]), dot);
        for (int half = 16; half > 0; half >>= 1) dot += __shfl_xor_sync(kFullMask, dot, half);
        if (threadIdx.x % 32 != 0) continue;
        const float low = __fmaf_rn(-2.0f, dot, __fadd_rn(q.low[query], x.low[row]));
        task.candidate_low[at] = low;
        atomicAdd(refined, 1ull);
        const float upper = upper_of(low, q.extra[query], x.extra[row], task);
        if (upper < __uint_as_float(kInfinity)) lowered(q.reach + query, __float_as_uint(upper));
    }
}

#define INREACH_REFINE(name, Format)                                                                       \
    INREACH_KERNEL(kDecideThreads)                                                                         \
    name(const Format::type* q_rows, const float* q_low, const float* q_extra, const Format::type* x_rows, \
         const float* x_low, const float* x_extra, int depth, float stretch, float floor,                  \
         float head_stretch, float head_floor, u32 base, u32* q_reach, u32* candidate_query,               \
         u32* candidate_row, float* candidate_low, u32* candidate_count, u32 capacity, u64* refined) {     \
        const Side<Format::type> q = {q_rows, q_low, q_extra, 0, 0, q_reach};                              \
        const Side<Format::type> x = {x_rows, x_low, x_extra, 0, 0, 0};                                    \
        const TileTask task = {kTaskNearest,                                                               \
                               stretch,                                                                    \
                               floor,                                                                      \
                               base,                                                                       \
                               candidate_query,                                                            \
                               candidate_row,                                                              \
                               candidate_low,                                                              \
                               candidate_count,                                                            \
                               capacity,                                                                   \
                               0,                                                                          \
                               0,                                                                          \
                               0};                                                                         \
        refine_candidates<Format>(q, x, depth, task, head_stretch, head_floor, refined);                   \
    }

INREACH_REFINE(refine_f32, Float32)
INREACH_REFINE(refine_fp16, Fp16)
INREACH_REFINE(refine_bf16, Bf16)
INREACH_REFINE(refine_tf32, Tf32)
