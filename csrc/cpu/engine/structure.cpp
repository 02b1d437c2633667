#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/frame.h"
#include "engine/require.h"
#include "inreach/nearest.h"

namespace inreach {

double participation(const RowSet& rows, size_t sample) {
    require_rows(rows);
    const size_t count = std::min(sample, rows.count);
    if (count == 0) return 0.0;
    std::vector<int64_t> picked(count);
    for (size_t i = 0; i < count; ++i) {
        const size_t at = i * rows.count / count;
        picked[i] = rows.index ? rows.index[at] : static_cast<int64_t>(at);
    }
    RowSet few = rows;
    few.count = count;
    few.index = picked.data();
    const Frame frame = Frame::of(few, few);
    const size_t blocks = (count + kBlockRows - 1) / kBlockRows, padded = blocks * kBlockRows;
    AlignedArray<float> values(padded * rows.dim), packed(kBlockRows * rows.dim);
    std::fill(values.data(), values.data() + values.size(), 0.0f);
    for (size_t i = 0; i < count; ++i) frame.standardize(few.row(i), values.data() + i * rows.dim);
    double trace = 0.0, square = 0.0;
    for (size_t b = 0; b < blocks; ++b) {
        for (size_t d = 0; d < rows.dim; ++d)
            for (size_t j = 0; j < kBlockRows; ++j)
                packed[d * kBlockRows + j] = values[(b * kBlockRows + j) * rows.dim + d];
        for (size_t i = 0; i < padded; i += kTileRows) {
            float dots[kTileRows * kBlockRows];
            const size_t tile = std::min<size_t>(kTileRows, padded - i);
            kernels().dot_tile(packed.data(), rows.dim, values.data() + i * rows.dim, rows.dim, tile, nullptr,
                               dots);
            for (size_t r = 0; r < tile; ++r)
                for (size_t j = 0; j < kBlockRows; ++j) {
                    const double dot = dots[r * kBlockRows + j];
                    square += dot * dot;
                    if (i + r == b * kBlockRows + j) trace += dot;
                }
        }
    }
    return square > 0.0 ? trace * trace / square : 0.0;
}

}  // namespace inreach
