#include "engine/projected_rows.h"

#include <algorithm>

#include "engine/require.h"
#include "engine/threads.h"

namespace inreach {

ProjectedRows::ProjectedRows(const Basis& basis, const RowSet& rows)
    : rank(basis.rank()), basis_id(basis.id()), coordinates(rows.count * basis.rank()), frames(rows.count) {
    require_rows(rows);
    require(rows.dim == basis.dim(), "rows: another length than the basis was made for");
    constexpr size_t kRows = 192;
    parallel_for((rows.count + kRows - 1) / kRows, [&](size_t task) {
        const size_t first = task * kRows;
        const size_t count = std::min(kRows, rows.count - first);
        basis.project(rows, first, count, coordinates.data() + first * rank, frames.data() + first);
    });
}

ProjectedRows::ProjectedRows(const ProjectedRows& other, const int64_t* ids, size_t count)
    : rank(other.rank), basis_id(other.basis_id), coordinates(count * other.rank), frames(count) {
    for (size_t i = 0; i < count; ++i) {
        require(ids[i] >= 0 && static_cast<size_t>(ids[i]) < other.frames.size(),
                "ids: no such row among those projected");
        const float* from = other.coordinates.data() + static_cast<size_t>(ids[i]) * rank;
        std::copy(from, from + rank, coordinates.data() + i * rank);
        frames[i] = other.frames[static_cast<size_t>(ids[i])];
    }
}

std::shared_ptr<const ProjectedRows> project_rows(const Basis& basis, const RowSet& rows) {
    return std::make_shared<const ProjectedRows>(basis, rows);
}

}  // namespace inreach
