// One matrix instruction, D = A B + C over a warp: A 16 x 16 and B 16 x 8 in fp16 or bf16, C and D 16 x 8 in
// float32.
//
// Fragments (PTX ISA, mma.m16n8k16): with g = lane / 4 and t = lane % 4, two 16-bit values a register,
//
//     a[0] = A[g][2t, 2t+1]   a[1] = A[g+8][2t, 2t+1]   a[2] = A[g][2t+8, 2t+9]   a[3] = A[g+8][2t+8, 2t+9]
//     b[0] = B[2t, 2t+1][g]   b[1] = B[2t+8, 2t+9][g]
//     c[0], c[1] = C[g][2t, 2t+1]                       c[2], c[3] = C[g+8][2t, 2t+1]
//
// FILTER. The instruction's order and rounding are the hardware's own; what is assumed of them, and where it
// is used, stands in docs/gpu.md, section 3: products exact, sums off by (16 + 1) 2^-22 of all terms'
// sizes at most.
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

#else  // the host executor: all lanes meet, and each computes its four sums from the fragments of all

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
        for (int k = 0; k < 16; ++k) {
            const u32 left = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
            const u32 right = all[column * 4 + k % 8 / 2].b[k / 8];
            const int shift = k % 2 * 16;
            sum += Format::load(static_cast<u16>(left >> shift)) *
                   Format::load(static_cast<u16>(right >> shift));
        }
        *sums[s] = sum;
    }
}

#endif
