// 16 bytes from global to shared memory, on their way while the thread goes on (from compute capability 8.0;
// before it, and in the host executor, they are there at once).
#pragma once

#include "portable.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

INREACH_DEVICE void copy_16_bytes(void* shared, const void* global) {
    const u32 target = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(global) : "memory");
}

// The calling thread's copies have arrived; __syncthreads makes those of all threads visible.
INREACH_DEVICE void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

INREACH_DEVICE void copy_16_bytes(void* shared, const void* global) {
    *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
}

INREACH_DEVICE void copies_done() {}

#endif
