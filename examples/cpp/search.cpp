// Three nearest rows of a few queries: by brute force, and by bounds through an index.
#include <inreach/nearest.h>

#include <cstdio>
#include <random>
#include <vector>

int main() {
    constexpr size_t kDim = 128, kRows = 20000, kQueries = 4, kNearest = 3, kRank = 64;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto random_rows = [&](size_t count) {  // the later a dimension, the less it varies
        std::vector<float> values(count * kDim);
        for (size_t i = 0; i < values.size(); ++i)
            values[i] = normal(random) / static_cast<float>(1 + i % kDim);
        return values;
    };
    const std::vector<float> bank_values = random_rows(kRows), query_values = random_rows(kQueries);
    inreach::RowSet bank, queries;
    bank.data = bank_values.data(), bank.count = kRows, bank.dim = bank.stride = kDim;
    queries.data = query_values.data(), queries.count = kQueries, queries.dim = queries.stride = kDim;

    std::vector<int64_t> index(kQueries * kNearest), by_bounds(kQueries * kNearest);
    std::vector<float> sq_distance(index.size());
    inreach::nearest_brute(queries, bank, kNearest, index.data(), sq_distance.data());

    // Any orthonormal directions will do: here the axes that vary most.
    std::vector<float> axes(kRank * kDim);
    for (size_t i = 0; i < kRank; ++i) axes[i * kDim + i] = 1.0f;
    const auto basis = inreach::make_basis(std::vector<double>(kDim, 0.0), 0.5, kRank, axes.data(), 0.0);
    const auto leaf_index = inreach::make_leaf_index(*basis, bank);
    const auto projected = inreach::project_rows(*basis, queries);
    const inreach::SearchCounts counts =
        inreach::nearest_pruned(queries, *projected, bank, *basis, *leaf_index, kNearest, nullptr,
                                by_bounds.data(), sq_distance.data());

    for (size_t q = 0; q < kQueries; ++q)
        for (size_t i = q * kNearest; i < (q + 1) * kNearest; ++i)
            std::printf("query %zu: row %5lld at squared distance %.4f\n", q,
                        static_cast<long long>(index[i]), static_cast<double>(sq_distance[i]));
    std::printf("bounds decided %llu of %llu pairs\n", static_cast<unsigned long long>(counts.decided),
                static_cast<unsigned long long>(counts.pairs));
    return index == by_bounds ? 0 : 1;
}
