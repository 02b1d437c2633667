// What every kernel stands on, and all that differs between nvcc, NVRTC and the host executor of the tests.
#pragma once

typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

#if defined(__CUDACC__)  // nvcc and NVRTC
#define INREACH_DEVICE static __device__ __forceinline__
// Shared memory of a block. The host executor places it before a guarded page and fills it with NaN.
#define INREACH_SHARED(type, name) __shared__ type name
#endif  // the host executor defines them in a file that it includes first

#define INREACH_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// For tiles. Without the second number the compiler holds blocks of 256 threads to fewer registers than their
// sums take.
#define INREACH_TILE_KERNEL(threads) \
    extern "C" __global__ void __launch_bounds__(threads, (threads) > 128 ? 1 : 4)

const u32 kFullMask = 0xffffffffu;
const u32 kInfinity = 0x7f800000u;              // bits of float32 infinity
const u64 kNone = 0xffffffffffffffffull;        // after every distance and every row number
const u64 kInfinity64 = 0x7ff0000000000000ull;  // bits of float64 infinity

// Integers that order like the floats, negative ones included.
INREACH_DEVICE u32 float_order(float value) {
    const u32 bits = __float_as_uint(value);
    return bits ^ ((bits >> 31) ? 0xffffffffu : 0x80000000u);
}

INREACH_DEVICE u64 double_bits(double value) { return static_cast<u64>(__double_as_longlong(value)); }
INREACH_DEVICE double bits_double(u64 bits) { return __longlong_as_double(static_cast<i64>(bits)); }

INREACH_DEVICE i64 global_thread() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }
INREACH_DEVICE i64 thread_count() { return static_cast<i64>(gridDim.x) * blockDim.x; }

// Row j of a set that may be picked by an index.
INREACH_DEVICE i64 picked(const i64* index, i64 j) { return index ? index[j] : j; }

INREACH_DEVICE double warp_sum(double value) {
    for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(kFullMask, value, step);
    return value;
}

// Formats of stored rows. Those of fewer bits are converted by integer arithmetic, to nearest, ties to even,
// so that no header of the toolkit is needed and every compiler gives the same bits. Where the exponent
// reaches as far as float32's, values below 2^-100 are stored as zero: what matrix instructions make of
// subnormal numbers is then nobody's business, and what a row has lost is measured anyhow.
const u32 kLeastStored = 0x0d800000u;  // bits of 2^-100

struct Float32 {
    typedef float type;
    INREACH_DEVICE float store(float value) { return value; }
    INREACH_DEVICE float load(float stored) { return stored; }
};

struct Fp16 {
    typedef u16 type;
    INREACH_DEVICE u16 store(float value) {
        const u32 bits = __float_as_uint(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
        if (size >= 0x47800000u) return static_cast<u16>(sign | 0x7c00u);  // 65536 and more
        if (size < 0x38800000u)                                            // below 2^-14: in steps of 2^-24
            return static_cast<u16>(sign | __float2uint_rn(__uint_as_float(size) * 16777216.0f));
        const u32 rounded = size + 0xfffu + ((size >> 13) & 1u);
        return static_cast<u16>(sign | ((rounded - 0x38000000u) >> 13));
    }
    INREACH_DEVICE float load(u16 stored) {
        const u32 sign = (stored & 0x8000u) << 16, exponent = (stored >> 10) & 31u, fraction = stored & 1023u;
        if (exponent == 31u) return __uint_as_float(sign | kInfinity);
        if (exponent == 0u) {
            const float size = static_cast<float>(fraction) * 5.9604644775390625e-08f;
            return sign ? -size : size;
        }
        return __uint_as_float(sign | ((exponent + 112u) << 23) | (fraction << 13));
    }
};

struct Bf16 {
    typedef u16 type;
    INREACH_DEVICE u16 store(float value) {
        const u32 bits = __float_as_uint(value);
        if ((bits & 0x7fffffffu) >= kInfinity) return static_cast<u16>((bits >> 16) & 0xff80u);
        if ((bits & 0x7fffffffu) < kLeastStored) return static_cast<u16>((bits >> 16) & 0x8000u);
        return static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    INREACH_DEVICE float load(u16 stored) { return __uint_as_float(static_cast<u32>(stored) << 16); }
};

// Ten bits of fraction in a float32's place: what tensor cores read of one.
struct Tf32 {
    typedef float type;
    INREACH_DEVICE float store(float value) {
        const u32 bits = __float_as_uint(value);
        if ((bits & 0x7fffffffu) >= kInfinity) return value;
        if ((bits & 0x7fffffffu) < kLeastStored) return __uint_as_float(bits & 0x80000000u);
        return __uint_as_float((bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u);
    }
    INREACH_DEVICE float load(float stored) { return stored; }
};
