// Looks for races while the executor runs a kernel: two threads that touch one byte, at least one of them to
// write it, with nothing that orders the two. What orders: __syncthreads the threads of a block, __syncwarp
// those of a warp (of all its lanes: another mask is refused). Nothing else does: not shuffles, votes and
// matrix instructions, which are not memory barriers; and nothing orders two blocks of a launch.
//
// Atomic operations and accesses through `volatile` do not race with one another, but with all plain ones.
// Each access counts in the order in which the executor runs threads, and it does not matter which that is:
// what is not ordered is found in any.
//
// The kernels are compiled with GCC's -fsanitize=thread, so that every access calls one of the functions at
// the end of races.cpp; the library that usually defines those is not linked. Without INREACH_RACES there is
// no detector.
#pragma once

#include <cstddef>

#include "host_cuda.h"

namespace races {

#ifdef INREACH_RACES

// Memory that kernels may touch: a buffer, or the block's shared memory. Nothing else is looked at.
void add(const unsigned char* begin, size_t bytes, bool shared);
void remove(const unsigned char* begin);

// `kinds` has a letter an argument, 'p' for pointers: reports name buffers by them.
void begin_launch(const char* kinds, void** arguments, host::Index3 grid, host::Index3 block);
void begin_block(size_t number);
void shared_begins(const unsigned char* begin);

// Which thread the accesses that follow belong to.
void go_on(unsigned thread);

void order_block();
void order_warp(unsigned warp, unsigned mask);

#else

inline void add(const unsigned char*, size_t, bool) {}
inline void remove(const unsigned char*) {}
inline void begin_launch(const char*, void**, host::Index3, host::Index3) {}
inline void begin_block(size_t) {}
inline void shared_begins(const unsigned char*) {}
inline void go_on(unsigned) {}
inline void order_block() {}
inline void order_warp(unsigned, unsigned) {}

#endif

}  // namespace races
