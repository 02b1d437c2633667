// The spread of channels (csrc/cpu/engine/filter_channels.cpp): means and deviations, every sum in float64
// and in the order of the members. Channel c has the members starts[c] .. starts[c + 1] - 1; member i is the
// row rows[i].
#pragma once

#include "distance.cuh"

// mean[c * dim + d]; a thread a value. Grid (dim / 256, channels).
INREACH_KERNEL(256)
channel_mean(const float* members, const i64* rows, const i64* starts, int dim, double* mean) {
    const int d = static_cast<int>(global_thread());
    const i64 c = blockIdx.y;
    if (d >= dim) return;
    double total = 0.0;
    for (i64 i = starts[c]; i < starts[c + 1]; ++i)
        total = __dadd_rn(total, static_cast<double>(members[rows[i] * dim + d]));
    mean[c * dim + d] = __ddiv_rn(total, static_cast<double>(starts[c + 1] - starts[c]));
}

// distance[i] of each member to its channel's mean; half a warp a member. channel[i]: number of member i's
// channel.
INREACH_KERNEL(256)
member_distance(const float* members, const i64* rows, const int* channel, i64 first, i64 count, int dim,
                const double* mean, double* distance) {
    const i64 start = global_thread() / 32 * 2, i = start + threadIdx.x % 32 / 16;
    if (start >= count) return;  // whole warps
    const bool there = i < count;
    const float* const row = there ? members + rows[first + i] * dim : members;
    const double* const centre = there ? mean + static_cast<i64>(channel[first + i]) * dim : mean;
    const double sq = half_warp_sq_distance(row, centre, there ? dim : 0);
    if (there && threadIdx.x % 16 == 0) distance[first + i] = __dsqrt_rn(sq);
}

// sigma[c], population standard deviation of the distances; a thread a channel.
INREACH_KERNEL(256)
channel_sigma(const double* distance, const i64* starts, i64 channels, double* sigma) {
    const i64 c = global_thread();
    if (c >= channels) return;
    const double count = static_cast<double>(starts[c + 1] - starts[c]);
    double total = 0.0;
    for (i64 i = starts[c]; i < starts[c + 1]; ++i) total = __dadd_rn(total, distance[i]);
    const double mean = __ddiv_rn(total, count);
    double squares = 0.0;
    for (i64 i = starts[c]; i < starts[c + 1]; ++i) {
        const double difference = __dsub_rn(distance[i], mean);
        squares = __dadd_rn(squares, __dmul_rn(difference, difference));
    }
    sigma[c] = __dsqrt_rn(__ddiv_rn(squares, count));
}
