// Checks and fillings.
#pragma once

#include "portable.cuh"

INREACH_KERNEL(256)
fill_u32(u32* values, i64 count, u32 value) {
    for (i64 i = global_thread(); i < count; i += thread_count()) values[i] = value;
}

INREACH_KERNEL(256)
fill_u64(u64* values, i64 count, u64 value) {
    for (i64 i = global_thread(); i < count; i += thread_count()) values[i] = value;
}

// Lowers *first (starting at ~0) to the first row that holds NaN or infinity; a warp a row, grid-stride.
INREACH_KERNEL(256)
first_nonfinite_row(const float* rows, const i64* index, i64 count, int dim, u64* first) {
    for (i64 j = global_thread() / 32; j < count; j += thread_count() / 32) {
        const float* const row = rows + picked(index, j) * dim;
        bool finite = true;
        for (int d = threadIdx.x % 32; d < dim; d += 32)
            finite = finite && (__float_as_uint(row[d]) & kInfinity) != kInfinity;
        if (!finite) atomicMin(first, static_cast<u64>(j));
    }
}
