// Loops over an array of vector registers.
//
// GCC unrolls such loops too late to see that the array fits the registers: it then writes every sum to the
// stack after each step, which halves the speed of a tile or worse. INREACH_UNROLL before the loop unrolls it
// in time.
#pragma once

#if defined(__clang__)
#define INREACH_UNROLL _Pragma("unroll")
#define INREACH_UNROLL_TWICE _Pragma("unroll 2")
#else
#define INREACH_UNROLL _Pragma("GCC unroll 32")
#define INREACH_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
