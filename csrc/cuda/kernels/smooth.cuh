// From patch scores to the smoothed map and its maximum (inreach_fast/method/scoring.py, anomaly_map):
// upsampling and Gaussian filter are one small banded matrix an axis, applied as sums over the cells in their
// order, in float64.
#pragma once

#include "portable.cuh"

// The sum over cells j, ascending, with low[j] <= at < high[j], of band[begin[j] + at - low[j]] * source[j *
// stride].
template <class Load>
INREACH_DEVICE double banded_sum(const int* low, const int* high, const int* begin, const double* band,
                                 int cells, int at, const Load& source) {
    double sum = 0.0;
    for (int j = 0; j < cells; ++j)
        if (low[j] <= at && at < high[j])
            sum = __dadd_rn(sum, __dmul_rn(band[begin[j] + at - low[j]], source(j)));
    return sum;
}

struct FiniteScore {
    const float* at;
    int stride;
    // 0 * infinity would be NaN out of the filter's reach; a patch with no counterpart scores infinity.
    __device__ double operator()(int j) const {
        const float value = at[static_cast<i64>(j) * stride];
        const bool finite = (__float_as_uint(value) & kInfinity) != kInfinity;
        return static_cast<double>(finite ? value : 3.402823466385288598e38f);
    }
};

struct Half {
    const double* at;
    __device__ double operator()(int j) const { return at[j]; }
};

// half[y * cells + c] from scores[row * cells + c]; a thread each of height * cells, grid.y images.
INREACH_KERNEL(256)
smooth_columns(const float* scores, int rows, int cells, int height, const int* low, const int* high,
               const int* begin, const double* band, double* half) {
    const int i = static_cast<int>(global_thread());
    if (i >= height * cells) return;
    const FiniteScore source = {scores + static_cast<i64>(blockIdx.y) * rows * cells + i % cells, cells};
    half[static_cast<i64>(blockIdx.y) * height * cells + i] =
        banded_sum(low, high, begin, band, rows, i / cells, source);
}

// map[y * width + x] from half[y * cells + c]; a thread each of height * width, grid.y images. greatest (u32
// an image, float_order, starting at 0) is raised to the map's maximum.
struct SmoothShared {
    u32 greatest;
};

INREACH_KERNEL(256)
smooth_rows(const double* half, int cells, int height, int width, const int* low, const int* high,
            const int* begin, const double* band, float* map, u32* greatest) {
    INREACH_SHARED(SmoothShared, shared);
    if (threadIdx.x == 0) shared.greatest = 0;
    __syncthreads();
    const int i = static_cast<int>(global_thread());
    if (i < height * width) {
        const Half source = {half + (static_cast<i64>(blockIdx.y) * height + i / width) * cells};
        const float value = __double2float_rn(banded_sum(low, high, begin, band, cells, i % width, source));
        map[static_cast<i64>(blockIdx.y) * height * width + i] = value;
        atomicMax(&shared.greatest, float_order(value));
    }
    __syncthreads();
    if (threadIdx.x == 0) atomicMax(greatest + blockIdx.y, shared.greatest);
}

// Maxima back to floats; a thread an image.
INREACH_KERNEL(256)
greatest_value(const u32* greatest, int count, float* value) {
    const i64 i = global_thread();
    if (i >= count) return;
    const u32 order = greatest[i];
    value[i] = __uint_as_float(order ^ ((order >> 31) ? 0x80000000u : 0xffffffffu));
}
