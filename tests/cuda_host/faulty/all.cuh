// Kernels with one fault each, and their right twins: what the executor must notice (test_executor.py).
#include "portable.cuh"
#include "racy.cuh"

struct Line {
    float value[64];
};

// Each thread reads what another one wrote, with no barrier in between.
INREACH_KERNEL(64)
reverse_without_barrier(const float* in, float* out) {
    INREACH_SHARED(Line, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = shared.value[63 - threadIdx.x];
}

INREACH_KERNEL(64)
reverse(const float* in, float* out) {
    INREACH_SHARED(Line, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = shared.value[63 - threadIdx.x];
}

// Right in the order in which threads are written down, wrong in the opposite one.
INREACH_KERNEL(64)
prefix_by_luck(const float* in, float* out) {
    INREACH_SHARED(Line, shared);
    const float before = threadIdx.x ? shared.value[threadIdx.x - 1] : 0.0f;
    shared.value[threadIdx.x] = before + in[threadIdx.x];
    out[threadIdx.x] = shared.value[threadIdx.x];
}

// Blocks that rely on one another's order.
INREACH_KERNEL(32)
last_block_wins(int* out) {
    if (threadIdx.x == 0) out[0] = static_cast<int>(blockIdx.x);
}

INREACH_KERNEL(64)
barrier_for_half_of_the_block(float* out) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1.0f;
}

INREACH_KERNEL(64)
barriers_at_two_places(float* out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}

INREACH_KERNEL(32)
mask_of_absent_lanes(float* out) {
    float value = 1.0f;
    if (threadIdx.x < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);
    out[threadIdx.x] = value;
}

INREACH_KERNEL(32)
mask_without_oneself(float* out) { out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1); }

INREACH_KERNEL(32)
shuffle_from_outside_the_mask(float* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0x0000ffffu, 1.0f, 8);
}

// One past the end (`shift` 1), one before the beginning (-1).
INREACH_KERNEL(32)
shifted_read(const float* in, int shift, float* out) {
    out[threadIdx.x] = in[static_cast<int>(threadIdx.x) + shift];
}

INREACH_KERNEL(32)
shifted_write(float* out, int shift) { out[static_cast<int>(threadIdx.x) + shift] = 1.0f; }

// Inside of the block's memory, outside of the array.
struct TwoLines {
    float first[32], second[32];
};

INREACH_KERNEL(32)
past_an_array(const int* where, float* out) {
    INREACH_SHARED(TwoLines, shared);
    shared.first[threadIdx.x] = shared.second[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = shared.first[where[0]];
}

INREACH_KERNEL(32)
past_shared_memory(float* out) {
    INREACH_SHARED(Line, shared);
    const float* const all = &shared.value[0];
    out[threadIdx.x] = *(all + 64 + threadIdx.x);
}

INREACH_KERNEL(32)
never_written(float* out) {
    INREACH_SHARED(Line, shared);
    out[threadIdx.x] = shared.value[threadIdx.x];
}

INREACH_KERNEL(32)
misaligned(const float* in, float* out) { out[threadIdx.x] = reinterpret_cast<const float4*>(in + 1)->x; }

INREACH_KERNEL(32)
shift_too_far(int by, u32* out) { out[threadIdx.x] = 1u << by; }

// What is right and must stay so.
INREACH_KERNEL(64)
warp_operations(u32* ballot, int* sum, int* from_first) {
    const u32 all = __ballot_sync(kFullMask, threadIdx.x % 3 == 0);
    int own = static_cast<int>(threadIdx.x);
    const int first = __shfl_sync(kFullMask, own, 0);
    for (int step = 16; step > 0; step >>= 1) own += __shfl_xor_sync(kFullMask, own, step);
    ballot[threadIdx.x] = all;
    sum[threadIdx.x] = own;
    from_first[threadIdx.x] = first;
}

INREACH_KERNEL(64)
half_a_warp(int* out) {
    int own = static_cast<int>(threadIdx.x);
    if (threadIdx.x % 32 < 16) own += __shfl_xor_sync(0x0000ffffu, own, 1);
    __syncwarp();
    out[threadIdx.x] = own;
}

INREACH_KERNEL(64)
atomics(u64* least, u32* count) {
    atomicMin(least, static_cast<u64>(1000 - threadIdx.x) << 32);
    atomicAdd(count, 1u);
}
