// Patch descriptors from a backbone's levels, nothing unfolded; two launches for all levels and images. The
// order of operations is that of csrc/cpu/describe/README.md, and so are the bits. Tables come from
// kernels/gpu/describe.py.
#pragma once

#include "portable.cuh"

// Entries of `levels`, i64: address of the data, then strides in values (batch, channel, row, column),
// height, width.
const int kLevelEntries = 7;
// Entries of `segments`, i32: level, first feature, number of taps, first tap.
const int kSegmentEntries = 4;

// sums[sum_begin[s] + y * width + x], for each image: output s of its stage at the stage's own resolution.
// A thread a position; grid (positions / 256, sums, images). Sum s has the segments segment_begin[s] ..
// segment_begin[s + 1] - 1, all of levels on one grid.
INREACH_KERNEL(256)
describe_sums(const i64* levels, const int* segments, const int* segment_begin, const i64* sum_begin,
              const float* weights, int neighbourhood, i64 image_sums, float* sums) {
    const int s = blockIdx.y, place = static_cast<int>(global_thread());
    const int* segment = segments + static_cast<i64>(segment_begin[s]) * kSegmentEntries;
    const int* const last = segments + static_cast<i64>(segment_begin[s + 1]) * kSegmentEntries;
    const i64* const first_level = levels + static_cast<i64>(segment[0]) * kLevelEntries;
    const int height = static_cast<int>(first_level[5]), width = static_cast<int>(first_level[6]);
    if (place >= height * width) return;
    const int y = place / width, x = place % width, reach = neighbourhood / 2;
    float sum = 0.0f;
    for (bool begun = false; segment < last; segment += kSegmentEntries) {
        const i64* const level = levels + static_cast<i64>(segment[0]) * kLevelEntries;
        const float* const data =
            reinterpret_cast<const float*>(level[0]) + static_cast<i64>(blockIdx.z) * level[1];
        const int around = neighbourhood * neighbourhood;
        int channel = segment[1] / around, ky = segment[1] % around / neighbourhood,
            kx = segment[1] % neighbourhood;
        for (int t = 0; t < segment[2]; ++t) {
            const int sy = y + ky - reach, sx = x + kx - reach;
            const bool inside = sy >= 0 && sy < height && sx >= 0 && sx < width;
            const float value = inside ? data[channel * level[2] + sy * level[3] + sx * level[4]] : 0.0f;
            const float product = __fmul_rn(weights[segment[3] + t], value);
            sum = begun ? __fadd_rn(sum, product) : product;
            begun = true;
            if (++kx == neighbourhood) {
                kx = 0;
                if (++ky == neighbourhood) {
                    ky = 0;
                    ++channel;
                }
            }
        }
    }
    sums[static_cast<i64>(blockIdx.z) * image_sums + sum_begin[s] + place] = sum;
}

INREACH_DEVICE float blended(float a, float b, float wa, float wb) {
    return __fadd_rn(__fmul_rn(wa, a), __fmul_rn(wb, b));
}

const int kWriteTile = 32;

struct WriteShared {
    float value[kWriteTile][kWriteTile + 1];
};

// Sums resampled to the grid and added over the stages, written position by position. Grid (positions / 32,
// outputs / 32, images), 256 threads: read along positions, written along outputs. Output j has the parts
// part_begin[j]
// .. part_begin[j + 1] - 1: sum numbers, in the order of their stages. stage_width[stage]; axes are tables of
// (stages, grid size).
INREACH_KERNEL(256)
describe_write(const float* sums, i64 image_sums, const i64* sum_begin, const int* sum_stage,
               const int* part_begin, const int* parts, const int* stage_width, const int* row_i0,
               const float* row_w0, const float* row_w1, const int* column_i0, const float* column_w0,
               const float* column_w1, int grid_height, int grid_width, int dim, float* out,
               i64 out_image_stride, i64 out_row_stride) {
    INREACH_SHARED(WriteShared, shared);
    const int along = threadIdx.x % kWriteTile, across = threadIdx.x / kWriteTile;
    const int positions = grid_height * grid_width;
    const int p0 = static_cast<int>(blockIdx.x) * kWriteTile, j0 = static_cast<int>(blockIdx.y) * kWriteTile;
    const float* const own = sums + static_cast<i64>(blockIdx.z) * image_sums;
    const int p = p0 + along, y = p / grid_width, x = p % grid_width;
    for (int local = across; local < kWriteTile; local += 256 / kWriteTile) {
        const int j = j0 + local;
        if (p >= positions || j >= dim) continue;
        float total = 0.0f;
        for (int part = part_begin[j]; part < part_begin[j + 1]; ++part) {
            const int s = parts[part], stage = sum_stage[s], width = stage_width[stage];
            const int row = stage * grid_height + y, column = stage * grid_width + x;
            const float* const upper = own + sum_begin[s] + row_i0[row] * width + column_i0[column];
            const bool two_rows = row_w1[row] != 0.0f, two_columns = column_w1[column] != 0.0f;
            float value = two_rows ? blended(upper[0], upper[width], row_w0[row], row_w1[row]) : upper[0];
            if (two_columns) {
                const float right =
                    two_rows ? blended(upper[1], upper[width + 1], row_w0[row], row_w1[row]) : upper[1];
                value = blended(value, right, column_w0[column], column_w1[column]);
            }
            total = part == part_begin[j] ? value : __fadd_rn(total, value);
        }
        shared.value[local][along] = total;
    }
    __syncthreads();
    for (int local = across; local < kWriteTile; local += 256 / kWriteTile)
        if (p0 + local < positions && j0 + along < dim)
            out[static_cast<i64>(blockIdx.z) * out_image_stride + (p0 + local) * out_row_stride + j0 +
                along] = shared.value[along][local];
}
