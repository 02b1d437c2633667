#include "inreach/filter_channels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/threads.h"

namespace inreach {
namespace {

constexpr size_t kLanes = 16;

// The distance contract with a float64 right-hand side: lane l of 16 sums i = l, l + 16, ..., each product
// rounded before it is added (-ffp-contract=off); lanes fold 16 -> 8 -> 4 -> 2 -> 1.
double sq_distance(const float* x, const double* mean, size_t dim) {
    double lanes[kLanes] = {};
    const size_t whole = dim - dim % kLanes;
    for (size_t i = 0; i < whole; i += kLanes) {
        for (size_t l = 0; l < kLanes; ++l) {
            const double d = static_cast<double>(x[i + l]) - mean[i + l];
            lanes[l] += d * d;
        }
    }
    for (size_t l = 0; whole + l < dim; ++l) {
        const double d = static_cast<double>(x[whole + l]) - mean[whole + l];
        lanes[l] += d * d;
    }
    for (size_t width = kLanes / 2; width > 0; width /= 2)
        for (size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    return lanes[0];
}

void mean_of(const ChannelMembers& members, size_t begin, size_t end, double* mean) {
    std::fill(mean, mean + members.dim, 0.0);
    for (size_t i = begin; i < end; ++i) {
        const float* row = members.data + static_cast<size_t>(members.rows[i]) * members.dim;
        for (size_t d = 0; d < members.dim; ++d) mean[d] += static_cast<double>(row[d]);
    }
    const double count = static_cast<double>(end - begin);
    for (size_t d = 0; d < members.dim; ++d) mean[d] /= count;
}

double population_std(const double* values, size_t count) {
    double total = 0.0;
    for (size_t i = 0; i < count; ++i) total += values[i];
    const double mean = total / static_cast<double>(count);
    double squares = 0.0;
    for (size_t i = 0; i < count; ++i) squares += (values[i] - mean) * (values[i] - mean);
    return std::sqrt(squares / static_cast<double>(count));
}

}  // namespace

void channel_spread(const ChannelMembers& members, double* out_distance, double* out_sigma) {
    // Several channels a task, so that neither the pool's counter nor the scratch row costs anything.
    constexpr size_t kChunk = 16;
    parallel_for((members.channels + kChunk - 1) / kChunk, [&](size_t chunk) {
        std::vector<double> mean(members.dim);
        const size_t last = std::min(members.channels, (chunk + 1) * kChunk);
        for (size_t c = chunk * kChunk; c < last; ++c) {
            const size_t begin = static_cast<size_t>(members.starts[c]);
            const size_t end = static_cast<size_t>(members.starts[c + 1]);
            mean_of(members, begin, end, mean.data());
            for (size_t i = begin; i < end; ++i) {
                const float* row = members.data + static_cast<size_t>(members.rows[i]) * members.dim;
                out_distance[i] = std::sqrt(sq_distance(row, mean.data(), members.dim));
            }
            out_sigma[c] = population_std(out_distance + begin, end - begin);
        }
    });
}

void channel_add(const float* rows, size_t count, size_t dim, const int64_t* slots, double* sums) {
    const Uninterruptible whole;
    constexpr size_t kChunk = 32;
    parallel_for((count + kChunk - 1) / kChunk, [&](size_t chunk) {
        const size_t last = std::min(count, (chunk + 1) * kChunk);
        for (size_t i = chunk * kChunk; i < last; ++i) {
            if (slots[i] < 0) continue;
            const float* const row = rows + i * dim;
            double* const sum = sums + static_cast<size_t>(slots[i]) * dim;
            for (size_t d = 0; d < dim; ++d) sum[d] += static_cast<double>(row[d]);
        }
    });
}

void channel_distances(const float* rows, size_t count, size_t dim, const int64_t* slots, const double* means,
                       double* out) {
    constexpr size_t kChunk = 32;
    parallel_for((count + kChunk - 1) / kChunk, [&](size_t chunk) {
        const size_t last = std::min(count, (chunk + 1) * kChunk);
        for (size_t i = chunk * kChunk; i < last; ++i) {
            const double* const mean = slots[i] < 0 ? nullptr : means + static_cast<size_t>(slots[i]) * dim;
            out[i] = mean == nullptr ? std::numeric_limits<double>::quiet_NaN()
                                     : std::sqrt(sq_distance(rows + i * dim, mean, dim));
        }
    });
}

}  // namespace inreach
