#include "engine/leaf_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/rounding.h"
#include "engine/threads.h"

namespace inreach {
namespace {

constexpr size_t kProjectRows = 192;
constexpr size_t kVarianceSample = 512;

// Coordinate with the largest spread over (at most kVarianceSample of) the rows.
size_t widest(const float* heads, size_t depth, const uint32_t* ids, size_t count) {
    const size_t step = std::max<size_t>(1, count / kVarianceSample);
    std::vector<double> sum(depth, 0.0), square(depth, 0.0);
    double seen = 0.0;
    for (size_t i = 0; i < count; i += step, seen += 1.0)
        for (size_t d = 0; d < depth; ++d) {
            const double value = heads[ids[i] * depth + d];
            sum[d] += value;
            square[d] += value * value;
        }
    size_t best = 0;
    double widest_so_far = -1.0;
    for (size_t d = 0; d < depth; ++d) {
        const double variance = square[d] - sum[d] * sum[d] / seen;
        if (variance > widest_so_far) widest_so_far = variance, best = d;
    }
    return best;
}

struct Span {
    size_t begin, end;
};

// Halves ids[begin, end) at the median of its widest coordinate, at a multiple of 64 rows.
size_t halve(const float* heads, size_t depth, uint32_t* ids, Span span) {
    const size_t count = span.end - span.begin;
    const size_t leaves = (count + kBlockRows - 1) / kBlockRows;
    const size_t half = leaves / 2 * kBlockRows;
    const size_t d = widest(heads, depth, ids + span.begin, count);
    std::nth_element(ids + span.begin, ids + span.begin + half, ids + span.end, [&](uint32_t a, uint32_t b) {
        const float x = heads[a * depth + d], y = heads[b * depth + d];
        return x < y || (x == y && a < b);
    });
    return span.begin + half;
}

void split(const float* heads, size_t depth, uint32_t* ids, Span span) {
    if (span.end - span.begin <= kBlockRows) return;
    const size_t middle = halve(heads, depth, ids, span);
    split(heads, depth, ids, {span.begin, middle});
    split(heads, depth, ids, {middle, span.end});
}

}  // namespace

LeafIndex::LeafIndex(const Basis& basis, const RowSet& rows, const ProjectedRows* projected) {
    const size_t n = rows_indexed_ = rows.count;
    depth_ = basis.head() + 1;
    groups_ = basis.groups();
    code_stride_ = (groups_ * kCodeGroup + 3 * sizeof(float) + 63) / 64 * 64;
    codes_ = AlignedArray<int8_t>(n * code_stride_);

    AlignedArray<float> heads(n * depth_);
    std::vector<RowFrame> own_frames(projected ? 0 : n);
    const std::vector<RowFrame>& frames = projected ? projected->frames : own_frames;
    parallel_for((n + kProjectRows - 1) / kProjectRows, [&](size_t task, int) {
        const size_t first = task * kProjectRows;
        const size_t count = std::min(kProjectRows, n - first);
        AlignedArray<float> own(projected ? 0 : count * basis.rank());
        const float* coordinates = own.data();
        if (projected)
            coordinates = projected->coordinates.data() + first * basis.rank();
        else
            basis.project(rows, first, count, own.data(), own_frames.data() + first);
        for (size_t i = 0; i < count; ++i) {
            const float* z = coordinates + i * basis.rank();
            float* head = heads.data() + (first + i) * depth_;
            std::copy(z, z + basis.head(), head);
            head[basis.head()] = frames[first + i].head_tail;
            encode(basis, static_cast<uint32_t>(first + i), z, frames[first + i]);
        }
    });

    std::vector<uint32_t> ids;
    ids.reserve(n);
    for (uint32_t i = 0; i < n; ++i) {
        if (frames[i].usable)
            ids.push_back(i);
        else
            unbounded_.push_back(i);
    }
    // Halve breadth-first until there is work for every thread, then each piece on its own.
    std::vector<Span> pieces{{0, ids.size()}};
    while (pieces.size() < 4 * static_cast<size_t>(num_threads())) {
        std::vector<Span> next;
        for (const Span piece : pieces) {
            if (piece.end - piece.begin <= kBlockRows) {
                next.push_back(piece);
                continue;
            }
            const size_t middle = halve(heads.data(), depth_, ids.data(), piece);
            next.push_back({piece.begin, middle});
            next.push_back({middle, piece.end});
        }
        if (next.size() == pieces.size()) break;
        pieces.swap(next);
    }
    parallel_for(pieces.size(), [&](size_t i, int) { split(heads.data(), depth_, ids.data(), pieces[i]); });

    leaves_ = (ids.size() + kBlockRows - 1) / kBlockRows;
    const size_t centre_blocks = (leaves_ + kBlockRows - 1) / kBlockRows;
    blocks_ = AlignedArray<float>(leaves_ * depth_ * kBlockRows);
    starts_ = AlignedArray<float>(leaves_ * kBlockRows);
    row_of_ = AlignedArray<uint32_t>(leaves_ * kBlockRows);
    errors_.assign(leaves_, 0.0f);
    norms_.assign(leaves_, 0.0f);
    centres_ = AlignedArray<float>(centre_blocks * depth_ * kBlockRows);
    centre_starts_ = AlignedArray<float>(centre_blocks * kBlockRows);
    radii_ = AlignedArray<float>(centre_blocks * kBlockRows);
    std::fill(centres_.data(), centres_.data() + centres_.size(), 0.0f);
    // Places without a leaf are as far off as can be: their start makes every dot product hopeless.
    std::fill(centre_starts_.data(), centre_starts_.data() + centre_starts_.size(), -1e37f);
    std::fill(radii_.data(), radii_.data() + radii_.size(), 0.0f);

    std::vector<float> centre_norms(leaves_);
    parallel_for(leaves_, [&](size_t leaf, int) {
        const size_t first = leaf * kBlockRows;
        const size_t count = std::min<size_t>(kBlockRows, ids.size() - first);
        float* block = blocks_.data() + leaf * depth_ * kBlockRows;
        std::vector<double> centre(depth_, 0.0);
        for (size_t j = 0; j < kBlockRows; ++j) {
            const bool present = j < count;
            const uint32_t id = present ? ids[first + j] : kNoRow;
            row_of_[first + j] = id;
            double sq = 0.0;
            for (size_t d = 0; d < depth_; ++d) {
                const float value = present ? heads[id * depth_ + d] : 0.0f;
                block[d * kBlockRows + j] = value;
                centre[d] += value;
                sq += static_cast<double>(value) * value;
            }
            starts_[first + j] = present ? static_cast<float>(-0.5 * sq) : -std::numeric_limits<float>::max();
            if (present) {
                errors_[leaf] = std::max(errors_[leaf], frames[id].error);
                norms_[leaf] = std::max(norms_[leaf], frames[id].norm);
            }
        }
        double centre_sq = 0.0, radius_sq = 0.0;
        std::vector<float> stored(depth_);
        float* column = centres_.data() + leaf / kBlockRows * depth_ * kBlockRows + leaf % kBlockRows;
        for (size_t d = 0; d < depth_; ++d) {
            stored[d] = static_cast<float>(centre[d] / static_cast<double>(count));
            column[d * kBlockRows] = stored[d];
            centre_sq += static_cast<double>(stored[d]) * stored[d];
        }
        for (size_t j = 0; j < count; ++j) {
            double sq = 0.0;
            for (size_t d = 0; d < depth_; ++d) {
                const double difference = static_cast<double>(block[d * kBlockRows + j]) - stored[d];
                sq += difference * difference;
            }
            radius_sq = std::max(radius_sq, sq);
        }
        centre_starts_[leaf] = static_cast<float>(-0.5 * centre_sq);
        radii_[leaf] = round_up(std::sqrt(radius_sq) * (1.0 + 1e-9) + errors_[leaf]);
        centre_norms[leaf] = round_up(std::sqrt(centre_sq) * (1.0 + 1e-9));
    });
    for (const float norm : centre_norms) centre_norm_ = std::max(centre_norm_, norm);
}

void LeafIndex::encode(const Basis& basis, uint32_t row, const float* coordinates, const RowFrame& frame) {
    int8_t* const record = codes_.data() + row * code_stride_;
    double residue_sq = 0.0;
    for (size_t g = 0; g < groups_; ++g) {
        const double step = basis.step()[g];
        for (size_t i = 0; i < kCodeGroup; ++i) {
            const double value = coordinates[basis.head() + g * kCodeGroup + i];
            const double code = std::max(-127.0, std::min(127.0, std::nearbyint(value / step)));
            record[g * kCodeGroup + i] = static_cast<int8_t>(code);
            const double missed = value - code * step;
            residue_sq += missed * missed;
        }
    }
    const float floats[3] = {frame.head_tail, frame.full_tail,
                             round_up(std::sqrt(residue_sq) * (1.0 + 1e-9))};
    std::memcpy(record + groups_ * kCodeGroup, floats, sizeof floats);
}

LeafIndex::CodeRecord LeafIndex::code(uint32_t row) const {
    const int8_t* const record = codes_.data() + row * code_stride_;
    float floats[3];
    std::memcpy(floats, record + groups_ * kCodeGroup, sizeof floats);
    return {record, floats[0], floats[1], floats[2]};
}

size_t LeafIndex::bytes() const {
    return (blocks_.size() + starts_.size() + centres_.size() + centre_starts_.size() + radii_.size()) *
               sizeof(float) +
           row_of_.size() * sizeof(uint32_t) + codes_.size() +
           (errors_.size() + norms_.size()) * sizeof(float);
}

}  // namespace inreach
