#include "inreach/linear_map.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/require.h"
#include "engine/threads.h"

namespace inreach {
namespace {

// Rows of a task.
constexpr size_t kRows = 48;
// Values of a row that are taken in before the next row's are: 64 x 128 floats of the matrix (32 KiB) stay in
// the first-level cache.
constexpr size_t kDepth = 64;
// sum_taps computes multiples of this many outputs.
constexpr size_t kWidth = 16;

}  // namespace

void linear_map(const float* rows, size_t count, size_t dim, const float* mean, const float* matrix,
                size_t outputs, float* out) {
    require(dim > 0 && outputs > 0, "linear_map: dim and outputs must be at least 1");
    const KernelTable& table = kernels();
    const size_t width = (outputs + kWidth - 1) / kWidth * kWidth;
    require(kDepth * width <= static_cast<size_t>(std::numeric_limits<int32_t>::max()),
            "linear_map: too many outputs");
    AlignedArray<float> padded(dim * width);
    for (size_t d = 0; d < dim; ++d) {
        std::copy_n(matrix + d * outputs, outputs, padded.data() + d * width);
        std::fill_n(padded.data() + d * width + outputs, width - outputs, 0.0f);
    }
    int32_t offset[kDepth];
    for (size_t t = 0; t < kDepth; ++t) offset[t] = static_cast<int32_t>(t * width);
    parallel_for((count + kRows - 1) / kRows, [&](size_t task) {
        const size_t first = task * kRows, some = std::min(kRows, count - first);
        std::vector<float> centred(some * dim);
        AlignedArray<float> sums(some * width);
        for (size_t i = 0; i < some; ++i)
            for (size_t d = 0; d < dim; ++d) centred[i * dim + d] = rows[(first + i) * dim + d] - mean[d];
        for (size_t d = 0; d < dim; d += kDepth)
            for (size_t i = 0; i < some; ++i)
                table.describe.sum_taps(padded.data() + d * width, offset, centred.data() + i * dim + d,
                                        std::min(kDepth, dim - d), d > 0, sums.data() + i * width, width);
        for (size_t i = 0; i < some; ++i)
            std::copy_n(sums.data() + i * width, outputs, out + (first + i) * outputs);
    });
}

}  // namespace inreach
