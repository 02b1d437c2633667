// Every kernel of every instruction set that this machine can run, against the scalar one, on random data:
// EXACT kernels bit for bit, FILTER kernels within the bound that kernels.h promises. Then whole searches
// under each of them. Needs no Python: `make neon-test` runs it under qemu-user, `make windows-test` under
// Wine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "engine/rounding.h"
#include "inreach/convolution.h"
#include "inreach/interrupt.h"
#include "inreach/linear_map.h"
#include "inreach/nearest.h"

namespace {

using inreach::Activation;
using inreach::gamma32;
using inreach::kBlockRows;
using inreach::kCodeGroup;
using inreach::KernelTable;
using inreach::kStripRows;
using inreach::kTileRows;

std::mt19937 generator(7);
int failures = 0;
long checks = 0;

void expect(bool good, const std::string& what) {
    ++checks;
    if (good) return;
    if (++failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

std::vector<float> normal(size_t n, float scale = 1.0f) {
    std::normal_distribution<float> distribution(0.0f, scale);
    std::vector<float> values(n);
    for (float& value : values) value = distribution(generator);
    return values;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void compare_sq_distance(const KernelTable& one, const KernelTable& scalar) {
    for (const float scale : {1e-38f, 1e-3f, 1.0f, 1e30f})
        for (size_t dim = 1; dim <= 80; ++dim) {
            const auto a = normal(dim, scale), b = normal(dim, scale);
            const double x = one.sq_distance(a.data(), b.data(), dim),
                         y = scalar.sq_distance(a.data(), b.data(), dim);
            expect(std::memcmp(&x, &y, sizeof x) == 0, "sq_distance, dim " + std::to_string(dim));
        }
}

void compare_sq_distance32(const KernelTable& one, const KernelTable& scalar) {
    for (const float scale : {1e-12f, 1.0f, 1e12f})
        for (size_t dim = 1; dim <= 200; ++dim) {
            const auto a = normal(dim, scale);
            auto b = normal(dim, scale);
            if (dim % 3 == 0)  // nearly the same
                for (size_t i = 0; i < dim; ++i) b[i] = a[i] * (1.0f + 1e-5f * b[i] / scale);
            const double exact = scalar.sq_distance(a.data(), b.data(), dim);
            const double sq = one.sq_distance32(a.data(), b.data(), dim);
            expect(std::abs(sq - exact) <= gamma32(dim / 16 + 40) * exact + 1e-40,
                   "sq_distance32, dim " + std::to_string(dim));
        }
}

void compare_standardize(const KernelTable& one, const KernelTable& scalar) {
    for (const double scale : {0.25, 1.0, 1048576.0})
        for (size_t dim = 1; dim <= 80; ++dim) {
            const auto row = normal(dim, 3.0f), shift = normal(dim);
            const std::vector<double> centre(shift.begin(), shift.end());
            std::vector<float> x(dim), y(dim);
            const double sx = one.standardize(row.data(), centre.data(), scale, dim, x.data());
            const double sy = scalar.standardize(row.data(), centre.data(), scale, dim, y.data());
            expect(same_bits(x, y), "standardize: values, dim " + std::to_string(dim));
            expect(std::abs(sx - sy) <= 2.0 * static_cast<double>(dim) * 1.2e-16 * sy, "standardize: sum");
        }
}

// start + sum of products in float64 (error negligible), and the sum of the terms' sizes.
struct Dot {
    double value, size;
};
Dot exact_dot(const float* block, size_t depth, const float* row, size_t j, double start) {
    Dot dot{start, std::abs(start)};
    for (size_t d = 0; d < depth; ++d) {
        const double term = static_cast<double>(row[d]) * block[d * kBlockRows + j];
        dot.value += term;
        dot.size += std::abs(term);
    }
    return dot;
}

void compare_tiles(const KernelTable& one) {
    for (const size_t depth : {size_t{1}, size_t{2}, size_t{17}, size_t{33}, size_t{128}}) {
        const size_t stride = depth + 3;
        const auto block = normal(depth * kBlockRows), rows = normal(kTileRows * stride),
                   init = normal(kBlockRows);
        for (size_t count = 1; count <= static_cast<size_t>(kTileRows); ++count)
            for (const bool start : {false, true}) {
                const auto held = normal(kTileRows * kBlockRows);
                auto out = held;
                one.dot_tile(block.data(), depth, rows.data(), stride, count, start ? init.data() : nullptr,
                             out.data());
                for (size_t r = 0; r < static_cast<size_t>(kTileRows); ++r)
                    for (size_t j = 0; j < static_cast<size_t>(kBlockRows); ++j) {
                        const size_t at = r * kBlockRows + j;
                        if (r >= count) {
                            expect(out[at] == held[at], "dot_tile: writes past its rows");
                            continue;
                        }
                        const Dot dot = exact_dot(block.data(), depth, rows.data() + r * stride, j,
                                                  start ? init[j] : 0.0);
                        expect(std::abs(out[at] - dot.value) <= gamma32(depth + 1) * dot.size,
                               "dot_tile: rounding bound, depth " + std::to_string(depth));
                    }
            }
        std::vector<float> out(kBlockRows);
        const float threshold = 0.3f;
        const uint64_t bits =
            one.scan_block(block.data(), depth, rows.data(), threshold, init.data(), out.data());
        for (size_t j = 0; j < static_cast<size_t>(kBlockRows); ++j) {
            const Dot dot = exact_dot(block.data(), depth, rows.data(), j, init[j]);
            expect(std::abs(out[j] - dot.value) <= gamma32(depth + 4) * dot.size,
                   "scan_block: rounding bound");
            expect(((bits >> j) & 1) == (out[j] >= threshold), "scan_block: bits");
        }
    }
}

// Rows in panels or strips, as kernels.h lays them out; rows that fill up the last one are infinite, so that
// none of them can be taken in unseen.
std::vector<float> packed(const std::vector<float>& rows, size_t depth, size_t count, size_t together) {
    std::vector<float> out((count + together - 1) / together * together * depth, INFINITY);
    for (size_t r = 0; r < count; ++r)
        for (size_t d = 0; d < depth; ++d)
            out[(r / together * depth + d) * together + r % together] = rows[r * depth + d];
    return out;
}

enum class Start { kNothing, kInit, kHeld };

void compare_panels(const KernelTable& one, size_t depth, size_t count, size_t width, Start start,
                    bool limited) {
    constexpr uint64_t kUntouched = 0x5555;
    const auto rows = normal(count * depth), columns = normal(width * depth), init = normal(kBlockRows),
               held = normal(count * kBlockRows);
    const auto panels = packed(rows, depth, count, kTileRows),
               strips = packed(columns, depth, width, kStripRows);
    std::vector<float> limits(count);  // that nearly all, some, hardly any reach
    for (size_t r = 0; r < count; ++r)
        limits[r] = std::sqrt(static_cast<float>(depth)) * std::vector<float>{-3.0f, 1.0f, 3.5f}[r % 3];
    std::vector<uint64_t> pass(count + 1, kUntouched);
    auto out = held;
    one.dot_panels(strips.data(), panels.data(), depth, count, width,
                   start == Start::kInit ? init.data() : nullptr, start == Start::kHeld,
                   limited ? limits.data() : nullptr, out.data(), pass.data());
    expect(pass[limited ? count : 0] == kUntouched, "dot_panels: bits that nobody asked for");
    for (size_t r = 0; r < count; ++r)
        for (size_t j = 0; j < static_cast<size_t>(kBlockRows); ++j) {
            const size_t at = r * kBlockRows + j;
            if (j >= (width + kStripRows - 1) / kStripRows * kStripRows)
                expect(out[at] == held[at], "dot_panels: writes past its strips");
            if (j >= width) continue;
            double sum = start == Start::kInit ? init[j] : start == Start::kHeld ? held[at] : 0.0;
            double size = std::abs(sum);
            for (size_t d = 0; d < depth; ++d) {
                const double term = static_cast<double>(rows[r * depth + d]) * columns[j * depth + d];
                sum += term;
                size += std::abs(term);
            }
            const double bound = gamma32(depth + 1) * size;
            const bool passes = limited && ((pass[r] >> j) & 1) != 0;
            if (!limited || passes)
                expect(std::abs(out[at] - sum) <= bound,
                       "dot_panels: rounding bound, depth " + std::to_string(depth));
            if (passes) expect(out[at] >= limits[r], "dot_panels: passes below its limit");
            if (limited && !passes) expect(sum - bound < limits[r], "dot_panels: ruled out above its limit");
        }
}

void compare_panels(const KernelTable& one) {
    for (const size_t depth : {1, 2, 17, 32, 128})
        for (const size_t count : {1, 2, 3, 4, 5, 6, 20})
            for (const size_t width : {1, 16, 17, 40, 61, 64})
                for (const Start start : {Start::kNothing, Start::kInit, Start::kHeld})
                    for (const bool limited : {false, true})
                        compare_panels(one, depth, count, width, start, limited);
}

void compare_add_to_sums(const KernelTable& one, const KernelTable& scalar) {
    for (const size_t count : {0, 16, 64, 384}) {
        const auto values = normal(std::max<size_t>(1, count), 1e3f);
        std::vector<double> x(count + 1, 0.125), y = x;
        for (int round = 0; round < 3; ++round) {
            one.add_to_sums(values.data(), count, x.data());
            scalar.add_to_sums(values.data(), count, y.data());
        }
        expect(x == y && x.back() == 0.125, "add_to_sums");
    }
}

void compare_at_least(const KernelTable& one, const KernelTable& scalar) {
    for (int round = 0; round < 50; ++round) {
        auto values = normal(kBlockRows), thresholds = normal(kBlockRows);
        for (size_t j = 0; j < 8; ++j) values[j] = thresholds[j];  // equality counts
        thresholds[9] = INFINITY, thresholds[10] = -INFINITY, thresholds[11] = 3.4e38f;
        for (const float shift : {0.0f, 0.25f, -1.5f})
            expect(one.at_least(values.data(), thresholds.data(), shift) ==
                       scalar.at_least(values.data(), thresholds.data(), shift),
                   "at_least");
    }
}

void compare_code_distances(const KernelTable& one) {
    std::uniform_int_distribution<int> code(-127, 127);
    for (size_t groups = 0; groups <= 16; ++groups)
        for (int round = 0; round < 20; ++round) {
            const size_t n = groups * kCodeGroup, stride = n + 5, rows = 7;
            const std::vector<uint8_t> places{6, 0, 3, 3, 5};
            std::vector<int8_t> codes(rows * stride);
            for (int8_t& value : codes) value = static_cast<int8_t>(code(generator));
            const auto row = normal(std::max<size_t>(1, n), 60.0f),
                       centre = normal(std::max<size_t>(1, n), 3.0f);
            auto steps = normal(std::max<size_t>(1, groups));
            for (float& step : steps) step = std::abs(step) + 1e-3f;
            std::vector<float> out(places.size() + 1, -7.0f);
            one.code_distances(codes.data(), stride, places.data(), places.size(), row.data(), centre.data(),
                               steps.data(), groups, out.data());
            expect(out.back() == -7.0f, "code_distances: wrote too far");
            for (size_t p = 0; p < places.size(); ++p) {
                double exact = 0.0, size_sq = 0.0;
                for (size_t i = 0; i < n; ++i) {
                    const double place = static_cast<double>(row[i]) - centre[i];
                    const double coded =
                        static_cast<double>(steps[i / kCodeGroup]) * codes[places[p] * stride + i];
                    exact += (place - coded) * (place - coded);
                    size_sq += std::pow(std::abs(place) + std::abs(coded), 2);
                }
                const double relative = gamma32(48 + groups);
                // Each difference is off on its own, which moves the length by at most the length of all
                // that.
                expect(std::abs(std::sqrt(static_cast<double>(out[p])) - std::sqrt(exact)) <=
                           relative * std::sqrt(exact) +
                               2.0 * inreach::kUnit32 * std::sqrt(size_sq) * (1.0 + relative),
                       "code_distances: rounding bound");
            }
        }
}

void compare_quantize(const KernelTable& one) {
    for (const float scale : {1e-35f, 1e-20f, 1.0f, 1e11f})
        for (int round = 0; round < 30; ++round) {
            const auto row = normal(inreach::kScanDims, scale), centre = normal(inreach::kScanDims, scale);
            std::vector<int8_t> codes(inreach::kScanDims);
            const inreach::Quantized q =
                one.quantize(row.data(), round ? centre.data() : row.data(), codes.data());
            double missed_sq = 0.0, place_sq = 0.0;
            int32_t sum = 0, sq_sum = 0;
            for (size_t d = 0; d < static_cast<size_t>(inreach::kScanDims); ++d) {
                const double place = static_cast<double>(row[d]) - (round ? centre[d] : row[d]);
                const double missed = place - static_cast<double>(q.step) * codes[d];
                missed_sq += missed * missed, place_sq += place * place;
                sum += codes[d], sq_sum += codes[d] * codes[d];
                expect(codes[d] >= -127, "quantize: a code of -128");
            }
            expect(q.step > 0.0f && q.sum == sum && q.sq_sum == sq_sum, "quantize: step and sums");
            const double missed = std::sqrt(missed_sq);
            expect(std::abs(std::sqrt(static_cast<double>(q.sq_error)) - missed) <=
                       gamma32(72) * missed + 2.0 * inreach::kUnit32 * std::sqrt(place_sq) + 1e-18,
                   "quantize: what was missed");
        }
}

void compare_scan_codes(const KernelTable& one) {
    std::uniform_int_distribution<int> code(-127, 127);
    constexpr size_t kDims = inreach::kScanDims, kRows = kBlockRows;
    for (int round = 0; round < 100; ++round) {
        std::vector<uint8_t> block(kDims * kRows);
        std::vector<int8_t> row(kDims);
        // The extremes, where sums of pairs are largest, and between.
        const auto draw = [&] { return round < 4 ? (code(generator) < 0 ? -127 : 127) : code(generator); };
        int32_t row_sum = 0;
        for (int8_t& value : row) value = static_cast<int8_t>(draw()), row_sum += value;
        if (round == 0)
            std::fill(row.begin(), row.end(), int8_t{127}), row_sum = 127 * static_cast<int32_t>(kDims);
        for (uint8_t& value : block) value = static_cast<uint8_t>((round == 0 ? -127 : draw()) + 128);
        const auto tails = normal(kRows), halves = normal(kRows);
        const float scale = 1e-3f, tail = 0.7f, threshold = 0.1f;
        std::vector<float> out(kRows);
        const uint64_t bits = one.scan_codes(block.data(), row.data(), row_sum, scale, tail, tails.data(),
                                             halves.data(), threshold, out.data());
        for (size_t j = 0; j < kRows; ++j) {
            int64_t dot = 0;
            for (size_t d = 0; d < kDims; ++d)
                dot += (static_cast<int64_t>(block[d / 4 * 4 * kRows + 4 * j + d % 4]) - 128) * row[d];
            const double products[3] = {static_cast<double>(scale) * static_cast<double>(dot),
                                        static_cast<double>(tail) * tails[j],
                                        -static_cast<double>(halves[j])};
            const double exact = products[0] + products[1] + products[2];
            const double size = std::abs(products[0]) + std::abs(products[1]) + std::abs(products[2]);
            expect(std::abs(out[j] - exact) <= gamma32(4) * size, "scan_codes: rounding bound");
            expect(((bits >> j) & 1) == (out[j] >= threshold), "scan_codes: bits");
        }
        auto unknown = halves;
        unknown[5] = NAN;
        expect((one.scan_codes(block.data(), row.data(), row_sum, scale, tail, tails.data(), unknown.data(),
                               threshold, out.data()) |
                uint64_t{1} << 5) == (bits | uint64_t{1} << 5) &&
                   std::isnan(out[5]),
               "scan_codes: NaN changes other rows");
        expect(one.scan_codes(block.data(), row.data(), row_sum, scale, tail, tails.data(), unknown.data(),
                              threshold, out.data()) >>
                       5 &
                   1,
               "scan_codes: NaN must pass");
    }
}

void compare_collect(const KernelTable& one) {
    for (int round = 0; round < 50; ++round)
        for (const size_t count : {size_t{1}, size_t{7}, size_t{16}, size_t{63}, size_t{64}}) {
            const auto dots = normal(count);
            auto radius = normal(count);
            for (float& value : radius) value = std::abs(value);
            std::vector<uint32_t> out(kBlockRows + 16);
            const size_t found =
                one.collect_in_reach(dots.data(), radius.data(), count, 2.0f, 0.5f, out.data());
            size_t at = 0;
            for (size_t i = 0; i < count; ++i) {
                const double sq = 2.0 - 2.0 * static_cast<double>(dots[i]);
                const double limit = std::pow(0.5 + static_cast<double>(radius[i]), 2);
                const double doubt = 8 * inreach::kUnit32 * (2.0 + 2.0 * std::abs(dots[i]) + limit);
                const bool in = at < found && out[at] == i;
                if (in) ++at;
                if (std::abs(sq - limit) > doubt) expect(in == (sq <= limit), "collect_in_reach");
            }
            expect(at == found, "collect_in_reach: indices out of order or twice");
        }
}

void compare_describe(const KernelTable& one, const KernelTable& scalar) {
    for (const size_t rows : {size_t{1}, size_t{5}, size_t{8}, size_t{33}})
        for (const size_t columns : {size_t{1}, size_t{7}, size_t{16}, size_t{40}}) {
            const auto src = normal(rows * (columns + 3));
            const auto held = normal(columns * (rows + 5));
            auto x = held, y = held;
            one.describe.transpose(src.data(), static_cast<ptrdiff_t>(columns + 3), x.data(),
                                   static_cast<ptrdiff_t>(rows + 5), rows, columns);
            scalar.describe.transpose(src.data(), static_cast<ptrdiff_t>(columns + 3), y.data(),
                                      static_cast<ptrdiff_t>(rows + 5), rows, columns);
            expect(same_bits(x, y), "describe.transpose");
        }
    for (const size_t n : {size_t{16}, size_t{48}, size_t{112}, size_t{208}})
        for (const size_t taps : {size_t{1}, size_t{2}, size_t{9}, size_t{23}})
            for (const bool resume : {false, true}) {
                const auto src = normal(1024), weight = normal(taps), held = normal(n);
                std::uniform_int_distribution<int32_t> place(0, 1023 - static_cast<int32_t>(n));
                std::vector<int32_t> offset(taps);
                for (int32_t& value : offset) value = place(generator);
                auto x = held, y = held;
                one.describe.sum_taps(src.data(), offset.data(), weight.data(), taps, resume, x.data(), n);
                scalar.describe.sum_taps(src.data(), offset.data(), weight.data(), taps, resume, y.data(), n);
                expect(same_bits(x, y), "describe.sum_taps");
            }
    for (size_t n = 1; n <= 70; ++n) {
        const auto a = normal(n), b = normal(n);
        std::vector<float> x(n), y(n);
        one.describe.blend(a.data(), b.data(), 0.3f, 0.7f, x.data(), n);
        scalar.describe.blend(a.data(), b.data(), 0.3f, 0.7f, y.data(), n);
        expect(same_bits(x, y), "describe.blend");
    }
}

void compare_map_rows(const KernelTable& one, const KernelTable& scalar) {
    for (const size_t depth : {size_t{1}, size_t{2}, size_t{33}})
        for (const size_t width : {size_t{16}, size_t{48}, size_t{64}, size_t{144}})
            for (size_t count = 1; count <= static_cast<size_t>(inreach::kMapRows); ++count)
                for (const bool resume : {false, true}) {
                    const size_t stride = depth + 3;
                    const auto rows = normal(count * stride), matrix = normal(depth * width),
                               held = normal(count * width + 1);
                    auto x = held, y = held;
                    one.map_rows(rows.data(), stride, count, matrix.data(), width, depth, resume, x.data());
                    scalar.map_rows(rows.data(), stride, count, matrix.data(), width, depth, resume,
                                    y.data());
                    expect(same_bits(x, y) && x.back() == held.back(), "map_rows");
                }
}

inreach::RowSet rows_of(const std::vector<float>& values, size_t dim) {
    inreach::RowSet rows;
    rows.data = values.data(), rows.count = values.size() / dim, rows.dim = rows.stride = dim;
    return rows;
}

// Every element as the header states it, in plain loops.
void compare_linear_map() {
    for (const size_t dim : {size_t{1}, size_t{63}, size_t{64}, size_t{150}})
        for (const size_t outputs : {size_t{1}, size_t{16}, size_t{37}}) {
            constexpr size_t kRows = 50;
            const auto rows = normal(kRows * dim, 3.0f), mean = normal(dim), matrix = normal(dim * outputs);
            std::vector<float> out(kRows * outputs + 1, -7.0f), expected = out;
            for (size_t i = 0; i < kRows; ++i)
                for (size_t j = 0; j < outputs; ++j) {
                    // volatile: no product and sum may be rounded as one.
                    volatile float sum = 0.0f;
                    for (size_t d = 0; d < dim; ++d) {
                        volatile float term = rows[i * dim + d] - mean[d];
                        term = term * matrix[d * outputs + j];
                        sum = d == 0 ? term : sum + term;
                    }
                    expected[i * outputs + j] = sum;
                }
            inreach::linear_map(rows.data(), kRows, dim, mean.data(), matrix.data(), outputs, out.data());
            expect(same_bits(out, expected),
                   "linear_map, " + std::to_string(dim) + " to " + std::to_string(outputs));
        }
}

// Floors as large as distances, equal to some, zero or infinite: both bounds and floors rule rows out.
std::vector<float> floors_of(const inreach::RowSet& bank, const KernelTable& scalar) {
    std::vector<float> floors(bank.count);
    for (size_t j = 0; j < bank.count; ++j) {
        const double sq = scalar.sq_distance(bank.row(j), bank.row((j * 7 + 1) % bank.count), bank.dim);
        floors[j] = j % 11 == 0   ? 0.0f
                    : j % 13 == 0 ? INFINITY
                                  : static_cast<float>(std::min(sq, 1e38) * (j % 3 == 0 ? 1.0 : 0.2));
    }
    return floors;
}

// Searches under this table give plain float64 brute force's answers, ties and all.
void compare_search(const KernelTable& scalar, size_t nearest, bool floored, bool grouped) {
    constexpr size_t kDim = 70, kRows = 6000, kQueries = 100, kRank = 64;
    auto values = normal(kRows * kDim), asked = normal(kQueries * kDim);
    for (auto* some : {&values, &asked})
        for (size_t i = 0; i < some->size(); ++i) (*some)[i] /= static_cast<float>(1 + i % kDim);
    std::copy_n(values.begin(), kDim, values.begin() + 200 * kDim);  // an exact tie
    std::copy_n(values.begin(), kDim, asked.begin());
    std::fill_n(values.begin() + 300 * kDim, kDim, 1e20f);  // outside of the frame
    std::fill_n(asked.begin() + kDim, kDim, 1e20f);
    inreach::RowSet queries = rows_of(asked, kDim), bank = rows_of(values, kDim);
    std::vector<float> floors;
    if (floored) floors = floors_of(bank, scalar), bank.floor = floors.data();
    std::vector<int64_t> own(kQueries), of(kRows);
    for (size_t i = 0; i < kQueries; ++i) own[i] = static_cast<int64_t>(i % 7);
    for (size_t j = 0; j < kRows; ++j) of[j] = static_cast<int64_t>(j % 5);
    if (grouped) queries.group = own.data(), bank.group = of.data();
    const std::string with = " of " + std::to_string(nearest) + std::string(floored ? " with floors" : "") +
                             (grouped ? " with groups" : "");

    std::vector<float> axes(kRank * kDim);
    for (size_t i = 0; i < kRank; ++i) axes[i * kDim + i] = 1.0f;
    const auto basis = inreach::make_basis(std::vector<double>(kDim, 0.0), 0.5, kRank, axes.data(), 0.0);
    const auto leaf_index = inreach::make_leaf_index(*basis, bank);
    const auto projected = inreach::project_rows(*basis, queries);

    std::vector<int64_t> brute(kQueries * nearest), pruned(brute), near(kQueries);
    std::vector<float> brute_sq(brute.size()), pruned_sq(brute.size()), upper(kQueries), lower(kQueries);
    inreach::nearest_brute(queries, bank, nearest, brute.data(), brute_sq.data());
    inreach::nearest_pruned(queries, *projected, bank, *basis, *leaf_index, nearest, nullptr, pruned.data(),
                            pruned_sq.data());
    inreach::nearest_bounds(queries, *projected, bank, *basis, *leaf_index, nullptr, near.data(),
                            upper.data(), lower.data());
    for (size_t q = 0; q < kQueries; ++q) {
        std::vector<std::pair<double, int64_t>> all;
        for (size_t j = 0; j < kRows; ++j) {
            if ((grouped && of[j] == own[q]) || (floored && std::isinf(floors[j]))) continue;
            const double sq = scalar.sq_distance(queries.row(q), bank.row(j), kDim);
            all.emplace_back(floored ? std::max(sq, static_cast<double>(floors[j])) : sq,
                             static_cast<int64_t>(j));
        }
        std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(nearest), all.end());
        for (size_t i = 0; i < nearest; ++i) {
            const size_t at = q * nearest + i;
            const auto sq = static_cast<float>(all[i].first);
            expect(brute[at] == all[i].second && brute_sq[at] == sq,
                   "nearest_brute" + with + ", query " + std::to_string(q));
            expect(pruned[at] == all[i].second && pruned_sq[at] == sq,
                   "nearest_pruned" + with + ", query " + std::to_string(q));
        }
        expect(lower[q] <= brute_sq[q * nearest] && brute_sq[q * nearest] <= upper[q],
               "nearest_bounds" + with + ", query " + std::to_string(q));
    }
}

// Channels that are not a multiple of the vectors, some pixels left out, every number of rows at once.
void compare_winograd(const KernelTable& one, const KernelTable& scalar) {
    for (const size_t m : {size_t{2}, size_t{4}})
        for (const size_t channels : {size_t{1}, size_t{7}, size_t{16}, size_t{50}}) {
            const size_t n = m + 2, padded = (channels + 15) / 16 * 16, step = padded + 5;
            const auto values = normal(n * n * padded), sums = normal(n * n * step), bias = normal(padded);
            const auto added = normal(m * m * channels);
            const float *pixels[36], *others[16];
            for (size_t i = 0; i < n * n; ++i) pixels[i] = values.data() + i * channels;
            for (size_t i = 0; i < m * m; ++i) others[i] = added.data() + i * channels;
            std::vector<float> x(n * n * step), y(x);
            (m == 2 ? one.winograd.input2 : one.winograd.input4)(pixels, channels, x.data(), step);
            (m == 2 ? scalar.winograd.input2 : scalar.winograd.input4)(pixels, channels, y.data(), step);
            for (auto* some : {&x, &y})
                for (size_t i = 0; i < n * n; ++i)
                    std::fill_n(some->begin() + static_cast<ptrdiff_t>(i * step + channels),
                                padded - channels, 0.0f);
            expect(same_bits(x, y), "winograd input " + std::to_string(m));
            for (const auto activation : {Activation::kNone, Activation::kRelu, Activation::kRelu6})
                for (const bool sum : {false, true}) {
                    std::vector<float> a(m * m * channels + 1, -7.0f), b(a);
                    float *to_a[16], *to_b[16];
                    for (size_t i = 0; i < m * m; ++i) {
                        to_a[i] = i == 1 ? nullptr : a.data() + i * channels;
                        to_b[i] = i == 1 ? nullptr : b.data() + i * channels;
                    }
                    (m == 2 ? one.winograd.output2 : one.winograd.output4)(
                        sums.data(), step, bias.data(), sum ? others : nullptr, activation, channels, to_a);
                    (m == 2 ? scalar.winograd.output2 : scalar.winograd.output4)(
                        sums.data(), step, bias.data(), sum ? others : nullptr, activation, channels, to_b);
                    expect(same_bits(a, b) && a.back() == -7.0f && a[channels] == -7.0f,
                           "winograd output " + std::to_string(m));
                }
        }
    for (const size_t depth : {size_t{1}, size_t{33}})
        for (const size_t width : {size_t{16}, size_t{48}, size_t{64}})
            for (size_t count = 0; count <= 30; ++count) {
                const size_t stride = depth + 3, out_stride = width + 4;
                const auto rows = normal(count * stride), strips = normal(depth * width);
                std::vector<float> x(count * out_stride + 1, -7.0f), y(x);
                one.winograd.multiply(rows.data(), stride, count, strips.data(), depth, width, x.data(),
                                      out_stride);
                scalar.winograd.multiply(rows.data(), stride, count, strips.data(), depth, width, y.data(),
                                         out_stride);
                expect(same_bits(x, y), "winograd multiply, " + std::to_string(count) + " rows");
            }
}

// Whole convolutions: near those in float64, and the same bits for any number of threads.
void compare_convolution() {
    constexpr size_t kCount = 2, kHeight = 9, kWidth = 6, kInputs = 19, kOutputs = 70;
    for (const int tile : {2, 4})
        for (const size_t pad : {size_t{0}, size_t{1}, size_t{2}}) {
            const auto images = normal(kCount * kHeight * kWidth * kInputs), bias = normal(kOutputs);
            const auto weight = normal(kOutputs * kInputs * 9, 0.1f);
            const size_t height = kHeight + 2 * pad - 2, width = kWidth + 2 * pad - 2;
            const auto other = normal(kCount * height * width * kOutputs);
            const inreach::Convolution convolution(weight.data(), bias.data(), kInputs, kOutputs, tile);
            std::vector<float> out(other.size()), again(out);
            convolution({images.data(), kCount, kHeight, kWidth}, pad, pad, other.data(), Activation::kRelu,
                        {}, out.data());
            convolution({images.data(), kCount, kHeight, kWidth}, pad, pad, other.data(), Activation::kRelu,
                        {3, nullptr}, again.data());
            expect(same_bits(out, again), "convolution by three threads");
            bool near = true;
            for (size_t i = 0; i < out.size(); ++i) {
                const size_t o = i % kOutputs, x = i / kOutputs % width, y = i / kOutputs / width % height;
                double sum = static_cast<double>(bias[o]) + static_cast<double>(other[i]);
                for (size_t k = 0; k < 9; ++k) {
                    const size_t from_y = y + k / 3 - pad, from_x = x + k % 3 - pad;
                    if (from_y >= kHeight || from_x >= kWidth) continue;
                    const size_t image = i / kOutputs / width / height;
                    for (size_t c = 0; c < kInputs; ++c)
                        sum += static_cast<double>(weight[(o * kInputs + c) * 9 + k]) *
                               static_cast<double>(
                                   images[((image * kHeight + from_y) * kWidth + from_x) * kInputs + c]);
                }
                near = near && std::abs(std::max(sum, 0.0) - static_cast<double>(out[i])) < 2e-5;
            }
            expect(near, "convolution, tile " + std::to_string(tile));
        }
}

// The neighbour of a float32 without a call.
void check_next_above() {
    std::vector<float> values{0.0f,          -0.0f,          1.0f,           -1.0f,
                              1e-45f,        -1e-45f,        1.1754944e-38f, -1.1754944e-38f,
                              3.4028235e38f, -3.4028235e38f, -INFINITY};
    for (int i = 0; i < 1000; ++i) values.push_back(normal(1, std::pow(10.0f, i % 70 - 35))[0]);
    for (const float value : values) {
        const float up = inreach::next_above(value), expected = std::nextafterf(value, INFINITY);
        expect(std::memcmp(&up, &expected, sizeof up) == 0, "next_above of " + std::to_string(value));
    }
    expect(std::isnan(inreach::next_above(NAN)), "next_above of NaN");
}

// An operation that is asked to stop does so long before its end (64 * 60,000^2 multiply-adds), and the pool
// is of use afterwards.
void check_interrupt() {
    const auto values = normal(60000 * 64);
    const inreach::RowSet rows = rows_of(values, 64);
    std::vector<int64_t> index(rows.count);
    std::vector<float> sq_distance(rows.count);
    int asked = 0;
    bool stopped = false;
    try {
        const inreach::InterruptScope scope([&] { return ++asked == 2; });
        inreach::nearest_brute(rows, rows, 1, index.data(), sq_distance.data());
    } catch (const inreach::Interrupted&) {
        stopped = true;
    }
    expect(stopped && asked == 2, "a search that is asked to stop");
    expect(inreach::first_nonfinite_row(rows) == -1, "the pool after an interruption");
}

}  // namespace

int main(int argc, char** argv) {
    inreach::set_isa("scalar");
    const KernelTable scalar = inreach::kernels();
    bool wanted_seen = argc < 2;  // an argument names the instruction set that must be among those tested
    for (const std::string& name : inreach::isa_levels()) {
        inreach::set_isa(name);
        const KernelTable& one = inreach::kernels();
        const long before = checks;
        compare_sq_distance(one, scalar);
        compare_sq_distance32(one, scalar);
        compare_standardize(one, scalar);
        compare_tiles(one);
        compare_panels(one);
        compare_add_to_sums(one, scalar);
        compare_at_least(one, scalar);
        compare_code_distances(one);
        compare_quantize(one);
        compare_scan_codes(one);
        compare_collect(one);
        compare_describe(one, scalar);
        compare_map_rows(one, scalar);
        compare_linear_map();
        compare_winograd(one, scalar);
        compare_convolution();
        for (const size_t nearest : {size_t{1}, size_t{3}})
            for (const bool floored : {false, true})
                for (const bool grouped : {false, true}) compare_search(scalar, nearest, floored, grouped);
        std::printf("%s: %ld checks\n", name.c_str(), checks - before);
        wanted_seen = wanted_seen || name == argv[1];
    }
    check_next_above();
    check_interrupt();
    if (!wanted_seen) std::printf("FAILED: %s is not among the tables of this build\n", argv[1]);
    std::printf("%d failed\n", failures);
    return failures == 0 && wanted_seen ? 0 : 1;
}
