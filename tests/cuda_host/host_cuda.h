// CUDA as the kernels of csrc/cuda/kernels see it, for a plain C++ compiler: included before them.
//
// A thread of a block is a fibre (executor.cpp). Where threads meet (__syncthreads, the *_sync operations) a
// fibre pauses until exactly those have arrived that must; where it did so, by line, has to agree.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace host {

struct Index3 {
    unsigned x, y, z;
};

// What the running fibre may ask about itself.
struct Place {
    Index3 thread, block, grid_size, block_size;
};
extern Place* place;

// Memory of the block, filled with NaN, its end at the edge of a page that nobody may touch.
void* shared_memory(size_t bytes, size_t alignment);

template <class T>
T& shared() {
    return *static_cast<T*>(shared_memory(sizeof(T), alignof(T)));
}

void meet_block(int line);
// Leaves `size` bytes (64 at most) with the lanes of `mask`; returns those of all 32 lanes, 64 bytes apart,
// after `together`, where it is given, has been called with them once. With nothing to leave it is a memory
// barrier.
const unsigned char* meet_warp(unsigned mask, const void* own, size_t size, int line,
                               void (*together)(void* all) = nullptr);
constexpr size_t kSlot = 64;

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

template <class To, class From>
inline To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

}  // namespace host

#define __device__
#define __global__
#define __launch_bounds__(...)
#define INREACH_DEVICE static inline
#define INREACH_SHARED(type, name) type& name = host::shared<type>()
#define threadIdx (host::place->thread)
#define blockIdx (host::place->block)
#define gridDim (host::place->grid_size)
#define blockDim (host::place->block_size)

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ----------------------------------------------------------------------------------------------- arithmetic

inline unsigned __float_as_uint(float value) { return host::same_bits<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return host::same_bits<float>(value); }
inline long long __double_as_longlong(double value) { return host::same_bits<long long>(value); }
inline double __longlong_as_double(long long value) { return host::same_bits<double>(value); }
inline unsigned __float2uint_rn(float value) { return static_cast<unsigned>(std::nearbyintf(value)); }
inline float __double2float_rn(double value) { return static_cast<float>(value); }
inline float __double2float_rd(double value) {
    const float near = static_cast<float>(value);
    return static_cast<double>(near) > value ? std::nextafterf(near, -HUGE_VALF) : near;
}
inline float __double2float_ru(double value) {
    const float near = static_cast<float>(value);
    return static_cast<double>(near) < value ? std::nextafterf(near, HUGE_VALF) : near;
}
// -ffp-contract=off: none of these is fused with another.
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
// Fused or not: the filters that use it allow for both, and a call of the library for each would take
// minutes.
inline float __fmaf_rn(float a, float b, float c) { return a * b + c; }

// ------------------------------------------------------------------------------------------------- meetings

inline void __syncthreads(int line = __builtin_LINE()) { host::meet_block(line); }

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    host::meet_warp(mask, nullptr, 0, line);
}

namespace host {
template <class T>
inline T from_lane(const unsigned char* slots, unsigned lane) {
    T value;
    std::memcpy(&value, slots + lane * kSlot, sizeof value);
    return value;
}
inline unsigned lane() { return threadIdx.x % 32; }
// A lane that did not take part has nothing to give.
inline unsigned source(unsigned mask, unsigned from) {
    if (!(mask >> from & 1u))
        fail("lane %u reads from lane %u, which is not in the mask %08x", lane(), from, mask);
    return from;
}
}  // namespace host

template <class T>
inline T __shfl_sync(unsigned mask, T value, int from, int width = 32, int line = __builtin_LINE()) {
    const unsigned char* const all = host::meet_warp(mask, &value, sizeof value, line);
    const unsigned base = host::lane() / width * width;
    return host::from_lane<T>(all, host::source(mask, base + static_cast<unsigned>(from) % width));
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int step, int width = 32, int line = __builtin_LINE()) {
    const unsigned char* const all = host::meet_warp(mask, &value, sizeof value, line);
    const unsigned from = host::lane() ^ static_cast<unsigned>(step);
    return from / width == host::lane() / width ? host::from_lane<T>(all, host::source(mask, from)) : value;
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32,
                          int line = __builtin_LINE()) {
    const unsigned char* const all = host::meet_warp(mask, &value, sizeof value, line);
    const unsigned from = host::lane() + step;
    return from / width == host::lane() / width ? host::from_lane<T>(all, host::source(mask, from)) : value;
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    const unsigned char own = predicate != 0;
    const unsigned char* const all = host::meet_warp(mask, &own, 1, line);
    unsigned bits = 0;
    for (unsigned i = 0; i < 32; ++i)
        if (mask >> i & 1u) bits |= static_cast<unsigned>(all[i * host::kSlot]) << i;
    return bits;
}

// What `work` makes of all lanes' values, in their order and at once: this lane's. For the matrix
// instruction.
template <class T, void (*work)(T*)>
inline T host_together(const T& own, int line = __builtin_LINE()) {
    static_assert(sizeof(T) == host::kSlot, "one lane's value after the other");
    const auto together = [](void* all) { work(static_cast<T*>(all)); };
    return host::from_lane<T>(host::meet_warp(0xffffffffu, &own, sizeof own, line, together), host::lane());
}

// -------------------------------------------------------------------------------------------------- atomics

namespace host {
#ifdef INREACH_RACES
void changed_atomically(const void* at, size_t size);
// What an atomic operation itself reads and writes are no accesses of the kernel's.
#define INREACH_ATOMIC __attribute__((no_sanitize("thread"))) inline
#else
inline void changed_atomically(const void*, size_t) {}
#define INREACH_ATOMIC inline
#endif

template <class T>
INREACH_ATOMIC T exchange(T* at, T value) {
    if (reinterpret_cast<uintptr_t>(at) % sizeof(T))
        fail("an atomic operation on an address that is not aligned");
    changed_atomically(at, sizeof(T));
    const T before = *at;
    *at = value;
    return before;
}
}  // namespace host

template <class T>
INREACH_ATOMIC T atomicAdd(T* at, T value) {
    return host::exchange(at, static_cast<T>(*at + value));
}
template <class T>
INREACH_ATOMIC T atomicMin(T* at, T value) {
    return host::exchange(at, *at < value ? *at : value);
}
template <class T>
INREACH_ATOMIC T atomicMax(T* at, T value) {
    return host::exchange(at, *at > value ? *at : value);
}
