#include "engine/frame.h"

#include <algorithm>

#include "dispatch.h"

namespace inreach {
namespace {

constexpr size_t kSample = 512;

double largest_norm(const RowSet& rows, const std::vector<double>& centre) {
    const size_t step = std::max<size_t>(1, rows.count / kSample);
    double largest = 0.0;
    for (size_t r = 0; r < rows.count; r += step) {
        double sq = 0.0;
        for (size_t d = 0; d < rows.dim; ++d) {
            const double difference = static_cast<double>(rows.row(r)[d]) - centre[d];
            sq += difference * difference;
        }
        largest = std::max(largest, std::sqrt(sq));
    }
    return largest;
}

}  // namespace

Frame Frame::of(const RowSet& bank, const RowSet& queries) {
    const size_t step = std::max<size_t>(1, bank.count / kSample);
    std::vector<double> centre(bank.dim, 0.0);
    double seen = 0.0;
    for (size_t r = 0; r < bank.count; r += step, seen += 1.0)
        for (size_t d = 0; d < bank.dim; ++d) centre[d] += bank.row(r)[d];
    for (double& value : centre) value /= seen;
    double norm = largest_norm(bank, centre);
    if (norm == 0.0) norm = largest_norm(queries, centre);
    const double scale = norm > 0.0 ? std::ldexp(1.0, -std::ilogb(norm)) : 1.0;
    return Frame(std::move(centre), scale);
}

double Frame::standardize(const float* row, float* out) const {
    return kernels().standardize(row, centre_.data(), scale_, centre_.size(), out);
}

}  // namespace inreach
