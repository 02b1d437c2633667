// What is done with a tile of computed products, whichever unit computed them: bounds, limits, candidates.
//
// A thread holds kRows x kColumns products in registers. Minima of a row are first taken among the lanes that
// hold it, then in shared memory, then once in global memory; no matrix of m * n is ever written.
#pragma once

#include "portable.cuh"

// What a filter is launched for.
const int kTaskNearest = 0;  // lower the queries' reaches, collect candidates
const int kTaskMutual = 1;   // the same for both sides
const int kTaskCollect = 2;  // collect candidates under the reaches as they are
const int kTaskLeast = 3;    // write least upper bounds, for the k-th best of many
const int kTaskArgmin = 4;   // the row of the least `low` of each query, among rows that have bounds

// Any sum with the `low` of a row without bounds is below this (frame.cuh, no_bounds).
const float kNoBound = -1e29f;

template <class T>
struct Side {
    const T* rows;
    const float* low;
    const float* extra;
    const i64* group;
    int count;
    u32* reach;
};

struct TileTask {
    int task;
    float stretch, floor;
    u32 base;  // number of the bank piece's first row
    u32* candidate_query;
    u32* candidate_row;
    float* candidate_low;
    u32* candidate_count;
    u32 capacity;
    u64* argmin;
    u32* least;
    int least_width;
};

template <int kTileRows, int kTileColumns>
struct TileShared {
    float row_low[kTileRows], row_extra[kTileRows], row_limit[kTileRows];
    float column_low[kTileColumns], column_extra[kTileColumns], column_limit[kTileColumns];
    u32 row_least[kTileRows], column_least[kTileColumns];
    u64 row_argmin[kTileRows];
    i64 row_group[kTileRows], column_group[kTileColumns];
};

// The greatest `low` that may still matter (P1). stretch and floor are given rounded up, stretch with room
// for the two roundings here.
INREACH_DEVICE float limit_of(u32 reach, const TileTask& task) {
    return __fadd_rn(__fmul_rn(__uint_as_float(reach), task.stretch), task.floor);
}

// An upper bound on s^2 r (P2). Cancellation between `low` and `extra` is paid by the raised `extra`.
INREACH_DEVICE float upper_of(float low, float row_extra, float column_extra, const TileTask& task) {
    const float sum = low + row_extra + column_extra;
    return (sum > 0.0f ? sum : 0.0f) * task.stretch + task.floor;
}

template <class T>
INREACH_DEVICE bool same_group(const Side<T>& q, const Side<T>& x, i64 row_group, i64 column_group) {
    return q.group && x.group && row_group == column_group;
}

// Which row a thread fetches: one that is there. Its products are not looked at where it stands for an absent
// one.
INREACH_DEVICE int present(int row, int count) { return row < count ? row : count - 1; }

// Lower a reach; the one in force afterwards.
INREACH_DEVICE u32 lowered(u32* reach, u32 value) {
    const u32 before = *static_cast<volatile u32*>(reach);
    if (value >= before) return before;
    const u32 old = atomicMin(reach, value);
    return old < value ? old : value;
}

// `Place` tells which row and column of the tile a thread's registers are: row(i), column(j); kRowLanes
// adjacent lanes hold the same rows and strip() numbers the threads that do.
template <class Place, class T>
INREACH_DEVICE void finish_tile(TileShared<Place::kTileRows, Place::kTileColumns>& shared, const Place& place,
                                float (&value)[Place::kRows][Place::kColumns], const Side<T>& q,
                                const Side<T>& x, int q0, int x0, const TileTask& task) {
    const float infinity = __uint_as_float(kInfinity);
    for (int i = threadIdx.x; i < Place::kTileRows; i += Place::kThreads) {
        const bool there = q0 + i < q.count;
        shared.row_low[i] = there ? q.low[q0 + i] : infinity;
        shared.row_extra[i] = there && q.extra ? q.extra[q0 + i] : infinity;
        shared.row_group[i] = there && q.group ? q.group[q0 + i] : 0;
        shared.row_limit[i] =
            there && q.reach ? limit_of(*static_cast<volatile u32*>(q.reach + q0 + i), task) : infinity;
        shared.row_least[i] = kInfinity;
        shared.row_argmin[i] = kNone;
    }
    for (int j = threadIdx.x; j < Place::kTileColumns; j += Place::kThreads) {
        const bool there = x0 + j < x.count;
        shared.column_low[j] = there ? x.low[x0 + j] : infinity;
        shared.column_extra[j] = there && x.extra ? x.extra[x0 + j] : infinity;
        shared.column_group[j] = there && x.group ? x.group[x0 + j] : 0;
        shared.column_limit[j] = infinity;
        shared.column_least[j] = kInfinity;
    }
    __syncthreads();

    // Products to `low`; infinity for pairs that are not there or must not meet.
#pragma unroll
    for (int i = 0; i < Place::kRows; ++i)
#pragma unroll
        for (int j = 0; j < Place::kColumns; ++j) {
            const int row = place.row(i), column = place.column(j);
            const float low =
                __fmaf_rn(-2.0f, value[i][j], __fadd_rn(shared.row_low[row], shared.column_low[column]));
            value[i][j] =
                same_group(q, x, shared.row_group[row], shared.column_group[column]) ? infinity : low;
        }

    if (task.task == kTaskArgmin) {
#pragma unroll
        for (int i = 0; i < Place::kRows; ++i) {
            u64 least = kNone;
#pragma unroll
            for (int j = 0; j < Place::kColumns; ++j) {
                const u64 packed = (static_cast<u64>(float_order(value[i][j])) << 32) |
                                   (task.base + static_cast<u32>(x0 + place.column(j)));
                if (value[i][j] < infinity && value[i][j] > kNoBound && packed < least) least = packed;
            }
            if (least != kNone) atomicMin(&shared.row_argmin[place.row(i)], least);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < Place::kTileRows; i += Place::kThreads)
            if (shared.row_argmin[i] != kNone) atomicMin(task.argmin + q0 + i, shared.row_argmin[i]);
        return;
    }

    if (task.task == kTaskLeast) {
#pragma unroll
        for (int i = 0; i < Place::kRows; ++i) {
            const int row = place.row(i);
            float least = infinity;
#pragma unroll
            for (int j = 0; j < Place::kColumns; ++j)
                if (value[i][j] < infinity) {
                    const float upper = upper_of(value[i][j], shared.row_extra[row],
                                                 shared.column_extra[place.column(j)], task);
                    least = upper < least ? upper : least;
                }
            if (q0 + row < q.count)
                task.least[static_cast<i64>(q0 + row) * task.least_width +
                           x0 / Place::kTileColumns * Place::kStrips + place.strip()] =
                    __float_as_uint(least);
        }
        return;
    }

    const bool mutual = task.task == kTaskMutual;
    if (task.task != kTaskCollect) {
#pragma unroll
        for (int i = 0; i < Place::kRows; ++i) {
            const int row = place.row(i);
            float least = infinity;
#pragma unroll
            for (int j = 0; j < Place::kColumns; ++j)
                if (value[i][j] < infinity) {
                    const float upper = upper_of(value[i][j], shared.row_extra[row],
                                                 shared.column_extra[place.column(j)], task);
                    least = upper < least ? upper : least;
                }
            for (int step = Place::kRowLanes / 2; step > 0; step >>= 1) {
                const float other = __shfl_xor_sync(kFullMask, least, step);
                least = other < least ? other : least;
            }
            if (threadIdx.x % Place::kRowLanes == 0 && least < infinity)
                atomicMin(&shared.row_least[row], __float_as_uint(least));
        }
        if (mutual)  // the same sums once more: to keep both minima at once would take registers that are not
                     // there
#pragma unroll
            for (int j = 0; j < Place::kColumns; ++j) {
                const int column = place.column(j);
                float least = infinity;
#pragma unroll
                for (int i = 0; i < Place::kRows; ++i)
                    if (value[i][j] < infinity) {
                        const float upper = upper_of(value[i][j], shared.row_extra[place.row(i)],
                                                     shared.column_extra[column], task);
                        least = upper < least ? upper : least;
                    }
                if (least < infinity) atomicMin(&shared.column_least[column], __float_as_uint(least));
            }
        __syncthreads();
        for (int i = threadIdx.x; i < Place::kTileRows; i += Place::kThreads)
            if (q0 + i < q.count)
                shared.row_limit[i] = limit_of(lowered(q.reach + q0 + i, shared.row_least[i]), task);
        if (mutual)
            for (int j = threadIdx.x; j < Place::kTileColumns; j += Place::kThreads)
                if (x0 + j < x.count)
                    shared.column_limit[j] =
                        limit_of(lowered(x.reach + x0 + j, shared.column_least[j]), task);
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < Place::kRows; ++i) {
        const int row = place.row(i);
        const float row_limit = shared.row_limit[row];
#pragma unroll
        for (int j = 0; j < Place::kColumns; ++j) {
            const int column = place.column(j);
            const float low = value[i][j];
            if (!(low < infinity)) continue;
            if (!(low <= row_limit || (mutual && low <= shared.column_limit[column]))) continue;
            const u32 at = atomicAdd(task.candidate_count, 1u);
            if (at < task.capacity) {
                task.candidate_query[at] = static_cast<u32>(q0 + row);
                task.candidate_row[at] = task.base + static_cast<u32>(x0 + column);
                task.candidate_low[at] = low;
            }
        }
    }
}

// A filter by the name of its tile, `name##_tile`, which has a Format, kThreads, Shared and run.
#define INREACH_FILTER(name)                                                                               \
    INREACH_TILE_KERNEL(name##_tile::kThreads)                                                             \
    name(const name##_tile::Format::type* q_rows, const float* q_low, const float* q_extra,                \
         const i64* q_group, int q_count, const name##_tile::Format::type* x_rows, const float* x_low,     \
         const float* x_extra, const i64* x_group, int x_count, int depth, float stretch, float floor,     \
         int task, u32 base, u32* q_reach, u32* x_reach, u32* candidate_query, u32* candidate_row,         \
         float* candidate_low, u32* candidate_count, u32 capacity, u64* argmin, u32* least,                \
         int least_width) {                                                                                \
        const Side<name##_tile::Format::type> q = {q_rows, q_low, q_extra, q_group, q_count, q_reach};     \
        const Side<name##_tile::Format::type> x = {x_rows, x_low, x_extra, x_group, x_count, x_reach};     \
        const TileTask wanted = {task,          stretch,       floor,           base,     candidate_query, \
                                 candidate_row, candidate_low, candidate_count, capacity, argmin,          \
                                 least,         least_width};                                              \
        INREACH_SHARED(name##_tile::Shared, shared);                                                       \
        name##_tile::run(shared, q, x, depth, wanted);                                                     \
    }
