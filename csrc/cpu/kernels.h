// The whole instruction-set contract on a page.
//
// One table of function pointers for each instruction set; cpu/dispatch.cpp fills and chooses it, the engine
// calls through it and knows nothing of vector registers. Every entry of every table computes the same
// function: those marked EXACT give the same bits everywhere, those marked FILTER may differ in rounding
// within the bound that their comment states, which the engine accounts for.
//
// Files that fill a table are compiled with that instruction set's flags. All their symbols live in a
// namespace of their own, and they use no inline function of the standard library: the linker keeps one copy
// of a weak symbol, and if that copy held AVX-512 instructions, older processors would crash on it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inreach {

// Rows of a bank are laid out for the tile kernels in blocks of kBlockRows, dimension by dimension: value d
// of row r of a block lies at block[d * kBlockRows + r].
constexpr int kBlockRows = 64;

struct KernelTable {
    const char* name;

    // EXACT. Squared L2 distance of two float32 rows: differences, products and sums in float64; lane l of 16
    // sums i = l, l+16, ...; lanes are folded 16 -> 8 -> 4 -> 2 -> 1 (upper half added to the lower).
    double (*sq_distance)(const float* a, const float* b, size_t dim);
};

}  // namespace inreach
