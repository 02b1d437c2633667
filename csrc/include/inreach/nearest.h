// Exact nearest neighbours between two sets of float32 rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inreach {

// A set of rows, seen and not owned. Row j is data[(index ? index[j] : j) * stride .. + dim).
struct RowSet {
    const float* data = nullptr;
    size_t count = 0;
    size_t dim = 0;
    size_t stride = 0;               // floats from one row to the next
    const int64_t* index = nullptr;  // count entries, or null
    const int64_t* group = nullptr;  // count entries, or null: rows of a query's own group are passed over

    const float* row(size_t j) const { return data + (index ? static_cast<size_t>(index[j]) : j) * stride; }
};

// For each query its k nearest bank rows by (float64 squared distance, row number), nearest first.
// out_index and out_sq_distance: queries.count * k. Fewer than k eligible rows: -1 and infinity.
void nearest(const RowSet& queries, const RowSet& bank, size_t k, int64_t* out_index, float* out_sq_distance);

// First row that holds NaN or infinity, or -1.
int64_t first_nonfinite_row(const RowSet& rows);

}  // namespace inreach
