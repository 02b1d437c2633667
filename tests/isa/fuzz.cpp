// Random searches against plain float64 brute force, for as long as one likes: engine_fuzz [SECONDS] [SEED]
// [CASE]. A case follows from the seed and its number; a failure prints both, and `engine_fuzz 0 SEED CASE`
// repeats it alone. `make fuzz` builds it with the address and undefined-behaviour sanitizers.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "engine/leaf_builder.h"
#include "engine/threads.h"
#include "inreach/filter_channels.h"
#include "inreach/interrupt.h"
#include "inreach/nearest.h"

namespace {

using Neighbours = std::vector<std::pair<double, int64_t>>;  // of one query, nearest first

struct Random {
    std::mt19937_64 bits;

    size_t below(size_t end) { return static_cast<size_t>(bits() % end); }
    size_t between(size_t least, size_t most) { return least + below(most - least + 1); }
    bool once_in(size_t n) { return below(n) == 0; }
    double uniform(double least, double most) {
        return std::uniform_real_distribution<double>(least, most)(bits);
    }
    double normal() { return std::normal_distribution<double>()(bits); }
    double power_of_ten(double least, double most) { return std::pow(10.0, uniform(least, most)); }
};

float as_finite(double value) {
    constexpr double kMost = std::numeric_limits<float>::max();
    return static_cast<float>(std::clamp(value, -kMost, kMost));
}

// Rows in memory of their own, for a sanitizer to see what is read beyond them.
struct Rows {
    std::vector<float> data;
    std::vector<int64_t> index, group;
    inreach::RowSet set;
};

// What rows of one case have in common.
struct Kind {
    size_t dim,
        structure;  // 0: isotropic, 1: falling variances, 2: clusters, 3: small integers, 4: all equal
    double scale, shift, fall;
    std::vector<float> clusters;
};

Rows make_rows(Random& random, const Kind& kind, size_t count, bool grouped) {
    Rows rows;
    const size_t stride = kind.dim + (random.once_in(4) ? random.between(1, 7) : 0);
    const bool indexed = random.once_in(3);
    const size_t held = indexed ? random.between(1, 2 * count + 1) : count;
    rows.data.assign(held == 0 ? 0 : (held - 1) * stride + kind.dim, 0.0f);
    const double outliers = random.once_in(3) ? random.uniform(0.0, 0.2) : 0.0;
    for (size_t i = 0; i < held; ++i) {
        float* const row = rows.data.data() + i * stride;
        const size_t cluster = random.below(16);
        double factor = kind.scale;
        if (random.uniform(0.0, 1.0) < outliers) factor = random.power_of_ten(-30.0, 30.0);
        for (size_t d = 0; d < kind.dim; ++d) {
            double value = random.normal();
            if (kind.structure == 1) value *= std::pow(kind.fall, static_cast<double>(d));
            if (kind.structure == 2) value = 0.05 * value + kind.clusters[cluster * kind.dim + d];
            if (kind.structure == 3) value = std::round(value);
            if (kind.structure == 4) value = 1.0;
            row[d] = as_finite(factor * value + kind.shift);
        }
        if (i > 0 && random.once_in(12))
            std::copy_n(rows.data.data() + random.below(i) * stride, kind.dim, row);
    }
    if (indexed)
        for (size_t i = 0; i < count; ++i) rows.index.push_back(static_cast<int64_t>(random.below(held)));
    if (grouped)
        for (size_t i = 0; i < count; ++i) rows.group.push_back(static_cast<int64_t>(random.below(3)));
    rows.set.data = rows.data.data();
    rows.set.count = count, rows.set.dim = kind.dim, rows.set.stride = stride;
    rows.set.index = indexed ? rows.index.data() : nullptr;
    rows.set.group = grouped ? rows.group.data() : nullptr;
    return rows;
}

// Orthonormal directions up to `defect`: of rows, of noise, or axes.
std::vector<float> make_directions(Random& random, const inreach::RowSet& rows, size_t rank, double* defect) {
    const size_t dim = rows.dim, way = random.below(3);
    std::vector<double> v(rank * dim);
    for (size_t r = 0; r < rank; ++r) {
        double* const own = v.data() + r * dim;
        for (int attempt = 0;; ++attempt) {
            for (size_t d = 0; d < dim; ++d) {
                own[d] = way == 2 || attempt > 1 ? (d == r ? 1.0 : 0.0) : random.normal();
                if (way == 0 && attempt == 0 && rows.count > 1)
                    own[d] = static_cast<double>(rows.row(random.below(rows.count))[d]) - rows.row(0)[d];
            }
            if (attempt > 2)
                for (size_t d = 0; d < dim; ++d) own[d] = random.normal();
            double length = 0.0;
            for (int pass = 0; pass < 2; ++pass) {
                for (size_t other = 0; other < r; ++other) {
                    const double* const w = v.data() + other * dim;
                    const double dot = std::inner_product(own, own + dim, w, 0.0);
                    for (size_t d = 0; d < dim; ++d) own[d] -= dot * w[d];
                }
                length = std::sqrt(std::inner_product(own, own + dim, own, 0.0));
                for (size_t d = 0; d < dim; ++d) own[d] /= length;
            }
            if (std::isfinite(length) && length > 0.5) break;
        }
    }
    std::vector<float> out(v.begin(), v.end());
    if (random.once_in(5))  // as bad as a caller's own may be
        for (float& value : out) value += static_cast<float>(1e-4 * random.normal() / std::sqrt(double(dim)));
    double sq = 0.0;
    for (size_t a = 0; a < rank; ++a)
        for (size_t b = 0; b < rank; ++b) {
            double dot = a == b ? -1.0 : 0.0;
            for (size_t d = 0; d < dim; ++d) dot += static_cast<double>(out[a * dim + d]) * out[b * dim + d];
            sq += dot * dot;
        }
    *defect = std::sqrt(sq) + static_cast<double>(rank * dim) * 0x1p-52;
    return out;
}

std::shared_ptr<const inreach::Basis> make_basis(Random& random, const inreach::RowSet& rows) {
    const size_t dim = rows.dim, seen = std::min<size_t>(rows.count, 64);
    std::vector<double> centre(dim, 0.0);
    for (size_t i = 0; i < seen; ++i)
        for (size_t d = 0; d < dim; ++d) centre[d] += static_cast<double>(rows.row(i)[d]) / double(seen);
    double largest = 0.0;
    for (size_t i = 0; i < seen; ++i) {
        double sq = 0.0;
        for (size_t d = 0; d < dim; ++d) sq += std::pow(static_cast<double>(rows.row(i)[d]) - centre[d], 2);
        largest = std::max(largest, std::sqrt(sq));
    }
    double scale = largest > 0.0 ? std::ldexp(1.0, -std::ilogb(largest)) : 1.0;
    if (random.once_in(10)) scale = std::ldexp(scale, static_cast<int>(random.between(0, 80)) - 40);
    if (random.once_in(10)) std::fill(centre.begin(), centre.end(), 0.0);
    double defect = 0.0;
    const size_t rank = random.between(1, std::min<size_t>(dim, random.once_in(8) ? 160 : 40));
    const auto directions = make_directions(random, rows, rank, &defect);
    return inreach::make_basis(centre, scale, rank, directions.data(), defect);
}

struct Failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};
void expect(bool good, const std::string& what) {
    if (!good) throw Failed(what);
}

bool eligible(const inreach::RowSet& queries, size_t q, const inreach::RowSet& bank, size_t j) {
    return queries.group == nullptr || bank.group == nullptr || queries.group[q] != bank.group[j];
}

// Floors of the size of the distances, so that either may be the greater, and ties of both; or none.
std::vector<float> make_floors(Random& random, const inreach::RowSet& queries, const inreach::RowSet& bank) {
    std::vector<float> floors;
    if (random.once_in(2)) return floors;
    const double factors[] = {0.0, 0.5, 1.0, 2.0, std::numeric_limits<double>::infinity()};
    const size_t kinds = random.between(1, 5);
    for (size_t j = 0; j < bank.count; ++j) {
        const double sq =
            inreach::kernels().sq_distance(queries.row(random.below(queries.count)), bank.row(j), bank.dim);
        const double factor = factors[random.below(kinds)];
        floors.push_back(std::isinf(factor) ? std::numeric_limits<float>::infinity()
                                            : as_finite(sq * factor));
    }
    return floors;
}

// All rows that are eligible for a query, nearest first, ties by number.
Neighbours ranked(const inreach::RowSet& queries, size_t q, const inreach::RowSet& bank) {
    Neighbours all;
    for (size_t j = 0; j < bank.count; ++j)
        if (eligible(queries, q, bank, j) && !(bank.floor && std::isinf(bank.floor[j]))) {
            const double sq = inreach::kernels().sq_distance(queries.row(q), bank.row(j), bank.dim);
            all.emplace_back(bank.floor ? std::max(sq, static_cast<double>(bank.floor[j])) : sq,
                             static_cast<int64_t>(j));
        }
    std::sort(all.begin(), all.end());
    return all;
}

struct Answer {
    std::vector<int64_t> index;
    std::vector<float> sq_distance;
    explicit Answer(size_t count) : index(count, -2), sq_distance(count, -1.0f) {}
};

void check(const char* search, const Answer& found, const std::vector<Neighbours>& right, size_t k) {
    for (size_t q = 0; q < right.size(); ++q)
        for (size_t i = 0; i < k; ++i) {
            const bool there = i < right[q].size();
            const int64_t index = there ? right[q][i].second : -1;
            const float sq = there ? static_cast<float>(right[q][i].first) : INFINITY;
            const float given = found.sq_distance[q * k + i];
            expect(found.index[q * k + i] == index && std::memcmp(&given, &sq, sizeof sq) == 0,
                   std::string(search) + ": query " + std::to_string(q) + ", neighbour " + std::to_string(i));
        }
}

// Runs an operation that is asked to stop at its first question, then to its end: what was stopped leaves
// nothing behind.
template <typename Operation>
void with_interruption(bool interrupted, Operation&& operation) {
    if (interrupted) {
        try {
            const inreach::InterruptScope scope([] { return true; });
            operation();
        } catch (const inreach::Interrupted&) {
        }
    }
    operation();
}

// The index in memory of the caller's, as one that is mapped from a file: the same answers. Then with some of
// its bytes damaged: it is refused, or gives some answer.
std::shared_ptr<const inreach::LeafIndex> in_own_arrays(Random& random, const inreach::Basis& basis,
                                                        const inreach::RowSet& rows, bool damaged,
                                                        std::vector<std::vector<char>>* kept) {
    inreach::BuildMemory memory;
    memory.limit = random.once_in(2) ? random.between(1, size_t{1} << 24) : 0;
    inreach::LeafBuilder builder(basis, rows, nullptr, memory);
    inreach::LeafArrays arrays = builder.allocate(), views;
    builder.fill(arrays);
    if (random.once_in(4)) builder.fill(arrays);
    const size_t target = damaged ? random.below(19) : 19;
    size_t number = 0;
    std::vector<std::pair<const char*, size_t>> sources;
    inreach::LeafArrays::each(arrays, [&](const char*, auto& array) {
        sources.emplace_back(reinterpret_cast<const char*>(array.data()), array.size() * sizeof(array[0]));
    });
    inreach::LeafArrays::each(views, [&](const char*, auto& array) {
        using T = std::decay_t<decltype(array[0])>;
        const auto [data, bytes] = sources[number];
        kept->emplace_back(bytes);
        char* const copy = kept->back().data();
        if (bytes != 0) std::memcpy(copy, data, bytes);
        if (number == target && bytes != 0)
            for (size_t i = random.between(1, 8); i > 0; --i)
                copy[random.below(bytes)] = static_cast<char>(random.below(256));
        array = inreach::StoredArray<T>::view(reinterpret_cast<const T*>(copy), bytes / sizeof(T));
        ++number;
    });
    return std::make_shared<const inreach::LeafIndex>(basis, rows.count, std::move(views));
}

void check_searches(Random& random, const Rows& asked, const Rows& searched, const inreach::Basis& basis) {
    const inreach::RowSet& queries = asked.set;
    inreach::RowSet bank = searched.set;
    const std::vector<float> floors = make_floors(random, queries, bank);
    if (!floors.empty()) bank.floor = floors.data();
    const size_t k = random.once_in(3) ? random.between(1, 40) : 1;
    std::vector<Neighbours> right;
    for (size_t q = 0; q < queries.count; ++q) right.push_back(ranked(queries, q, bank));
    const bool stopped = random.once_in(6);

    Answer brute(queries.count * k);
    with_interruption(stopped, [&] {
        inreach::nearest_brute(queries, bank, k, brute.index.data(), brute.sq_distance.data());
    });
    check("nearest_brute", brute, right, k);

    const auto projected = inreach::project_rows(basis, queries);
    std::shared_ptr<const inreach::LeafIndex> index;
    std::vector<std::vector<char>> arrays;
    const auto of_bank = random.once_in(2) ? inreach::project_rows(basis, bank) : nullptr;
    with_interruption(stopped, [&] { index = inreach::make_leaf_index(basis, bank, of_bank.get()); });
    if (random.once_in(3)) index = in_own_arrays(random, basis, bank, false, &arrays);
    std::vector<int64_t> hint(queries.count);
    for (int64_t& row : hint) row = static_cast<int64_t>(random.below(bank.count + 1)) - 1;
    for (size_t q = 0; q < queries.count; ++q)  // a hint of the query's own group would be passed over
        if (hint[q] >= 0 && !eligible(queries, q, bank, static_cast<size_t>(hint[q]))) hint[q] = -1;
    const int64_t* const hints = random.once_in(2) ? hint.data() : nullptr;
    Answer pruned(queries.count * k);
    with_interruption(stopped, [&] {
        inreach::nearest_pruned(queries, *projected, bank, basis, *index, k, hints, pruned.index.data(),
                                pruned.sq_distance.data());
    });
    check("nearest_pruned", pruned, right, k);

    Answer near(queries.count);
    std::vector<float> lower(queries.count);
    inreach::nearest_bounds(queries, *projected, bank, basis, *index, hints, near.index.data(),
                            near.sq_distance.data(), lower.data());
    for (size_t q = 0; q < queries.count; ++q) {
        const double least = right[q].empty() ? INFINITY : right[q][0].first;
        const auto nearest = static_cast<float>(least);
        expect(lower[q] <= nearest && nearest <= near.sq_distance[q],
               "nearest_bounds: query " + std::to_string(q));
    }

    if (!queries.group && !bank.floor) {
        Answer ab(queries.count), ba(bank.count);
        inreach::mutual_nearest_brute(queries, bank, ab.index.data(), ab.sq_distance.data(), ba.index.data(),
                                      ba.sq_distance.data());
        check("mutual_nearest_brute, there", ab, right, 1);
        std::vector<Neighbours> back;
        for (size_t j = 0; j < bank.count; ++j) {
            Neighbours best;
            for (size_t q = 0; q < queries.count; ++q) {
                const std::pair<double, int64_t> one(
                    inreach::kernels().sq_distance(bank.row(j), queries.row(q), bank.dim),
                    static_cast<int64_t>(q));
                if (best.empty() || one < best[0]) best.assign(1, one);
            }
            back.push_back(best);
        }
        check("mutual_nearest_brute, back", ba, back, 1);
    }

    if (random.once_in(4)) try {
            std::vector<std::vector<char>> damaged;
            const auto broken = in_own_arrays(random, basis, bank, true, &damaged);
            inreach::nearest_pruned(queries, *projected, bank, basis, *broken, k, hints, pruned.index.data(),
                                    pruned.sq_distance.data());
            inreach::nearest_bounds(queries, *projected, bank, basis, *broken, hints, near.index.data(),
                                    near.sq_distance.data(), lower.data());
        } catch (const std::invalid_argument&) {
        }
    (void)inreach::participation(bank, random.between(1, 128));
    expect(inreach::first_nonfinite_row(bank) == -1, "first_nonfinite_row");
}

void check_spread(Random& random, const Rows& rows) {
    const size_t channels = random.between(1, 6), dim = rows.set.dim,
                 held = rows.data.size() / rows.set.stride;
    if (rows.set.stride != dim || held == 0) return;
    std::vector<int64_t> members, starts{0};
    for (size_t c = 0; c < channels; ++c) {
        for (size_t i = random.below(9); i > 0; --i)
            members.push_back(static_cast<int64_t>(random.below(held)));
        starts.push_back(static_cast<int64_t>(members.size()));
    }
    std::vector<double> distance(members.size()), sigma(channels);
    inreach::channel_spread({rows.data.data(), dim, members.data(), starts.data(), channels}, distance.data(),
                            sigma.data());
    for (size_t c = 0; c < channels; ++c) {
        const auto begin = static_cast<size_t>(starts[c]), end = static_cast<size_t>(starts[c + 1]);
        if (begin == end) continue;
        std::vector<double> mean(dim, 0.0);
        const auto row = [&](size_t i) { return rows.data.data() + static_cast<size_t>(members[i]) * dim; };
        for (size_t i = begin; i < end; ++i)
            for (size_t d = 0; d < dim; ++d) mean[d] += row(i)[d];
        double largest = 0.0;
        for (double& value : mean) value /= double(end - begin);
        for (size_t i = begin; i < end; ++i)
            for (size_t d = 0; d < dim; ++d)
                largest = std::max({largest, std::abs(mean[d]), std::abs(double(row(i)[d]))});
        for (size_t i = begin; i < end; ++i) {
            double sq = 0.0;
            for (size_t d = 0; d < dim; ++d) sq += std::pow(row(i)[d] - mean[d], 2);
            expect(std::abs(distance[i] - std::sqrt(sq)) <= 1e-11 * (std::sqrt(sq) + double(dim) * largest),
                   "channel_spread: member " + std::to_string(i));
        }
    }
}

void run_case(uint64_t seed, uint64_t number) {
    std::seed_seq sequence{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                           static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32)};
    Random random{std::mt19937_64(sequence)};
    const auto levels = inreach::isa_levels();
    inreach::set_isa(levels[random.below(levels.size())]);
    inreach::set_num_threads(static_cast<int>(random.between(1, 3)));

    const auto kind_of = [&](size_t dim) {
        Kind kind{dim, random.below(5), random.power_of_ten(-30.0, 30.0), 0.0, random.uniform(0.6, 1.0), {}};
        if (kind.structure == 4 && !random.once_in(4)) kind.structure = 1;
        if (random.once_in(3)) kind.scale = 1.0;
        if (random.once_in(3)) kind.shift = kind.scale * random.power_of_ten(-2.0, 20.0);
        for (size_t i = 0; i < 16 * dim; ++i) kind.clusters.push_back(static_cast<float>(random.normal()));
        return kind;
    };
    const size_t dim = random.once_in(6) ? random.between(1, 400) : random.between(1, 70);
    const size_t most = random.once_in(20) ? 12000 : random.once_in(4) ? 3000 : 600;
    const size_t rows = random.between(1, dim > 100 ? most / 4 + 1 : most);
    const bool grouped = random.once_in(4);
    const Kind kind = kind_of(dim), other = random.once_in(3) ? kind_of(dim) : kind;
    const Rows bank = make_rows(random, kind, rows, grouped);
    const Rows queries = make_rows(random, random.once_in(3) ? other : kind, random.between(1, 60), grouped);
    const Rows third = make_rows(random, other, random.between(1, 100), false);
    // The basis is the bank's, the queries', or of rows that have nothing to do with either: all are shared.
    const Rows& basis_rows = random.once_in(3) ? third : random.once_in(3) ? queries : bank;
    const auto basis = make_basis(random, basis_rows.set);
    check_searches(random, queries, bank, *basis);
    check_spread(random, bank);
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 10.0;
    const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
    const bool one = argc > 3;
    uint64_t number = one ? std::strtoull(argv[3], nullptr, 10) : 0;
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    double told = 0.0;
    do {
        try {
            run_case(seed, number);
        } catch (const std::exception& error) {
            std::printf("FAILED: seed %llu, case %llu: %s\n", static_cast<unsigned long long>(seed),
                        static_cast<unsigned long long>(number), error.what());
            return 1;
        }
        ++number;
        if (elapsed() - told >= 60.0) {
            told = elapsed();
            std::printf("%.0f s: %llu cases\n", told, static_cast<unsigned long long>(number));
            std::fflush(stdout);
        }
    } while (!one && elapsed() < seconds);
    std::printf("%llu cases, none failed\n", static_cast<unsigned long long>(number));
    return 0;
}
