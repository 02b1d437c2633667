#include "engine/frame.h"

#include <algorithm>

#include "dispatch.h"

namespace inreach {
namespace {

constexpr size_t kSample = 512;      // rows for the centre
constexpr size_t kNormSample = 128;  // for the scale, a power of two: any estimate within a factor of 4 does

// Eight independent sums: a single one would wait four cycles for each addition.
double sq_norm(const float* row, const double* centre, size_t dim) {
    constexpr size_t kSums = 8;
    double sums[kSums] = {};
    size_t d = 0;
    for (; d + kSums <= dim; d += kSums)
        for (size_t i = 0; i < kSums; ++i) {
            const double difference = static_cast<double>(row[d + i]) - centre[d + i];
            sums[i] += difference * difference;
        }
    for (; d < dim; ++d) {
        const double difference = static_cast<double>(row[d]) - centre[d];
        sums[0] += difference * difference;
    }
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

double largest_norm(const RowSet& rows, const std::vector<double>& centre) {
    const size_t step = std::max<size_t>(1, rows.count / kNormSample);
    double largest = 0.0;
    for (size_t r = 0; r < rows.count; r += step)
        largest = std::max(largest, std::sqrt(sq_norm(rows.row(r), centre.data(), rows.dim)));
    return largest;
}

}  // namespace

Frame Frame::of(const RowSet& bank, const RowSet& queries) {
    const size_t step = std::max<size_t>(1, bank.count / kSample);
    std::vector<double> centre(bank.dim, 0.0);
    double seen = 0.0;
    for (size_t r = 0; r < bank.count; r += step, seen += 1.0)
        for (size_t d = 0; d < bank.dim; ++d) centre[d] += bank.row(r)[d];
    for (double& value : centre) value /= std::max(1.0, seen);
    double norm = largest_norm(bank, centre);
    if (norm == 0.0) norm = largest_norm(queries, centre);
    const double scale = norm > 0.0 ? std::ldexp(1.0, -std::ilogb(norm)) : 1.0;
    return Frame(std::move(centre), scale);
}

double Frame::standardize(const float* row, float* out) const {
    return kernels().standardize(row, centre_.data(), scale_, centre_.size(), out);
}

}  // namespace inreach
