#include "engine/projected_rows.h"

#include <algorithm>

#include "engine/threads.h"

namespace inreach {

ProjectedRows::ProjectedRows(const Basis& basis, const RowSet& rows)
    : rank(basis.rank()), coordinates(rows.count * basis.rank()), frames(rows.count) {
    constexpr size_t kRows = 192;
    parallel_for((rows.count + kRows - 1) / kRows, [&](size_t task, int) {
        const size_t first = task * kRows;
        const size_t count = std::min(kRows, rows.count - first);
        basis.project(rows, first, count, coordinates.data() + first * rank, frames.data() + first);
    });
}

ProjectedRows::ProjectedRows(const ProjectedRows& other, const int64_t* ids, size_t count)
    : rank(other.rank), coordinates(count * other.rank), frames(count) {
    for (size_t i = 0; i < count; ++i) {
        const float* from = other.coordinates.data() + static_cast<size_t>(ids[i]) * rank;
        std::copy(from, from + rank, coordinates.data() + i * rank);
        frames[i] = other.frames[static_cast<size_t>(ids[i])];
    }
}

}  // namespace inreach
