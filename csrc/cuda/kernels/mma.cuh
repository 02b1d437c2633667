// One matrix instruction, D = A B + C over a warp. A and B are given in words of 32 bits, two values of fp16
// or bf16 each or one of tf32: A is 16 x 8 words, B 8 x 8 words, C and D 16 x 8 in float32.
//
// Fragments (PTX ISA, mma.m16n8k16 and, of tf32, mma.m16n8k8) are then the same for all formats: with g =
// lane / 4 and t = lane % 4,
//
//     a[0] = A[g][t]   a[1] = A[g+8][t]   a[2] = A[g][t+4]   a[3] = A[g+8][t+4]
//     b[0] = B[t][g]   b[1] = B[t+4][g]
//     c[0], c[1] = C[g][2t, 2t+1]         c[2], c[3] = C[g+8][2t, 2t+1]
//
// FILTER. The instruction's order and rounding are the hardware's own; what is assumed of them, and where it
// is used, stands in docs/gpu.md, section 3: products exact, sums off by (16 + 1) 2^-22 (tf32: (8 + 1) 2^-22)
// of all terms' sizes at most.
#pragma once

#include "portable.cuh"

#if defined(__CUDACC__)

INREACH_DEVICE void matrix_multiply_add(Fp16, float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4],
                                        const u32 (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing has half of it
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

INREACH_DEVICE void matrix_multiply_add(Bf16, float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4],
                                        const u32 (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing has no bf16; nobody launches these kernels there (kernels/gpu/routes.py)
    asm volatile("trap;");
#endif
}

INREACH_DEVICE void matrix_multiply_add(Tf32, float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4],
                                        const u32 (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // nor tf32
    asm volatile("trap;");
#endif
}

#else  // the host executor: all lanes meet, and each computes its four sums from the fragments of all

template <class Format>
INREACH_DEVICE float add_products(Format, float sum, u32 left, u32 right) {
    for (int shift = 0; shift < 32; shift += 16)
        sum += Format::load(static_cast<u16>(left >> shift)) * Format::load(static_cast<u16>(right >> shift));
    return sum;
}

INREACH_DEVICE float add_products(Tf32, float sum, u32 left, u32 right) {
    return sum + __uint_as_float(left) * __uint_as_float(right);
}

template <class Format>
INREACH_DEVICE void matrix_multiply_add(Format, float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4],
                                        const u32 (&b)[2]) {
    struct Fragments {
        u32 a[4], b[2];
    };
    const Fragments own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const Fragments* const all = host_exchange(kFullMask, own);
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float* const sums[4] = {&c0, &c1, &c2, &c3};
    for (int s = 0; s < 4; ++s) {
        const int row = g + s / 2 * 8, column = 2 * t + s % 2;
        float sum = *sums[s];
        for (int w = 0; w < 8; ++w)
            sum = add_products(Format(), sum, all[row % 8 * 4 + w % 4].a[row / 8 + w / 4 * 2],
                               all[column * 4 + w % 4].b[w / 4]);
        *sums[s] = sum;
    }
}

#endif
