// Rows projected into a basis, kept to be queries.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/aligned.h"
#include "engine/basis.h"

namespace inreach {

struct ProjectedRows {
    ProjectedRows(const Basis& basis, const RowSet& rows);
    // A copy of some of the rows of another; entries in [0, other.frames.size()).
    ProjectedRows(const ProjectedRows& other, const int64_t* ids, size_t count);

    size_t rank;
    uint64_t basis_id;
    AlignedArray<float> coordinates;  // count x rank
    std::vector<RowFrame> frames;
};

}  // namespace inreach
