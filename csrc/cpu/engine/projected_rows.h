// Rows projected into a basis, kept to be queries.
#pragma once

#include <vector>

#include "engine/aligned.h"
#include "engine/basis.h"

namespace inreach {

struct ProjectedRows {
    ProjectedRows(const Basis& basis, const RowSet& rows);

    size_t rank;
    AlignedArray<float> coordinates;  // count x rank
    std::vector<RowFrame> frames;
};

}  // namespace inreach
