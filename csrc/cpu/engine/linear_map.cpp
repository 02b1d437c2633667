#include "inreach/linear_map.h"

#include <algorithm>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/require.h"
#include "engine/threads.h"

namespace inreach {
namespace {

// Rows of a task.
constexpr size_t kRows = 8 * kMapRows;
// Values of a row that are taken in before the next rows' are: so many rows of the matrix (16 KiB at 128
// outputs) stay in the first-level cache.
constexpr size_t kDepth = 32;
// map_rows computes multiples of this many outputs.
constexpr size_t kWidth = 16;

}  // namespace

void linear_map(const float* rows, size_t count, size_t dim, const float* mean, const float* matrix,
                size_t outputs, float* out) {
    require(dim > 0 && outputs > 0, "linear_map: dim and outputs must be at least 1");
    const KernelTable& table = kernels();
    const size_t width = (outputs + kWidth - 1) / kWidth * kWidth;
    AlignedArray<float> padded(width == outputs ? 0 : dim * width);
    for (size_t d = 0; d < dim && width != outputs; ++d) {
        std::copy_n(matrix + d * outputs, outputs, padded.data() + d * width);
        std::fill_n(padded.data() + d * width + outputs, width - outputs, 0.0f);
    }
    const float* const columns = width == outputs ? matrix : padded.data();
    parallel_for((count + kRows - 1) / kRows, [&](size_t task) {
        const size_t first = task * kRows, some = std::min(kRows, count - first);
        AlignedArray<float> centred(some * dim), own(width == outputs ? 0 : some * width);
        float* const sums = width == outputs ? out + first * outputs : own.data();
        for (size_t i = 0; i < some; ++i)
            for (size_t d = 0; d < dim; ++d) centred[i * dim + d] = rows[(first + i) * dim + d] - mean[d];
        for (size_t d = 0; d < dim; d += kDepth)
            for (size_t i = 0; i < some; i += kMapRows)
                table.map_rows(centred.data() + i * dim + d, dim, std::min<size_t>(kMapRows, some - i),
                               columns + d * width, width, std::min(kDepth, dim - d), d > 0,
                               sums + i * width);
        for (size_t i = 0; i < some && width != outputs; ++i)
            std::copy_n(sums + i * width, outputs, out + (first + i) * outputs);
    });
}

}  // namespace inreach
