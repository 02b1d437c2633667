// Rows into the frame of a search (docs/gpu.md, section 3): s(x) = scale (x - centre), computed in
// float64 and stored in float32, tf32, fp16 or bf16. What storing loses is measured, row by row, and goes
// into the row's bounds.
#pragma once

#include "portable.cuh"

// Squared length from which a stored row has no bounds: products stay inside float32 below it.
const double kUsableSqLength = 1e24;

struct Bounds {
    float low, extra;
};

// `length` and `gap` are the squared lengths of the stored row and of what it misses.
INREACH_DEVICE Bounds bounds_of(double length, double gap, double error, double weight) {
    Bounds bounds;
    // What float64 itself loses in computing the two: far below 2^-90 of the square of the length.
    gap = weight * (gap * 1.0001 + length * 8.077935669463161e-28);
    const double size = length + gap;
    bounds.low = __double2float_rd(length - error * size - gap);
    // Raised by 2^-19: the additions of `low` and `extra` in float32 are paid here (tile.cuh, upper).
    bounds.extra = __double2float_ru(2.0 * (error * size + gap) * 1.0000019073486328);
    return bounds;
}

// A row without bounds is a candidate of every query, and gives no upper bound.
INREACH_DEVICE Bounds no_bounds() {
    Bounds bounds;
    bounds.low = -1e30f;
    bounds.extra = __uint_as_float(kInfinity);
    return bounds;
}

const int kFrameThreads = 256;  // a warp a row

template <class Format>
INREACH_DEVICE void frame_row(const float* rows, const i64* index, i64 first, int count, int dim, int depth,
                              const double* centre, double scale, double error, double weight,
                              typename Format::type* out, float* low, float* extra) {
    const int lane = threadIdx.x % 32;
    const i64 j = global_thread() / 32;
    if (j >= count) return;  // whole warps
    const float* const row = rows + picked(index, first + j) * dim;
    typename Format::type* const stored = out + j * depth;
    double length = 0.0, gap = 0.0;
    for (int d = lane; d < depth; d += 32) {
        typename Format::type value = 0;
        if (d < dim) {
            const double exact = (static_cast<double>(row[d]) - centre[d]) * scale;
            value = Format::store(static_cast<float>(exact));
            const double kept = static_cast<double>(Format::load(value)), lost = exact - kept;
            length += kept * kept;
            gap += lost * lost;
        }
        stored[d] = value;
    }
    length = warp_sum(length);
    gap = warp_sum(gap);
    const bool usable = length < kUsableSqLength && gap < kUsableSqLength;  // false for NaN as well
    if (!usable)
        for (int d = lane; d < depth; d += 32) stored[d] = 0;
    if (lane == 0) {
        const Bounds bounds = usable ? bounds_of(length, gap, error, weight) : no_bounds();
        low[j] = bounds.low;
        extra[j] = bounds.extra;
    }
}

#define INREACH_FRAME_ROWS(name, Format)                                                                 \
    INREACH_KERNEL(kFrameThreads)                                                                        \
    name(const float* rows, const i64* index, i64 first, int count, int dim, int depth,                  \
         const double* centre, double scale, double error, double weight, Format::type* out, float* low, \
         float* extra) {                                                                                 \
        frame_row<Format>(rows, index, first, count, dim, depth, centre, scale, error, weight, out, low, \
                          extra);                                                                        \
    }

INREACH_FRAME_ROWS(frame_rows_f32, Float32)
INREACH_FRAME_ROWS(frame_rows_fp16, Fp16)
INREACH_FRAME_ROWS(frame_rows_bf16, Bf16)
INREACH_FRAME_ROWS(frame_rows_tf32, Tf32)

// ------------------------------------------------------------------------------------- leading directions

// Rows into Phi (docs/search.md, section 3, and docs/gpu.md, section 3): their coordinates in `rank`
// orthonormal directions, and the length of what these miss. Products are float64, so that all that is lost
// is lost in storing. A tile of 16 rows and 64 directions a block.
const int kProjectThreads = 256;
const int kProjectRows = 16;
const int kProjectRank = 63;  // with the tail: 64 values
const int kProjectDepth = 64;
const int kProjectChunk = 32;

struct ProjectShared {
    double row[kProjectRows][kProjectChunk + 1];
    double direction[kProjectDepth][kProjectChunk + 1];
};

INREACH_DEVICE double half_warp_sum(double value) {
    for (int step = 8; step > 0; step >>= 1) value += __shfl_xor_sync(kFullMask, value, step);
    return value;
}

template <class Format>
INREACH_DEVICE void project_tile(ProjectShared& shared, const float* rows, const i64* index, i64 first,
                                 int count, int dim, const double* centre, double scale,
                                 const double* directions, int rank, double defect, double error,
                                 double weight, typename Format::type* out, float* low) {
    const int r = threadIdx.x / 16, part = threadIdx.x % 16;
    const i64 j0 = static_cast<i64>(blockIdx.x) * kProjectRows, j = j0 + r;
    double z[kProjectDepth / 16] = {};
    double whole = 0.0;
    for (int d0 = 0; d0 < dim; d0 += kProjectChunk) {
        for (int i = threadIdx.x; i < kProjectRows * kProjectChunk; i += kProjectThreads) {
            const int local = i / kProjectChunk, d = d0 + i % kProjectChunk;
            double value = 0.0;
            if (j0 + local < count && d < dim)
                value = (static_cast<double>(rows[picked(index, first + j0 + local) * dim + d]) - centre[d]) *
                        scale;
            shared.row[local][i % kProjectChunk] = value;
        }
        for (int i = threadIdx.x; i < kProjectDepth * kProjectChunk; i += kProjectThreads) {
            const int v = i / kProjectChunk, d = d0 + i % kProjectChunk;
            shared.direction[v][i % kProjectChunk] =
                v < rank && d < dim ? directions[static_cast<i64>(v) * dim + d] : 0.0;
        }
        __syncthreads();
        for (int d = 0; d < kProjectChunk; ++d) {
            const double value = shared.row[r][d];
            whole += value * value;
            for (int v = 0; v < kProjectDepth / 16; ++v) z[v] += shared.direction[part + 16 * v][d] * value;
        }
        __syncthreads();
    }
    double inside = 0.0;
    for (int v = 0; v < kProjectDepth / 16; ++v) inside += z[v] * z[v];
    inside = half_warp_sum(inside);
    const double rest = whole - inside;
    const double tail = rest > 0.0 ? __dsqrt_rn(rest) : 0.0;
    double length = 0.0, gap = 0.0;
    for (int v = 0; v < kProjectDepth / 16; ++v) {
        const int at = part + 16 * v;
        const double exact = at < rank ? z[v] : at == rank ? tail : 0.0;
        const typename Format::type value = Format::store(static_cast<float>(exact));
        const double kept = static_cast<double>(Format::load(value)), lost = exact - kept;
        length += kept * kept;
        gap += lost * lost;
        if (j < count) out[j * kProjectDepth + at] = value;
    }
    length = half_warp_sum(length);
    gap = half_warp_sum(gap);
    // (|error of storing| + |error of computing|)^2 <= 2 (the one squared) + 2 (the other squared); `defect`
    // bounds the latter relative to the square of the row's length.
    gap = 2.0 * gap + 2.0 * defect * whole;
    const bool usable = length < kUsableSqLength && gap < kUsableSqLength;
    if (j < count) {
        if (!usable)
            for (int v = 0; v < kProjectDepth / 16; ++v) out[j * kProjectDepth + part + 16 * v] = 0;
        if (part == 0) low[j] = usable ? bounds_of(length, gap, error, weight).low : no_bounds().low;
    }
}

#define INREACH_PROJECT_ROWS(name, Format)                                                             \
    INREACH_TILE_KERNEL(kProjectThreads)                                                               \
    name(const float* rows, const i64* index, i64 first, int count, int dim, const double* centre,     \
         double scale, const double* directions, int rank, double defect, double error, double weight, \
         Format::type* out, float* low) {                                                              \
        INREACH_SHARED(ProjectShared, shared);                                                         \
        project_tile<Format>(shared, rows, index, first, count, dim, centre, scale, directions, rank,  \
                             defect, error, weight, out, low);                                         \
    }

INREACH_PROJECT_ROWS(project_rows_f32, Float32)
INREACH_PROJECT_ROWS(project_rows_fp16, Fp16)
INREACH_PROJECT_ROWS(project_rows_bf16, Bf16)
INREACH_PROJECT_ROWS(project_rows_tf32, Tf32)
