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

#else  // the host executor: all lanes meet, and their fragments become those of the result at once

INREACH_DEVICE void unpack(Fp16, u32 word, float (&value)[2]) {
    value[0] = Fp16::load(static_cast<u16>(word));
    value[1] = Fp16::load(static_cast<u16>(word >> 16));
}

INREACH_DEVICE void unpack(Bf16, u32 word, float (&value)[2]) {
    value[0] = Bf16::load(static_cast<u16>(word));
    value[1] = Bf16::load(static_cast<u16>(word >> 16));
}

INREACH_DEVICE void unpack(Tf32, u32 word, float (&value)[2]) {
    value[0] = __uint_as_float(word);
    value[1] = 0.0f;  // there is no second value
}

struct Fragments {
    float a[4][2], b[2][2], c[4];
};

// All lanes' fragments, lane by lane, to the result in `c`.
template <class Format>
INREACH_DEVICE void multiply_fragments(Fragments* all) {
    const int step = sizeof(typename Format::type) / 2;  // of tf32 every other value is none
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * t + i % 2] = all[lane].c[i];
        for (int v = 0; v < 2; ++v) {
            for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][2 * (t + i / 2 * 4) + v] = all[lane].a[i][v];
            for (int i = 0; i < 2; ++i) b[2 * (t + i * 4) + v][g] = all[lane].b[i][v];
        }
    }
    for (int i = 0; i < 16; ++i)
        for (int k = 0; k < 16; k += step)
            for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i) all[lane].c[i] = c[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
}

template <class Format>
INREACH_DEVICE void matrix_multiply_add(Format, float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4],
                                        const u32 (&b)[2]) {
    Fragments own = {{}, {}, {c0, c1, c2, c3}};
    for (int i = 0; i < 4; ++i) unpack(Format(), a[i], own.a[i]);
    for (int i = 0; i < 2; ++i) unpack(Format(), b[i], own.b[i]);
    const Fragments result = host_together<Fragments, multiply_fragments<Format> >(own);
    c0 = result.c[0], c1 = result.c[1], c2 = result.c[2], c3 = result.c[3];
}

#endif
