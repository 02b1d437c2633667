#include "engine/leaf_builder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine/platform.h"
#include "engine/require.h"
#include "engine/rounding.h"
#include "engine/threads.h"

namespace inreach {
namespace {

constexpr size_t kTaskRows = 192;
// Rows of a chunk: large enough that starting the threads costs nothing, small enough that its coordinates
// (64 MiB at a rank of 256) stay far below the rows' own size. Under a limit at least four tasks.
constexpr size_t kChunkRows = 65536;
constexpr size_t kLeastChunkRows = 4 * kTaskRows;
// Rows whose loops are too cheap for a stop_point() each.
constexpr size_t kRowsBetweenStops = 4096;
// Rows that tell a span's widest direction, and steps of the power method.
constexpr size_t kDirectionSample = 256;
constexpr int kPowerSteps = 5;
// Centres that are tried for a ball: 37, 24, 23, 23 leaves in reach of a query for 1, 8, 24, 60 (patches of
// one product, 87,000 rows).
constexpr size_t kCentreSteps = 12;
// Neither side of a cut gets less than one in so many of a span's rows: 945, 878, 882 ms for 2, 4, 10 (search
// of 6272 patches of two products among 300,000, one thread).
constexpr size_t kLeastShare = 4;
constexpr size_t kCutBins = 256;  // of the histogram that tells where to cut
// Coordinates of a set no larger than this are kept between the passes.
constexpr size_t kKeptCoordinates = size_t{1} << 28;
// Where nothing varies a step must still be positive.
constexpr float kLeastStep = 1e-6f;
// The dot product of a place without a ball: below any other, its square below float32's range.
constexpr float kAbsentStart = -1e37f;

void store(float* four, const LeafNumbers& numbers) { std::memcpy(four, &numbers, sizeof numbers); }
void store(float* four, const RowRest& rest) { std::memcpy(four, &rest, sizeof rest); }

// Direction in which (a sample of) some points vary most, by the power method in one fixed order.
void widest_direction(const float* points, size_t count, float* direction) {
    const size_t step = std::max<size_t>(1, count / kDirectionSample);
    std::vector<double> sample;
    double mean[kBallDepth] = {};
    size_t seen = 0;
    for (size_t i = 0; i < count; i += step, ++seen)
        for (size_t d = 0; d < kBallDepth; ++d) {
            sample.push_back(points[i * kBallDepth + d]);
            mean[d] += sample.back();
        }
    for (double& value : mean) value /= static_cast<double>(seen);
    double variance[kBallDepth] = {};
    for (size_t i = 0; i < seen; ++i)
        for (size_t d = 0; d < kBallDepth; ++d) {
            double& value = sample[i * kBallDepth + d];
            value -= mean[d];
            variance[d] += value * value;
        }
    double v[kBallDepth];  // starts from the widest coordinates
    std::copy(variance, variance + kBallDepth, v);
    for (int round = 0; round < kPowerSteps; ++round) {
        double next[kBallDepth] = {};
        for (size_t i = 0; i < seen; ++i) {
            const double* x = sample.data() + i * kBallDepth;
            double dot = 0.0;
            for (size_t d = 0; d < kBallDepth; ++d) dot += x[d] * v[d];
            for (size_t d = 0; d < kBallDepth; ++d) next[d] += x[d] * dot;
        }
        double largest = 0.0;
        for (const double value : next) largest = std::max(largest, std::abs(value));
        if (!(largest > 0.0)) break;
        for (size_t d = 0; d < kBallDepth; ++d) v[d] = next[d] / largest;
    }
    for (size_t d = 0; d < kBallDepth; ++d) direction[d] = static_cast<float>(v[d]);
}

// Of two points among the balls: four sums, which do not wait for each other.
double sq_distance(const float* a, const float* b) {
    constexpr size_t kSums = 4;
    double sums[kSums] = {};
    size_t d = 0;
    for (; d + kSums <= kBallDepth; d += kSums)
        for (size_t i = 0; i < kSums; ++i) {
            const double difference = static_cast<double>(a[d + i]) - b[d + i];
            sums[i] += difference * difference;
        }
    for (; d < kBallDepth; ++d) {
        const double difference = static_cast<double>(a[d]) - b[d];
        sums[0] += difference * difference;
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// A row of a span, and its place along the span's widest direction.
struct Key {
    float value;
    uint32_t at;
};

// How many rows to cut off, a multiple of `unit`: what leaves the least variance along the direction on both
// sides together (2-means on a line), so that a cluster is not cut in two only because it holds the median.
// Neither side gets less than kLeastShare of the rows. A histogram is exact enough.
size_t where_to_cut(const std::vector<Key>& keys, size_t unit) {
    const size_t count = keys.size(), units = (count + unit - 1) / unit;
    const size_t least = std::max<size_t>(1, units / kLeastShare);
    const auto bounds = std::minmax_element(keys.begin(), keys.end(),
                                            [](const Key& a, const Key& b) { return a.value < b.value; });
    const double low = bounds.first->value, extent = bounds.second->value - low;
    if (!(extent > 0.0)) return units / 2 * unit;
    size_t rows[kCutBins] = {};
    double sums[kCutBins] = {}, total = 0.0;
    for (size_t i = 0; i < count; ++i) {
        if (i % kRowsBetweenStops == 0) stop_point();
        const double value = (keys[i].value - low) / extent;
        const size_t bin = std::min(kCutBins - 1, static_cast<size_t>(value * kCutBins));
        ++rows[bin];
        sums[bin] += value;
        total += value;
    }
    // With n rows of sum s on one side the variance falls by s^2 / n and the other side's alike.
    size_t below = 0, best = units / 2 * unit;
    double sum = 0.0, most = 0.0;
    for (size_t bin = 0; bin + 1 < kCutBins; ++bin) {
        below += rows[bin];
        sum += sums[bin];
        if (below == 0 || below == count) continue;
        const double n = static_cast<double>(below), rest = static_cast<double>(count - below);
        const double gain = sum * sum / n + (total - sum) * (total - sum) / rest;
        if (gain <= most) continue;
        most = gain;
        best = std::clamp((below + unit / 2) / unit, least, units - least) * unit;
    }
    return best;
}

}  // namespace

LeafBuilder::LeafBuilder(const Basis& basis, const RowSet& rows, const ProjectedRows* projected,
                         const BuildMemory& memory)
    : basis_(basis), rows_(rows), projected_(projected), memory_(memory) {
    require_rows(rows);
    require(rows.dim == basis.dim(), "rows: another length than the basis was made for");
    require(
        projected == nullptr || (projected->basis_id == basis.id() && projected->frames.size() == rows.count),
        "projected: rows of another set or in another basis");
    const bool keep = memory.limit == 0 && rows.count * basis.rank() <= kKeptCoordinates / sizeof(float);
    if (projected_ == nullptr && keep) {
        own_projected_ = std::make_unique<ProjectedRows>(basis, rows);
        projected_ = own_projected_.get();
    }
    if (memory_.heads == nullptr) own_heads_ = AlignedArray<float>(rows.count * kBallDepth);
    heads_ = memory_.heads ? memory_.heads : own_heads_.data();
    project_heads();

    // Divide breadth-first until there is work for every thread, then each piece on its own.
    std::vector<Span> pieces{{0, row_at_.size()}};
    while (pieces.size() < 4 * static_cast<size_t>(num_threads())) {
        std::vector<Span> next;
        for (const Span piece : pieces) {
            if (piece.end - piece.begin <= kBlockRows) {
                next.push_back(piece);
                continue;
            }
            const size_t middle = divide(piece);
            next.push_back({piece.begin, middle});
            next.push_back({middle, piece.end});
        }
        if (next.size() == pieces.size()) break;
        pieces.swap(next);
    }
    parallel_for(pieces.size(), [&](size_t i) {
        split(pieces[i]);
        if (memory_.heads != nullptr)
            release_mapped_pages(heads_ + pieces[i].begin * kBallDepth,
                                 (pieces[i].end - pieces[i].begin) * kBallDepth * sizeof(float));
    });

    leaves_ = (row_at_.size() + kBlockRows - 1) / kBlockRows;
    branches_ = (leaves_ + kLeavesPerBranch - 1) / kLeavesPerBranch;
    leaf_balls_.resize(leaves_);
    branch_balls_.resize(branches_);
    constexpr size_t kBranchRows = kLeavesPerBranch * kBlockRows;
    parallel_for(branches_, [&](size_t b) {
        const Span all{b * kBranchRows, std::min(row_at_.size(), (b + 1) * kBranchRows)};
        measure(all, branch_balls_[b]);
        for (size_t first = all.begin; first < all.end; first += kBlockRows)
            measure({first, std::min(all.end, first + kBlockRows)}, leaf_balls_[first / kBlockRows]);
        if (memory_.heads != nullptr)
            release_mapped_pages(heads_ + all.begin * kBallDepth,
                                 (all.end - all.begin) * kBallDepth * sizeof(float));
    });
    own_heads_ = AlignedArray<float>();
    heads_ = nullptr;
    place_of_.assign(rows.count, kNoRow);
    for (size_t place = 0; place < row_at_.size(); ++place)
        place_of_[row_at_[place]] = static_cast<uint32_t>(place);
}

// Calls use(ProjectedChunk) for all rows in their order, `width` coordinates of each.
template <typename Use>
void LeafBuilder::for_each_chunk(size_t width, Use&& use) {
    if (projected_ != nullptr) {
        // Kept coordinates are as wide as the rank; who asks for fewer reads the leading ones.
        use(ProjectedChunk{0, rows_.count, projected_->coordinates.data(), projected_->frames.data()});
        return;
    }
    size_t most = kChunkRows;
    if (memory_.limit != 0) {
        // What the build holds of every row: its place twice, a key while dividing, its share of the balls
        // and of the extents' other ends.
        const size_t held = rows_.count * (4 + 4 + 8 + 2 + basis_.rank() * sizeof(float) / kBlockRows);
        const size_t left = memory_.limit > held ? memory_.limit - held : 0;
        // A row of a chunk costs itself, its coordinates, and a page of each array that it is written to.
        const size_t each = rows_.dim * sizeof(float) + basis_.rank() * sizeof(float) +
                            (memory_.arrays_mapped ? 10 * 4096 : 0);
        most = std::max(kLeastChunkRows, std::min(kChunkRows, left / 2 / each));
    }
    AlignedArray<float> coordinates(std::min(most, rows_.count) * width);
    std::vector<RowFrame> frames(std::min(most, rows_.count));
    for (size_t first = 0; first < rows_.count; first += most) {
        const size_t count = std::min(most, rows_.count - first);
        parallel_for((count + kTaskRows - 1) / kTaskRows, [&](size_t task) {
            const size_t begin = task * kTaskRows;
            basis_.project(rows_, first + begin, std::min(kTaskRows, count - begin), width,
                           coordinates.data() + begin * width, frames.data() + begin);
        });
        if (memory_.rows_mapped && rows_.index == nullptr)
            release_mapped_pages(rows_.row(first), count * rows_.stride * sizeof(float));
        use(ProjectedChunk{first, count, coordinates.data(), frames.data()});
    }
}

void LeafBuilder::project_heads() {
    row_at_.reserve(rows_.count);
    const size_t width = projected_ ? basis_.rank() : static_cast<size_t>(kScanDims);
    for_each_chunk(width, [&](const ProjectedChunk& chunk) {
        const size_t begin = row_at_.size();
        for (size_t i = 0; i < chunk.count; ++i) {
            const auto row = static_cast<uint32_t>(chunk.first + i);
            if (!chunk.frames[i].usable) {
                unbounded_.push_back(row);
                continue;
            }
            float* const head = heads_ + row_at_.size() * kBallDepth;
            std::copy_n(chunk.coordinates + i * width, kBallDims, head);
            head[kBallDims] = chunk.frames[i].ball_tail;
            row_at_.push_back(row);
        }
        if (memory_.heads != nullptr)
            release_mapped_pages(heads_ + begin * kBallDepth,
                                 (row_at_.size() - begin) * kBallDepth * sizeof(float));
    });
}

// Cuts a span in two across its widest direction (where_to_cut), at a whole number of leaves, of groups or of
// branches, so that each of these is a part of the tree; brings its rows into the new order.
size_t LeafBuilder::divide(Span span) {
    const size_t count = span.end - span.begin;
    size_t unit = kBlockRows;
    for (const size_t leaves : {kLeavesPerGroup, kLeavesPerBranch})
        if (count > leaves * kBlockRows) unit = leaves * kBlockRows;
    float* const points = heads_ + span.begin * kBallDepth;
    uint32_t* const rows = row_at_.data() + span.begin;
    float direction[kBallDepth];
    widest_direction(points, count, direction);
    std::vector<Key> keys(count);
    for (size_t i = 0; i < count; ++i) {
        if (i % kRowsBetweenStops == 0) stop_point();
        float value = 0.0f;
        for (size_t d = 0; d < kBallDepth; ++d) value += points[i * kBallDepth + d] * direction[d];
        keys[i] = {value, static_cast<uint32_t>(i)};
    }
    const size_t cut = where_to_cut(keys, unit);
    std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(cut), keys.end(),
                     [&](const Key& a, const Key& b) {
                         return a.value < b.value || (a.value == b.value && rows[a.at] < rows[b.at]);
                     });
    // In place, cycle by cycle: what belongs at i stands at keys[i].at.
    size_t moved = 0;
    for (size_t i = 0; i < count; ++i) {
        if (i % kRowsBetweenStops == 0) stop_point();
        if (keys[i].at == i) continue;
        float kept[kBallDepth];
        std::copy_n(points + i * kBallDepth, kBallDepth, kept);
        const uint32_t kept_row = rows[i];
        size_t to = i;
        for (size_t from = keys[to].at; from != i; from = keys[to].at) {
            std::copy_n(points + from * kBallDepth, kBallDepth, points + to * kBallDepth);
            rows[to] = rows[from];
            keys[to].at = static_cast<uint32_t>(to);
            to = from;
            // A mapped file's pages stay with the process once touched.
            if (memory_.heads != nullptr && ++moved % (memory_.limit / 4 / 4096 + 1024) == 0)
                release_mapped_pages(points, count * kBallDepth * sizeof(float));
        }
        std::copy_n(kept, kBallDepth, points + to * kBallDepth);
        rows[to] = kept_row;
        keys[to].at = static_cast<uint32_t>(to);
    }
    if (memory_.heads != nullptr) release_mapped_pages(points, count * kBallDepth * sizeof(float));
    return span.begin + cut;
}

void LeafBuilder::split(Span span) {
    if (span.end - span.begin <= kBlockRows) return;
    const size_t middle = divide(span);
    split({span.begin, middle});
    split({middle, span.end});
}

// The smallest ball about the points, nearly: from their mean, step by step towards the point farthest away
// (Badoiu and Clarkson, Smaller core-sets for balls). About their mean alone it would be a third larger, and
// half as many leaves again would be in reach.
void LeafBuilder::measure(Span span, Ball& ball) const {
    double centre[kBallDepth] = {};
    for (size_t i = span.begin; i < span.end; ++i)
        for (size_t d = 0; d < kBallDepth; ++d) centre[d] += heads_[i * kBallDepth + d];
    for (double& value : centre) value /= static_cast<double>(span.end - span.begin);
    double least_sq = std::numeric_limits<double>::infinity();
    for (size_t step = 1; step <= kCentreSteps; ++step) {
        float rounded[kBallDepth];
        std::copy(centre, centre + kBallDepth, rounded);
        double radius_sq = -1.0;
        size_t farthest = span.begin;
        for (size_t i = span.begin; i < span.end; ++i) {
            if (i % kRowsBetweenStops == 0) stop_point();
            const double sq = sq_distance(heads_ + i * kBallDepth, rounded);
            if (sq > radius_sq) radius_sq = sq, farthest = i;
        }
        if (radius_sq < least_sq) {
            least_sq = radius_sq;
            std::copy_n(rounded, kBallDepth, ball.centre);
        }
        for (size_t d = 0; d < kBallDepth; ++d)
            centre[d] += (static_cast<double>(heads_[farthest * kBallDepth + d]) - centre[d]) /
                         static_cast<double>(step + 1);
    }
    double centre_sq = 0.0;
    for (const float value : ball.centre) centre_sq += static_cast<double>(value) * value;
    ball.start = static_cast<float>(-0.5 * centre_sq);
    ball.radius = round_up(std::sqrt(least_sq) * (1.0 + 1e-9));
}

LeafArrays LeafBuilder::allocate(bool count_only) const {
    LeafArrays arrays;
    const size_t places = leaves_ * kBlockRows, rank = basis_.rank(), middle = basis_.middle();
    const size_t blocks = (branches_ + kBlockRows - 1) / kBlockRows;
    const size_t groups = (leaves_ + kLeavesPerGroup - 1) / kLeavesPerGroup;
    const auto make = [&](auto& array, size_t count) {
        using Array = std::remove_reference_t<decltype(array)>;
        array = count_only ? Array::view(nullptr, count) : Array(count);
    };
    make(arrays.branch_centres, blocks * kBallDepth * kBlockRows);
    make(arrays.branch_starts, blocks * kBlockRows);
    make(arrays.branch_radii, blocks * kBlockRows);
    make(arrays.leaf_centres, branches_ * kBallDepth * kBlockRows);
    make(arrays.leaf_starts, branches_ * kBlockRows);
    make(arrays.leaf_radii, branches_ * kBlockRows);
    make(arrays.leaf_numbers, leaves_ * 4);
    make(arrays.row_of, places);
    make(arrays.group_centres, groups * kScanDims);
    make(arrays.group_steps, groups);
    make(arrays.first_codes, places * kScanDims);
    make(arrays.first_tails, places);
    make(arrays.first_halves, places);
    make(arrays.code_centres, leaves_ * rank);
    make(arrays.code_steps, leaves_ * (rank / kCodeGroup));
    make(arrays.middle_codes, places * (middle - kScanDims));
    make(arrays.last_codes, places * (kScanDims + rank - middle));
    make(arrays.row_rests, places * 4);
    make(arrays.unbounded, unbounded_.size());
    return arrays;
}

void LeafBuilder::fill(LeafArrays& arrays) {
    std::copy(unbounded_.begin(), unbounded_.end(), arrays.unbounded.writable());
    std::fill_n(arrays.row_of.writable(), arrays.row_of.size(), kNoRow);
    std::copy(row_at_.begin(), row_at_.end(), arrays.row_of.writable());
    measure_extents(arrays);
    encode(arrays);
    lay_balls(arrays);
}

// Balls last: their radii take in the errors of their rows. Places without a ball are as far off as can be.
void LeafBuilder::lay_balls(LeafArrays& arrays) const {
    const auto error_of = [&](size_t leaf) {
        LeafNumbers numbers;
        std::memcpy(&numbers, arrays.leaf_numbers.data() + leaf * 4, sizeof numbers);
        return numbers.error;
    };
    const auto lay = [](const std::vector<Ball>& balls, float* centres, float* starts, float* radii,
                        size_t places, const auto& error) {
        std::fill_n(centres, places * kBallDepth, 0.0f);
        std::fill_n(starts, places, kAbsentStart);
        std::fill_n(radii, places, 0.0f);
        for (size_t i = 0; i < balls.size(); ++i) {
            float* const column = centres + i / kBlockRows * kBallDepth * kBlockRows + i % kBlockRows;
            for (size_t d = 0; d < kBallDepth; ++d) column[d * kBlockRows] = balls[i].centre[d];
            starts[i] = balls[i].start;
            radii[i] = round_up(static_cast<double>(balls[i].radius) + error(i));
        }
    };
    lay(leaf_balls_, arrays.leaf_centres.writable(), arrays.leaf_starts.writable(),
        arrays.leaf_radii.writable(), arrays.leaf_radii.size(), error_of);
    lay(branch_balls_, arrays.branch_centres.writable(), arrays.branch_starts.writable(),
        arrays.branch_radii.writable(), arrays.branch_radii.size(), [&](size_t branch) {
            float error = 0.0f;
            const size_t end = std::min(leaves_, (branch + 1) * kLeavesPerBranch);
            for (size_t leaf = branch * kLeavesPerBranch; leaf < end; ++leaf)
                error = std::max(error, error_of(leaf));
            return error;
        });
}

// Centres and steps of codes: the middle and the extent of each leaf (of each group, for first codes), which
// no order of rows can change.
void LeafBuilder::measure_extents(LeafArrays& arrays) {
    const size_t rank = basis_.rank();
    float* const low = arrays.code_centres.writable();  // until the centres take their place
    AlignedArray<float> high(leaves_ * rank);
    std::fill_n(low, leaves_ * rank, std::numeric_limits<float>::max());
    std::fill_n(high.data(), leaves_ * rank, -std::numeric_limits<float>::max());
    const auto stripes = static_cast<size_t>(num_threads());
    for_each_chunk(rank, [&](const ProjectedChunk& chunk) {
        parallel_for(stripes, [&](size_t stripe) {  // each leaf belongs to one stripe
            for (size_t i = 0; i < chunk.count; ++i) {
                if (i % kRowsBetweenStops == 0) stop_point();
                const uint32_t place = place_of_[chunk.first + i];
                if (place == kNoRow || place / kBlockRows % stripes != stripe) continue;
                const float* const z = chunk.coordinates + i * rank;
                float* const least = low + place / kBlockRows * rank;
                float* const most = high.data() + place / kBlockRows * rank;
                for (size_t d = 0; d < rank; ++d) {
                    least[d] = z[d] < least[d] ? z[d] : least[d];
                    most[d] = z[d] > most[d] ? z[d] : most[d];
                }
            }
        });
        if (memory_.arrays_mapped) give_back(arrays);
    });
    const size_t groups = arrays.group_steps.size();
    parallel_for(groups, [&](size_t group) {
        float* const centre = arrays.group_centres.writable() + group * kScanDims;
        float step = kLeastStep;
        const size_t end = std::min(leaves_, (group + 1) * kLeavesPerGroup);
        for (size_t d = 0; d < kScanDims; ++d) {
            float least = std::numeric_limits<float>::max(), most = -least;
            for (size_t leaf = group * kLeavesPerGroup; leaf < end; ++leaf) {
                least = std::min(least, low[leaf * rank + d]);
                most = std::max(most, high[leaf * rank + d]);
            }
            centre[d] = 0.5f * least + 0.5f * most;
            step = std::max({step, (most - centre[d]) / 127.0f, (centre[d] - least) / 127.0f});
        }
        arrays.group_steps.writable()[group] = step;
    });
    parallel_for(leaves_, [&](size_t leaf) {
        float* const centre = low + leaf * rank;
        double squares = 0.0;
        for (size_t g = 0; g < rank / kCodeGroup; ++g) {
            float step = kLeastStep;
            for (size_t d = g * kCodeGroup; d < (g + 1) * kCodeGroup; ++d) {
                const float least = centre[d], most = high[leaf * rank + d];
                centre[d] = 0.5f * least + 0.5f * most;
                step = std::max({step, (most - centre[d]) / 127.0f, (centre[d] - least) / 127.0f});
            }
            arrays.code_steps.writable()[leaf * (rank / kCodeGroup) + g] = step;
            squares += static_cast<double>(step) * step;
        }
        const double longest = 127.0 * std::sqrt(static_cast<double>(kCodeGroup) * squares) * (1.0 + 1e-9);
        store(arrays.leaf_numbers.writable() + leaf * 4, LeafNumbers{0.0f, 0.0f, 0.0f, round_up(longest)});
    });
}

void LeafBuilder::encode(LeafArrays& arrays) {
    // The last leaf's places without a row: never in reach.
    for (size_t place = row_at_.size(); place < leaves_ * kBlockRows; ++place) {
        arrays.first_tails.writable()[place] = 0.0f;
        arrays.first_halves.writable()[place] = std::numeric_limits<float>::max();
        std::fill_n(arrays.middle_codes.writable() + place * (basis_.middle() - kScanDims),
                    basis_.middle() - kScanDims, 0);
        const size_t last = kScanDims + basis_.rank() - basis_.middle();
        std::fill_n(arrays.last_codes.writable() + place * last, last, 0);
        std::fill_n(arrays.row_rests.writable() + place * 4, 4, 0.0f);
        uint8_t* const block = arrays.first_codes.writable() + place / kBlockRows * kScanDims * kBlockRows;
        for (size_t d = 0; d < kScanDims; ++d)
            block[d / 4 * 4 * kBlockRows + 4 * (place % kBlockRows) + d % 4] = 128;
    }
    std::vector<LeafMaxima> maxima(leaves_);
    for_each_chunk(basis_.rank(), [&](const ProjectedChunk& chunk) {
        parallel_for((chunk.count + kTaskRows - 1) / kTaskRows, [&](size_t task) {
            for (size_t i = task * kTaskRows; i < std::min(chunk.count, (task + 1) * kTaskRows); ++i) {
                const uint32_t place = place_of_[chunk.first + i];
                if (place != kNoRow)
                    encode_row(arrays, place, chunk.coordinates + i * basis_.rank(), chunk.frames[i],
                               maxima[place / kBlockRows]);
            }
        });
        if (memory_.arrays_mapped) give_back(arrays);
    });
    for (size_t leaf = 0; leaf < leaves_; ++leaf) {
        float* const stored = arrays.leaf_numbers.writable() + leaf * 4;
        LeafNumbers numbers;
        std::memcpy(&numbers, stored, sizeof numbers);
        numbers.error = maxima[leaf].error.value();
        numbers.norm = maxima[leaf].norm.value();
        numbers.residue = maxima[leaf].residue.value();
        store(stored, numbers);
    }
}

void LeafBuilder::encode_row(LeafArrays& arrays, uint32_t place, const float* z, const RowFrame& frame,
                             LeafMaxima& maxima) const {
    const size_t leaf = place / kBlockRows, rank = basis_.rank(), middle = basis_.middle();
    // Adding 1.5 * 2^52 and taking it away again rounds to the nearest whole number, without a call.
    const auto code_of = [](double value, double inverse) {
        constexpr double kRound = 6755399441055744.0;
        const double units = value * inverse;
        return ((units < -127.0 ? -127.0 : units > 127.0 ? 127.0 : units) + kRound) - kRound;
    };
    const size_t group = leaf / kLeavesPerGroup;
    const float* const group_centre = arrays.group_centres.data() + group * kScanDims;
    const double group_step = arrays.group_steps[group], group_inverse = 1.0 / group_step;
    uint8_t* const block = arrays.first_codes.writable() + leaf * kScanDims * kBlockRows;
    double residue_sq = 0.0, code_sq = 0.0;
    for (size_t d = 0; d < kScanDims; ++d) {
        const double value = static_cast<double>(z[d]) - group_centre[d];
        const double code = code_of(value, group_inverse), missed = value - code * group_step;
        block[d / 4 * 4 * kBlockRows + 4 * (place % kBlockRows) + d % 4] =
            static_cast<uint8_t>(static_cast<int>(code) + 128);
        residue_sq += missed * missed;
        code_sq += code * code;
    }
    const double tail = frame.scan_tail, sq = code_sq * group_step * group_step + tail * tail;
    arrays.first_tails.writable()[place] = frame.scan_tail;
    arrays.first_halves.writable()[place] = static_cast<float>(0.5 * sq);
    const auto length = [](double squares) { return round_up(std::sqrt(squares) * (1.0 + 1e-9)); };
    maxima.error.raise(frame.error);
    maxima.norm.raise(length(sq));
    maxima.residue.raise(length(residue_sq));

    // Further codes, about the leaf's own centre.
    const float* const centre = arrays.code_centres.data() + leaf * rank;
    const float* const steps = arrays.code_steps.data() + leaf * (rank / kCodeGroup);
    const auto encode = [&](size_t begin, size_t end, int8_t* out) {
        double missed_sq = 0.0;
        for (size_t g = begin / kCodeGroup; g < end / kCodeGroup; ++g) {
            const double step = steps[g], inverse = 1.0 / step;
            for (size_t d = g * kCodeGroup; d < (g + 1) * kCodeGroup; ++d) {
                const double value = static_cast<double>(z[d]) - centre[d];
                const double code = code_of(value, inverse), missed = value - code * step;
                out[d - begin] = static_cast<int8_t>(static_cast<int>(code));
                missed_sq += missed * missed;
            }
        }
        return missed_sq;
    };
    int8_t* const last = arrays.last_codes.writable() + place * (kScanDims + rank - middle);
    const double middle_sq =
        encode(kScanDims, middle, arrays.middle_codes.writable() + place * (middle - kScanDims));
    const double first_sq = encode(0, kScanDims, last);
    const double last_sq = encode(middle, rank, last + kScanDims);
    store(arrays.row_rests.writable() + place * 4,
          RowRest{frame.middle_tail, length(residue_sq + middle_sq), frame.full_tail,
                  length(first_sq + middle_sq + last_sq)});
}

void LeafBuilder::give_back(const LeafArrays& arrays) const {
    LeafArrays::each(arrays, [](const char*, const auto& array) {
        if (array.size() != 0) release_mapped_pages(array.data(), array.size() * sizeof(array[0]));
    });
}

}  // namespace inreach
