// Exact nearest neighbours between two sets of float32 rows.
//
// Contract: the answer is that of float64 brute force over the float32 inputs (squared distances summed as
// KernelTable::sq_distance does), ordered by (distance, row number). How it was found, on which instruction
// set, by how many threads and among which other queries changes nothing. With floors (RowSet::floor) the
// same holds of max(squared distance, floor), which then stands wherever "squared distance" does.
//
// Functions throw std::invalid_argument where their arguments do not fit each other, and Interrupted where
// they are asked to stop (interrupt.h). Values must be finite (first_nonfinite_row); row numbers in `index`
// are not checked, for a RowSet does not know how many rows there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace inreach {

// A view of rows. Row j is data[(index ? index[j] : j) * stride .. + dim).
struct RowSet {
    const float* data = nullptr;
    size_t count = 0;
    size_t dim = 0;
    size_t stride = 0;               // floats from one row to the next
    const int64_t* index = nullptr;  // count entries, or null
    const int64_t* group = nullptr;  // count entries, or null: rows of a query's own group are passed over
    // count entries, or null. Of a bank in a search in one direction: row j counts as max(squared distance,
    // floor[j]), and is left out where its floor is infinite. Not NaN.
    const float* floor = nullptr;
    size_t mapped_bytes = 0;  // size of `data` if it is a shared mapping of a file, else 0

    const float* row(size_t j) const { return data + (index ? static_cast<size_t>(index[j]) : j) * stride; }

    // What a row at a squared distance counts as.
    double value(double sq_distance, size_t j) const {
        return floor && floor[j] > sq_distance ? static_cast<double>(floor[j]) : sq_distance;
    }
};

// How many (query, row) pairs each stage looked at.
struct SearchCounts {
    uint64_t pairs = 0;    // all that the answer speaks of
    uint64_t bounded = 0;  // bounded one by one
    uint64_t refined = 0;  // bounded again, tighter
    uint64_t decided = 0;  // decided in float64
    bool brute_force = false;

    SearchCounts& operator+=(const SearchCounts& other) {
        pairs += other.pairs;
        bounded += other.bounded;
        refined += other.refined;
        decided += other.decided;
        brute_force |= other.brute_force;
        return *this;
    }
};

// The frame in which bounds are computed (docs/search.md, 2 and 3).
class Basis;
// Rows projected into a basis, to be queries any number of times.
struct ProjectedRows;
// Rows gathered in leaves, to be searched by bounds.
class LeafIndex;

// centre: a value for each dimension; scale: a power of two that brings rows to about length 1. directions:
// rank x dim, orthonormal up to `defect` (Frobenius norm of V V' - 1), rank from 1 to 512. Any give the right
// answers; principal directions of the rows, and their mean, give them fast.
std::shared_ptr<const Basis> make_basis(std::vector<double> centre, double scale, size_t rank,
                                        const float* directions, double defect);
std::shared_ptr<const ProjectedRows> project_rows(const Basis& basis, const RowSet& rows);
// `projected`: the same rows in the same basis, or null. Rows and basis need not outlive the index.
std::shared_ptr<const LeafIndex> make_leaf_index(const Basis& basis, const RowSet& rows,
                                                 const ProjectedRows* projected = nullptr);

// For each query its k nearest bank rows, nearest first, into out_index and out_sq_distance (queries.count *
// k). Fewer than k eligible rows: -1 and infinity. By brute force in float32 with float64 decisions.
SearchCounts nearest_brute(const RowSet& queries, const RowSet& bank, size_t k, int64_t* out_index,
                           float* out_sq_distance);

// The same by bounds; falls back to brute force where bounds do not pay. `hint`, if given, names for each
// query a bank row that is likely near (-1 for none): a tighter start, the same answer.
SearchCounts nearest_pruned(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, size_t k, const int64_t* hint,
                            int64_t* out_index, float* out_sq_distance);

// For each query a row that is near, its squared distance, and a lower bound on the squared distance of every
// eligible row, from a small part of nearest_pruned's work: lower <= what nearest_pruned gives <=
// out_sq_upper. No row found: -1 and infinity, which is an upper bound like any other.
SearchCounts nearest_bounds(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                            const Basis& basis, const LeafIndex& index, const int64_t* hint,
                            int64_t* out_index, float* out_sq_upper, float* out_sq_lower);

// Both directions between two sets in one pass of brute force, without a matrix of all pairs.
SearchCounts mutual_nearest_brute(const RowSet& a, const RowSet& b, int64_t* ab_index, float* ab_sq_distance,
                                  int64_t* ba_index, float* ba_sq_distance);

// Participation ratio (trace G)^2 / |G|^2 of the Gram matrix G of `sample` evenly spaced rows about their
// mean: in how many directions they vary, from 1 to about sample * dim / (sample + dim) for isotropic noise.
double participation(const RowSet& rows, size_t sample);

// First row that holds NaN or infinity, or -1.
int64_t first_nonfinite_row(const RowSet& rows);

}  // namespace inreach
