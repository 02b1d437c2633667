#include "inreach/smooth.h"

#include <algorithm>
#include <vector>

#include "engine/require.h"

namespace inreach {
namespace {

void require_inside(const Band& band, size_t outputs) {
    for (size_t c = 0; c < band.cells; ++c)
        require(
            band.low[c] >= 0 && band.low[c] <= band.high[c] && static_cast<size_t>(band.high[c]) <= outputs,
            "smooth: a band leaves its axis");
}

}  // namespace

void smooth(const double* scores, const Band& rows, const Band& columns, size_t height, size_t width,
            float* out) {
    require_inside(rows, height);
    require_inside(columns, width);
    const size_t across = columns.cells;
    std::vector<double> half(height * across, 0.0), line(width);
    const double* weight = rows.weights;
    for (size_t c = 0; c < rows.cells; ++c)
        for (auto y = static_cast<size_t>(rows.low[c]); y < static_cast<size_t>(rows.high[c]); ++y, ++weight)
            for (size_t x = 0; x < across; ++x) half[y * across + x] += *weight * scores[c * across + x];
    for (size_t y = 0; y < height; ++y) {
        std::fill(line.begin(), line.end(), 0.0);
        weight = columns.weights;
        for (size_t c = 0; c < across; ++c) {
            const double value = half[y * across + c];
            double* const first = line.data() + columns.low[c];
            const auto count = static_cast<size_t>(columns.high[c] - columns.low[c]);
            for (size_t x = 0; x < count; ++x) first[x] += weight[x] * value;
            weight += count;
        }
        std::copy(line.begin(), line.end(), out + y * width);
    }
}

}  // namespace inreach
