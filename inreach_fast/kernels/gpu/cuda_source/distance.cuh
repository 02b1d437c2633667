// Squared L2 distance in float64, the one that decides (csrc/cpu/distance/README.md). The sixteen virtual
// lanes of the contract are sixteen real ones: half a warp takes a pair, and lanes fold by shuffles in the
// contract's order.
#pragma once

#include "portable.cuh"

const int kLanes = 16;

// All 32 lanes call it; the result is in lane 0 of each half. `dim` is 0 for a half that has no pair.
template <class Right>
INREACH_DEVICE double half_warp_sq_distance(const float* a, const Right* b, int dim) {
    double lane = 0.0;
    for (int i = threadIdx.x % kLanes; i < dim; i += kLanes) {
        const double difference = __dsub_rn(static_cast<double>(a[i]), static_cast<double>(b[i]));
        lane = __dadd_rn(lane, __dmul_rn(difference, difference));
    }
    for (int half = kLanes / 2; half > 0; half /= 2)
        lane = __dadd_rn(lane, __shfl_down_sync(kFullMask, lane, half, kLanes));
    return lane;
}
