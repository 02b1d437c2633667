// Spread of the members of each channel about their mean (paper section 3.3, ALGORITHM section 5).
#pragma once

#include <cstddef>
#include <cstdint>

namespace inreach {

// Members of `channels` channels (a view). Member i is the float32 row
// data[rows[i] * dim .. + dim); channel c holds the members starts[c] .. starts[c + 1] - 1.
struct ChannelMembers {
    const float* data = nullptr;
    size_t dim = 0;
    const int64_t* rows = nullptr;
    const int64_t* starts = nullptr;  // channels + 1 entries, ascending
    size_t channels = 0;
};

// For each channel the float64 mean of its members, summed in their order; for each member its distance to
// that mean (out_distance, one a member), and for each channel the population standard deviation of those
// distances (out_sigma, one a channel), both sums in the members' order. Every member row is read twice; the
// only scratch memory is one mean a thread.
void channel_spread(const ChannelMembers& members, double* out_distance, double* out_sigma);

// The same in steps, for members that are met image by image and never stand in memory together. `rows` are
// count float32 rows of dim values; row i belongs to channel slots[i], or to none where that is negative, and
// no channel is named twice: so each channel's sums are in the order in which its members are met, as
// channel_spread's are, and rows can be taken in parallel.

// sums[slots[i]] += rows[i], in float64; sums has dim values a channel.
void channel_add(const float* rows, size_t count, size_t dim, const int64_t* slots, double* sums);

// out[i]: distance of rows[i] to means[slots[i]], as in channel_spread; NaN where the row belongs to no
// channel.
void channel_distances(const float* rows, size_t count, size_t dim, const int64_t* slots, const double* means,
                       double* out);

}  // namespace inreach
