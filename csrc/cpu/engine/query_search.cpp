#include "engine/query_search.h"

#include <algorithm>
#include <utility>

#include "dispatch.h"
#include "engine/mapped.h"
#include "engine/require.h"
#include "engine/rounding.h"
#include "engine/threads.h"

namespace inreach {

namespace {

// First answers, which make the reach small before all branches are looked at. Measured with 784 queries,
// 15,000 clustered rows of 1024 values, AVX2, one thread, in milliseconds of the whole search.
//
// Branches whose leaves may be read first: 158, 164, 163, 151 for 1, 2, 4, 8. One may be the wrong one.
constexpr size_t kFirstBranches = 4;
// Leaves with an answer that are read first: 186, 166, 155, 151 for 1, 2, 4, 8.
constexpr size_t kFirstLeaves = 4;
// Leaves with or without an answer that are read first: matters with groups alone, whose nearest leaves may
// hold only rows that do not count (174 without groups, for 8 to 64).
constexpr size_t kMostFirstLeaves = 32;
// Rows of a leaf that its first codes let through from which on one is decided before the others are looked
// at.
constexpr int kManySurvive = 6;
// After the start it is decided only where its squared distance by the first codes is below this share of the
// squared reach: few others turn out to be nearer than the best row so far, and each is read from memory.
// Of 1.08 million rows read by 6272 queries among 300,000 rows, 0.75 million were such.
constexpr float kLikelyShare = 0.6f;
// Leaves that nearest_bounds reads: 84, 98, 107, 110, 117 for 4, 8, 12, 16, 24.
constexpr size_t kBoundLeaves = 12;

// Relative rounding of a float32 dot product over head and tail, its start value and the squared norms.
constexpr double kRoundingSlack = 64 * kUnit32;
// Of a difference from a code, relative to itself and to the longest code (docs/search.md, 5).
constexpr double kCodeRounding = 4.1 * kUnit32;

// A float32 sum of squares, lowered by what rounding can have added. NaN (an index whose file was altered)
// becomes 0: nothing is known.
double lowered(float sum) {
    return std::max(0.0, static_cast<double>(sum) * (1.0 - kRoundingSlack) - kUnderflow);
}

}  // namespace

SearchContext::SearchContext(const RowSet& queries, const ProjectedRows& projected, const RowSet& bank,
                             const Basis& basis, const LeafIndex& index, size_t k, const int64_t* hint)
    : queries(queries),
      projected(projected),
      bank(bank),
      basis(basis),
      index(index),
      table(kernels()),
      grouped(queries.group != nullptr && bank.group != nullptr) {
    require_search(queries, bank, k);
    require(basis.dim() == bank.dim, "basis: made for rows of another length");
    require(projected.frames.size() == queries.count && projected.basis_id == basis.id(),
            "projected: rows of another set or in another basis");
    require(index.rows_indexed() == bank.count && index.basis_id() == basis.id(),
            "leaf_index: belongs to another bank or basis");
    if (hint == nullptr) return;
    for (size_t i = 0; i < queries.count; ++i)
        require(hint[i] >= -1 && hint[i] < static_cast<int64_t>(bank.count), "hint: no such bank row");
}

QuerySearch::QuerySearch(const SearchContext& context, size_t query, const float* head, SearchWork& work,
                         TopK answers)
    : context_(context),
      bank_(context.bank),
      index_(context.index),
      table_(context.table),
      original_(context.queries.row(query)),
      frame_(context.projected.frames[query]),
      coordinates_(context.projected.coordinates.data() + query * context.projected.rank),
      head_(head),
      work_(work),
      answers_(answers),
      group_(context.grouped ? context.queries.group[query] : 0),
      scale_(context.basis.lipschitz() * context.basis.scale()),
      certain32_((1.0 - gamma32(bank_.dim / 16 + 40)) * (1.0 - 2.0 * kDecisionSlack)) {
    double sq = 0.0;
    for (size_t i = 0; i < kBallDepth; ++i) sq += static_cast<double>(head[i]) * head[i];
    // Lowered by what rounding can do to the dot products with the balls' centres.
    const double norms = static_cast<double>(frame_.norm) + index_.centre_norm() + frame_.error;
    ball_sq_ = round_down(sq - 2.0 * kRoundingSlack * norms * norms - kUnderflow);
    update_reach();
    candidates_.reserve(kDrainAt);
}

void QuerySearch::offer(int64_t row) {
    if (!eligible(row)) return;
    decide(static_cast<uint32_t>(row));
    update_reach();
}

void QuerySearch::start(const float* dots, size_t stride) {
    starting_ = true;
    const StoredArray<uint32_t>& unbounded = index_.unbounded();
    for (size_t i = 0; i < unbounded.size(); ++i) {
        if (i % 1024 == 0) stop_point();
        offer(unbounded[i]);
    }
    BallGap nearest[kFirstBranches];  // by distance from their centres
    size_t found = 0;
    for (size_t b = 0; b < index_.branches(); ++b) {
        const BallGap one{-dot_of(dots, stride, b), static_cast<uint32_t>(b)};
        if (found == kFirstBranches && !(one < nearest[found - 1])) continue;
        size_t i = found < kFirstBranches ? found++ : found - 1;
        for (; i > 0 && one < nearest[i - 1]; --i) nearest[i] = nearest[i - 1];
        nearest[i] = one;
    }
    size_t productive = 0;
    const auto read_first = [&](uint32_t leaf) {
        const uint64_t before = work_.read;
        read_.push_back(leaf);
        read_leaf(leaf);
        drain();
        productive += work_.read != before;
    };
    for (size_t n = 0; n < found && productive < kFirstLeaves && read_.size() < kMostFirstLeaves; ++n) {
        const size_t b = nearest[n].number;
        if (n > 0 && branch_gap(dot_of(dots, stride, b), b) > reach_) continue;
        if (n == 0 && std::isinf(answers_.limit())) {
            // All leaves are in reach of a query that knows nothing: the nearest one leaves few to be put in
            // order.
            float leaf_dots[kBlockRows];
            scan_balls(b, leaf_dots);
            const size_t first = b * kLeavesPerBranch,
                         here = std::min(kLeavesPerBranch, index_.leaves() - first);
            read_first(static_cast<uint32_t>(
                first + static_cast<size_t>(std::max_element(leaf_dots, leaf_dots + here) - leaf_dots)));
        }
        BallGap leaves[kBlockRows];
        const size_t count = leaves_in_reach(b, leaves);
        std::sort(leaves, leaves + count);
        for (size_t i = 0; i < count && productive < kFirstLeaves && read_.size() < kMostFirstLeaves; ++i) {
            if (leaves[i].gap > reach_) break;
            if (std::find(read_.begin(), read_.end(), leaves[i].number) == read_.end())
                read_first(leaves[i].number);
        }
    }
    starting_ = false;
}

void QuerySearch::want_leaves(size_t branch, float* dots, uint64_t bit, uint64_t* wanted) {
    uint32_t in[kBlockRows];
    const size_t found = scan_balls(branch, dots, in);
    for (size_t i = 0; i < found; ++i) wanted[in[i]] |= bit;
    for (const uint32_t leaf : read_)
        if (leaf / kLeavesPerBranch == branch) wanted[leaf % kLeavesPerBranch] &= ~bit;
}

double QuerySearch::read_nearest(const float* dots, size_t stride, std::vector<BallGap>& heap) {
    const auto later = [](const BallGap& a, const BallGap& b) { return b < a; };
    const auto push = [&](const BallGap& ball) {
        heap.push_back(ball);
        std::push_heap(heap.begin(), heap.end(), later);
    };
    heap.clear();
    const auto leaves = static_cast<uint32_t>(index_.leaves());
    for (size_t b = 0; b < index_.branches(); ++b) {  // numbered after the leaves
        const float gap = round_down(branch_gap(dot_of(dots, stride, b), b));
        if (gap <= reach_) push({gap, leaves + static_cast<uint32_t>(b)});
    }
    size_t left = kBoundLeaves;
    while (!heap.empty()) {
        const BallGap ball = heap.front();
        if (ball.gap > reach_ || (left == 0 && ball.number < leaves)) break;
        std::pop_heap(heap.begin(), heap.end(), later);
        heap.pop_back();
        if (ball.number < leaves) {
            --left;
            if (std::find(read_.begin(), read_.end(), ball.number) != read_.end()) continue;
            read_leaf(ball.number);
            drain();
            continue;
        }
        BallGap found[kBlockRows];
        const size_t count = leaves_in_reach(ball.number - leaves, found);
        for (size_t i = 0; i < count; ++i) push(found[i]);
    }
    return heap.empty() ? reach_ : std::min(reach_, static_cast<double>(heap.front().gap));
}

float QuerySearch::sq_lower(double bound) const {
    if (bound >= reach_) return static_cast<float>(answers_.limit());  // what was found is the nearest
    const double distance = std::max(0.0, bound - frame_.error) / scale_ * (1.0 - 4.0 * kDecisionSlack);
    return std::min(round_down(distance * distance), static_cast<float>(answers_.limit()));
}

// The largest distance in the frame at which a row can still matter.
void QuerySearch::update_reach() {
    const double limit = answers_.limit();
    reach_ = std::isinf(limit) ? 1e18 : scale_ * std::sqrt(limit) * (1.0 + kDecisionSlack) + frame_.error;
    reach_ = std::min(reach_, 1e18);
}

void QuerySearch::decide(uint32_t row) {
    const float* const values = bank_.row(row);
    if (++work_.read >= work_.check_memory_at) work_.check_memory_at = work_.read + limit_resident(bank_);
    const double limit = answers_.limit();
    if (!std::isinf(limit)) {
        const float sq = table_.sq_distance32(original_, values, bank_.dim);
        // One that overflowed says nothing; squares that underflow only make it smaller, or add less than
        // kUnderflow.
        if (sq < std::numeric_limits<float>::max() && certain32_ * sq - kUnderflow > limit) return;
    }
    const double sq_distance = table_.sq_distance(original_, values, bank_.dim);
    answers_.offer({bank_.value(sq_distance, row), static_cast<int64_t>(row)});
    ++work_.counts.decided;
}

// The dots of a branch's leaves.
void QuerySearch::scan_balls(size_t branch, float* dots) {
    table_.scan_block(index_.leaf_centres(branch), kBallDepth, head_, 0.0f, index_.leaf_starts(branch), dots);
    work_.balls += kBlockRows;
}

// The same, and which of them are within reach.
size_t QuerySearch::scan_balls(size_t branch, float* dots, uint32_t* in_reach) {
    scan_balls(branch, dots);
    return table_.collect_in_reach(dots, index_.leaf_radii(branch), kBlockRows, ball_sq_,
                                   round_up(reach_ * (1.0 + 1e-6)), in_reach);
}

size_t QuerySearch::leaves_in_reach(size_t branch, BallGap* out) {
    float dots[kBlockRows];
    uint32_t in[kBlockRows];
    const size_t found = scan_balls(branch, dots, in);
    size_t count = 0;
    for (size_t i = 0; i < found; ++i) {
        const size_t leaf = branch * kLeavesPerBranch + in[i];
        if (leaf < index_.leaves())
            out[count++] = {round_down(leaf_gap(dots[in[i]], leaf)), static_cast<uint32_t>(leaf)};
    }
    return count;
}

// The query in codes about the centre of a group of leaves.
void QuerySearch::quantize(size_t group) {
    if (group == group_at_) return;
    group_at_ = group;
    quantized_ = table_.quantize(coordinates_, index_.group_centre(group), codes_);
    const double length =
        static_cast<double>(quantized_.step) * std::sqrt(static_cast<double>(quantized_.sq_sum));
    const double missed =
        std::sqrt(static_cast<double>(quantized_.sq_error) * (1.0 + 256 * kUnit32) + kUnderflow);
    missed_ = missed + 4.0 * kUnit32 * (length + missed);
    const double tail = frame_.scan_tail;
    code_sq_ = length * length + tail * tail;
    code_norm_ = std::sqrt(code_sq_);
}

void QuerySearch::read_leaf(size_t leaf) {
    const LeafNumbers numbers = index_.numbers(leaf);
    quantize(leaf / kLeavesPerGroup);
    const double norms = (code_norm_ + numbers.norm) * (1.0 + 1e-9);
    const double slack = kRoundingSlack * norms * norms + kUnderflow;
    const auto least_value = [&] {
        const double far = reach_ + numbers.error + numbers.residue + missed_;
        return round_down(0.5 * (code_sq_ - far * far) - slack);
    };
    float values[kBlockRows];
    uint64_t survivors =
        table_.scan_codes(index_.first_codes(leaf), codes_, quantized_.sum,
                          quantized_.step * index_.group_step(leaf / kLeavesPerGroup), frame_.scan_tail,
                          index_.first_tails(leaf), index_.first_halves(leaf), least_value(), values);
    work_.counts.bounded += kBlockRows;
    if (survivors == 0) return;
    const uint32_t* const rows = index_.rows(leaf);
    if (answers_.k() == 1 && __builtin_popcountll(survivors) > kManySurvive) {
        // Little is known of this query yet: the row that is likely its best one first leaves few of the
        // others.
        const size_t best = likely_best(rows, values, survivors);
        if (best < kBlockRows && eligible(rows[best])) {
            decide(rows[best]);
            update_reach();
            const float least = least_value();
            for (uint64_t rest = std::exchange(survivors, 0) & ~(uint64_t{1} << best); rest; rest &= rest - 1)
                if (!(values[__builtin_ctzll(rest)] < least)) survivors |= rest & (~rest + 1);  // NaN passes
        }
    }
    uint8_t places[kBlockRows];
    size_t count = 0;
    for (; survivors; survivors &= survivors - 1) {
        const auto j = static_cast<size_t>(__builtin_ctzll(survivors));
        // What the next stage reads.
        __builtin_prefetch(index_.middle_codes(leaf * kBlockRows + j));
        __builtin_prefetch(index_.rest_data(leaf * kBlockRows + j));
        places[count] = static_cast<uint8_t>(j);
        count += rows[j] != kNoRow && eligible(rows[j]);
    }
    work_.counts.refined += count;
    double middles[kBlockRows];
    count = pass_middle(leaf, numbers, places, count, values, slack, middles);
    if (count != 0) refine(leaf, numbers, places, count, middles);
}

// Of some places of a leaf the one whose row has the least value by its first codes, kBlockRows for none.
size_t QuerySearch::likely_best(const uint32_t* rows, const float* values, uint64_t places) const {
    const auto base = static_cast<float>(code_sq_), unit = static_cast<float>(scale_ * scale_);
    size_t best = kBlockRows;
    float least =
        starting_ ? std::numeric_limits<float>::max() : kLikelyShare * static_cast<float>(reach_ * reach_);
    for (; places; places &= places - 1) {
        const auto j = static_cast<size_t>(__builtin_ctzll(places));
        if (rows[j] == kNoRow || (context_.grouped && bank_.group[rows[j]] == group_)) continue;
        float value = base - 2.0f * values[j];
        if (bank_.floor != nullptr) value = std::max(value, bank_.floor[rows[j]] * unit);
        if (value < least) least = value, best = j;
    }
    return best;
}

// A row can matter while the length of its difference, computed from codes, is at most this.
double QuerySearch::longest(const LeafNumbers& numbers, double missed) const {
    return (reach_ + numbers.error + missed + kCodeRounding * numbers.codes) * (1.0 + 2.0 * kCodeRounding);
}

// Sums of squares over coded coordinates of some rows of a leaf.
void QuerySearch::code_sums(size_t leaf, const int8_t* codes, size_t stride, const uint8_t* places,
                            size_t count, size_t first_coordinate, size_t coordinates, float* sums) const {
    table_.code_distances(codes, stride, places, count, coordinates_ + first_coordinate,
                          index_.code_centre(leaf) + first_coordinate,
                          index_.code_steps(leaf) + first_coordinate / kCodeGroup, coordinates / kCodeGroup,
                          sums);
}

// Keeps those of `places` that may be within reach by first and middle codes, in their order; returns how
// many, and the sums of squares over their middle codes.
size_t QuerySearch::pass_middle(size_t leaf, const LeafNumbers& numbers, uint8_t* places, size_t count,
                                const float* values, double slack, double* middles) const {
    if (index_.middle_width() == 0) {
        std::fill(middles, middles + count, 0.0);
        return count;
    }
    const size_t first_place = leaf * kBlockRows;
    float sums[kBlockRows];
    code_sums(leaf, index_.middle_codes(first_place), index_.middle_width(), places, count, kScanDims,
              index_.middle_width(), sums);
    const float* const tails = index_.first_tails(leaf);
    const double first_sq = code_sq_ - 2.0 * slack, most = longest(numbers, missed_);
    size_t left = 0;
    for (size_t i = 0; i < count; ++i) {
        const size_t j = places[i];
        const RowRest rest = index_.rest(first_place + j);
        const double tail = static_cast<double>(tails[j]) - frame_.scan_tail;
        const double first = std::max(0.0, first_sq - 2.0 * static_cast<double>(values[j]) - tail * tail);
        const double beyond = static_cast<double>(rest.middle_tail) - frame_.middle_tail;
        const double middle = lowered(sums[i]);
        const double limit = most + static_cast<double>(rest.middle_residue) * (1.0 + 2.0 * kCodeRounding);
        // Without a branch: which rows pass cannot be predicted. NaN passes.
        places[left] = static_cast<uint8_t>(j);
        middles[left] = middle;
        left += !(first + middle + beyond * beyond > limit * limit);
    }
    return left;
}

// Rows that the last codes let through become candidates.
void QuerySearch::refine(size_t leaf, const LeafNumbers& numbers, const uint8_t* places, size_t count,
                         const double* middles) {
    const size_t first_place = leaf * kBlockRows, width = index_.last_width();
    const int8_t* const codes = index_.last_codes(first_place);
    for (size_t i = 0; i < count; ++i) fetch_ahead(codes + places[i] * width, width);
    float first[kBlockRows], others[kBlockRows] = {};
    code_sums(leaf, codes, width, places, count, 0, kScanDims, first);
    if (width > kScanDims)
        code_sums(leaf, codes + kScanDims, width, places, count, kScanDims + index_.middle_width(),
                  width - kScanDims, others);
    const double most = longest(numbers, 0.0);
    for (size_t i = 0; i < count; ++i) {
        const RowRest rest = index_.rest(first_place + places[i]);
        const double tail = static_cast<double>(rest.last_tail) - frame_.full_tail;
        const double sq = lowered(first[i]) + lowered(others[i]) + middles[i] + tail * tail;
        const double limit = most + static_cast<double>(rest.last_residue) * (1.0 + 2.0 * kCodeRounding);
        if (sq > limit * limit) continue;
        const double length = std::sqrt(sq);
        const double bound = length - kCodeRounding * (length + numbers.codes) - rest.last_residue;
        const float lower = round_down(bound * (1.0 - 1e-9) - numbers.error);
        candidates_.push_back({std::isnan(lower) ? 0.0f : lower, index_.rows(leaf)[places[i]]});
    }
}

void QuerySearch::drain() {
    if (candidates_.size() >= kDrainAt) stop_point();
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
        return a.bound < b.bound || (a.bound == b.bound && a.row < b.row);
    });
    for (size_t i = 0; i < candidates_.size() && candidates_[i].bound <= reach_; ++i) {
        if (i + 1 < candidates_.size() && candidates_[i + 1].bound <= reach_)
            fetch_ahead(bank_.row(candidates_[i + 1].row), bank_.dim * sizeof(float));
        decide(candidates_[i].row);
        update_reach();
    }
    candidates_.clear();
}

}  // namespace inreach
