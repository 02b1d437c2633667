// Kernels that race, most of them with the right answer in whatever order the executor runs them, and right
// twins: what it must notice where it looks for races (test_races.py). Of one block unless it says otherwise.
#pragma once

#include "mma.cuh"
#include "portable.cuh"

struct Words {
    u32 value[64];
};

// ------------------------------------------------------------------------- barriers of the block

// What others have still to read is overwritten.
INREACH_KERNEL(64)
overwrite_without_barrier(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = shared.value[63 - threadIdx.x];
    shared.value[threadIdx.x] = 0;
}

INREACH_KERNEL(64)
overwrite(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = shared.value[63 - threadIdx.x];
    __syncthreads();
    shared.value[threadIdx.x] = 0;
}

// Everybody writes the same.
INREACH_KERNEL(64)
one_value_by_all(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[0] = in[0];
    __syncthreads();
    out[threadIdx.x] = shared.value[0];
}

INREACH_KERNEL(64)
one_value_by_one(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    if (threadIdx.x == 33) shared.value[0] = in[0];
    __syncthreads();
    out[threadIdx.x] = shared.value[0];
}

// Through global memory, which a barrier orders as well.
INREACH_KERNEL(64)
global_without_barrier(const u32* in, u32* out) {
    out[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x + 64] = out[threadIdx.x ^ 32];
}

INREACH_KERNEL(64)
global_with_barrier(const u32* in, u32* out) {
    out[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x + 64] = out[threadIdx.x ^ 32];
}

// ------------------------------------------------------------------------- barriers of the warp

// All lanes meet, and nothing orders their memory.
INREACH_KERNEL(64)
shuffle_for_a_barrier(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    const u32 zero = __shfl_xor_sync(kFullMask, 0u, 1);
    out[threadIdx.x] = shared.value[threadIdx.x ^ 1] + zero;
}

INREACH_KERNEL(64)
vote_for_a_barrier(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    const u32 zero = __ballot_sync(kFullMask, 0);
    out[threadIdx.x] = shared.value[threadIdx.x ^ 1] + zero;
}

INREACH_KERNEL(64)
matrix_instruction_for_a_barrier(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    const u32 a[4] = {}, b[2] = {};
    float c0 = 0.0f, c1 = 0.0f, c2 = 0.0f, c3 = 0.0f;
    matrix_multiply_add(Tf32(), c0, c1, c2, c3, a, b);
    out[threadIdx.x] = shared.value[threadIdx.x ^ 1] + static_cast<u32>(c0);
}

INREACH_KERNEL(64)
barrier_of_the_warp(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    out[threadIdx.x] = shared.value[threadIdx.x ^ 1];
}

// Right for lanes of one warp.
INREACH_KERNEL(64)
barrier_of_the_warp_for_the_block(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    out[threadIdx.x] = shared.value[threadIdx.x ^ 32];
}

// Who writes is ordered with the readers of its own warp, and not with those of the other one.
INREACH_KERNEL(64)
readers_in_two_warps(u32* values, u32* out) {
    out[threadIdx.x] = values[0];
    __syncwarp();
    if (threadIdx.x == 0) values[0] = 1;
}

INREACH_KERNEL(64)
readers_in_one_warp(u32* values, u32* out) {
    out[threadIdx.x] = values[threadIdx.x / 32];
    __syncwarp();
    if (threadIdx.x % 32 == 5) values[threadIdx.x / 32] = 1;
}

// Races are looked for with barriers of whole warps only; an executor that does not look takes it.
INREACH_KERNEL(64)
barrier_of_half_a_warp(const u32* in, u32* out) {
    if (threadIdx.x % 32 < 16) __syncwarp(0x0000ffffu);
    out[threadIdx.x] = in[threadIdx.x];
}

// ------------------------------------------------------------------------------------- two blocks

INREACH_KERNEL(64)
one_word_of_two_blocks(const u32* in, u32* out) {
    if (threadIdx.x == 7) out[0] = in[0];
}

// What a block does before its barriers is no more ordered with another's.
INREACH_KERNEL(64)
word_of_another_block(const u32* in, u32* out) {
    out[blockIdx.x * 64 + threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    const u32 zero = out[(blockIdx.x ^ 1u) * 64 + threadIdx.x] == 12345u ? 1u : 0u;
    __syncthreads();
    if (zero) out[blockIdx.x * 64 + threadIdx.x] = 1;
}

// Between the two that race comes a block that does not.
INREACH_KERNEL(64)
word_of_three_blocks(u32* values, u32* out) {
    if (threadIdx.x != 7) return;
    if (blockIdx.x == 0) out[0] = values[0];
    if (blockIdx.x == 1) out[1] = *static_cast<volatile u32*>(values);
    if (blockIdx.x == 2) atomicAdd(values, 1u);
}

// No race, and none with another block of the next launch.
INREACH_KERNEL(64)
word_of_one_block(const u32* which, u32* out) {
    if (threadIdx.x == 7 && blockIdx.x == which[0]) out[0] = 1;
}

// Of one word each block has a byte; shared memory is each block's own.
INREACH_KERNEL(64)
neighbours_of_two_blocks(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    shared.value[threadIdx.x] = in[threadIdx.x];
    unsigned char* const bytes = reinterpret_cast<unsigned char*>(out);
    bytes[threadIdx.x * 2 + blockIdx.x] = static_cast<unsigned char>(shared.value[threadIdx.x]);
}

// -------------------------------------------------------------------------- atomics and volatile

INREACH_KERNEL(64)
read_beside_an_atomic(u32* values, u32* out) {
    if (threadIdx.x == 0) atomicAdd(values, 0u);
    if (threadIdx.x == 40) out[0] = values[0];
}

INREACH_KERNEL(64)
write_beside_an_atomic(u32* values, u32* out) {
    if (threadIdx.x == 0) atomicMin(values, 1u);
    if (threadIdx.x == 40) values[0] = 0;
    out[threadIdx.x] = 0;
}

INREACH_KERNEL(64)
volatile_beside_an_atomic(u32* values, u32* out) {
    if (*static_cast<volatile u32*>(values) < 100u) atomicMax(values, threadIdx.x);
    out[threadIdx.x + 64 * blockIdx.x] = *static_cast<volatile u32*>(values);
}

INREACH_KERNEL(64)
volatile_beside_a_write(u32* values, u32* out) {
    if (threadIdx.x == 40) values[0] = 0;
    if (threadIdx.x == 0) out[0] = *static_cast<volatile u32*>(values);
}

// The read that follows a barrier is a plain one.
INREACH_KERNEL(64)
atomic_and_barrier(const u32* in, u32* out) {
    INREACH_SHARED(Words, shared);
    if (threadIdx.x == 0) shared.value[0] = 0;
    __syncthreads();
    atomicMax(&shared.value[0], in[threadIdx.x]);
    __syncthreads();
    out[threadIdx.x] = shared.value[0];
}

// ---------------------------------------------------------------------------------- wide accesses

// Sixteen bytes at once, of which another thread has the last four.
INREACH_KERNEL(64)
part_of_sixteen_bytes(u32* values, u32* out) {
    if (threadIdx.x == 0) *reinterpret_cast<uint4*>(values) = make_uint4(0, 1, 2, 3);
    if (threadIdx.x == 40) out[0] = values[3];
}

INREACH_KERNEL(64)
beside_sixteen_bytes(u32* values, u32* out) {
    if (threadIdx.x == 0) *reinterpret_cast<uint4*>(values) = make_uint4(0, 1, 2, 3);
    if (threadIdx.x == 40) out[0] = values[4];
}

// A structure that the compiler copies whole.
struct Seven {
    u32 value[7];
};

INREACH_KERNEL(64)
part_of_a_structure(Seven* values, u32* out) {
    if (threadIdx.x == 0) values[0] = values[1];
    if (threadIdx.x == 40) out[0] = values[0].value[6];
}
