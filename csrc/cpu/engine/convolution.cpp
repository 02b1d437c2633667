#include "inreach/convolution.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/require.h"
#include "engine/threads.h"

namespace inreach {
namespace {

// Fewest channels for which the transforms are cheap beside the products.
constexpr size_t kFewestChannels = 16;
// A direct convolution must do so many times the multiplications.
constexpr double kFewestTimes = 1.25;
// Reading a weight from memory takes as long as so many multiplications with it.
constexpr double kReading = 15.0;

// Tiles of a block: a multiple of 14, the rows that AVX-512 takes at once, and not fewer than those.
constexpr size_t kMostTiles = 56, kFewestTiles = 14;
// All weights are read once for each block, so that it should be large where they are many; and it should
// stay in the second-level cache where they do: a transformed block has a quarter of their size, but from 640
// KB to 2 MB.
constexpr size_t kLeastFloats = 160 * 1024, kMostFloats = 512 * 1024;
// Outputs whose sums are computed before they are transformed back; a task has at least as many.
constexpr size_t kChunk = 64;
// Distance of a transformed tile's rows beyond their channels: powers of two would meet in the same cache
// lines.
constexpr size_t kGap = 16;

constexpr size_t kStrip = kStripRows;

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
size_t whole_strips(size_t channels) { return divide_up(channels, kStrip) * kStrip; }

size_t edge(int tile) { return static_cast<size_t>(tile) + 2; }

// Rows of the weights' transform: values at the points of the polynomial of a row of weights, over the
// product of the differences from the other points (infinity last).
std::array<std::array<double, 3>, 6> weight_transform(int tile) {
    std::array<std::array<double, 3>, 6> rows{};
    const std::array<double, 5> points =
        tile == 2 ? std::array<double, 5>{0, 1, -1, 0, 0} : std::array<double, 5>{0, 0.75, -0.75, 1.5, -1.5};
    const size_t finite = edge(tile) - 1;
    for (size_t i = 0; i < finite; ++i) {
        double product = 1.0;
        for (size_t j = 0; j < finite; ++j)
            if (j != i) product *= points[i] - points[j];
        rows[i] = {1.0 / product, points[i] / product, points[i] * points[i] / product};
    }
    rows[finite] = {0.0, 0.0, 1.0};
    return rows;
}

// Work of one call: blocks of tiles, each with parts of the outputs.
struct Plan {
    size_t blocks, parts, part_outputs;
};

Plan make_plan(size_t tiles, size_t inputs, size_t outputs, int tile, size_t threads) {
    const size_t values = edge(tile) * edge(tile), floats = values * (whole_strips(inputs) + kGap);
    const size_t room = std::clamp(values * inputs * outputs / 4, kLeastFloats, kMostFloats);
    const size_t most = std::clamp(room / floats, kFewestTiles, kMostTiles);
    size_t blocks = divide_up(tiles, most);
    if (blocks > 1 && threads > 1) blocks = divide_up(blocks, threads) * threads;  // equal shares
    const size_t most_blocks = divide_up(tiles, kFewestTiles);
    blocks = std::min(blocks, most_blocks);
    const size_t part = divide_up(outputs, std::min(divide_up(outputs, kChunk), divide_up(threads, blocks)));
    const size_t part_outputs = divide_up(part, 2 * kStrip) * 2 * kStrip;
    const size_t parts = divide_up(outputs, part_outputs);
    if (blocks * parts < threads) blocks = std::min(divide_up(threads, parts), most_blocks);
    return {blocks, parts, part_outputs};
}

// Calls task(i) for each i < n on the threads of `team`.
void run_tasks(size_t n, const Team& team, const std::function<void(size_t)>& task) {
    if (team.run == nullptr || team.threads <= 1 || n <= 1) {
        const int before = limit_threads(team.threads);
        try {
            parallel_for(n, task);
        } catch (...) {
            limit_threads(before);
            throw;
        }
        limit_threads(before);
        return;
    }
    struct Shared {
        size_t n;
        const std::function<void(size_t)>& task;
        std::atomic<size_t> next{0};
        std::mutex mutex{};
        std::exception_ptr error{};
    } shared{n, task};
    const auto work = [](void* argument) {
        Shared& all = *static_cast<Shared*>(argument);
        try {
            for (size_t i = all.next.fetch_add(1); i < all.n; i = all.next.fetch_add(1)) all.task(i);
        } catch (...) {
            all.next.store(all.n);
            const std::lock_guard<std::mutex> lock(all.mutex);
            if (!all.error) all.error = std::current_exception();
        }
    };
    team.run(work, &shared, static_cast<unsigned>(std::min<size_t>(n, static_cast<size_t>(team.threads))), 0);
    if (shared.error) std::rethrow_exception(shared.error);
}

// Memory of this thread that is kept from call to call: fresh pages would cost as much as the transforms.
float* scratch(size_t floats) {
    thread_local AlignedArray<float> kept;
    if (kept.size() < floats) {
        kept = AlignedArray<float>();
        kept = AlignedArray<float>(floats);
    }
    return kept.data();
}

}  // namespace

int winograd_tile(size_t height, size_t width, size_t inputs, size_t outputs) {
    if (inputs < kFewestChannels || outputs < kFewestChannels) return 0;
    const auto cost = [&](size_t tile) {
        const auto tiles = static_cast<double>(divide_up(height, tile) * divide_up(width, tile));
        return static_cast<double>((tile + 2) * (tile + 2)) * (tiles + kReading);
    };
    const double direct = 9.0 * (static_cast<double>(height * width) + kReading);
    const int tile = cost(4) < cost(2) ? 4 : 2;
    return cost(static_cast<size_t>(tile)) * kFewestTimes <= direct ? tile : 0;
}

struct Convolution::Packed {
    size_t inputs, outputs;
    int tile;
    AlignedArray<float> strips;  // [value of the tile][strip of outputs][input][output of the strip]
    AlignedArray<float> bias;    // up to a whole strip
};

Convolution::Convolution(const float* weight, const float* bias, size_t inputs, size_t outputs, int tile) {
    require(inputs > 0 && outputs > 0, "convolution: inputs and outputs must be at least 1");
    require(tile == 2 || tile == 4, "convolution: tile must be 2 or 4");
    const size_t n = edge(tile), padded = whole_strips(outputs);
    auto packed = std::make_unique<Packed>(Packed{
        inputs, outputs, tile, AlignedArray<float>(n * n * padded * inputs), AlignedArray<float>(padded)});
    std::fill_n(std::copy_n(bias, outputs, packed->bias.data()), padded - outputs, 0.0f);
    const auto transform = weight_transform(tile);
    float* const strips = packed->strips.data();
    parallel_for(padded / kStrip, [&](size_t s) {
        const size_t some = std::min(kStrip, outputs - s * kStrip);
        for (size_t c = 0; c < inputs; ++c) {
            double given[9][kStrip] = {}, half[6][3][kStrip];
            for (size_t o = 0; o < some; ++o)
                for (size_t i = 0; i < 9; ++i)
                    given[i][o] = static_cast<double>(weight[((s * kStrip + o) * inputs + c) * 9 + i]);
            for (size_t y = 0; y < n; ++y)
                for (size_t x = 0; x < 3; ++x)
                    for (size_t o = 0; o < kStrip; ++o)
                        half[y][x][o] = (transform[y][0] * given[x][o] + transform[y][1] * given[3 + x][o]) +
                                        transform[y][2] * given[6 + x][o];
            for (size_t y = 0; y < n; ++y)
                for (size_t x = 0; x < n; ++x) {
                    float* const to =
                        strips + ((y * n + x) * padded / kStrip + s) * inputs * kStrip + c * kStrip;
                    for (size_t o = 0; o < kStrip; ++o)
                        to[o] = static_cast<float>(
                            (transform[x][0] * half[y][0][o] + transform[x][1] * half[y][1][o]) +
                            transform[x][2] * half[y][2][o]);
                }
        }
    });
    packed_ = std::move(packed);
}

Convolution::~Convolution() = default;

size_t Convolution::inputs() const { return packed_->inputs; }
size_t Convolution::outputs() const { return packed_->outputs; }

void Convolution::operator()(const Images& images, size_t pad_y, size_t pad_x, const float* other,
                             Activation activation, const Team& team, float* out) const {
    require(team.threads >= 1, "convolution: threads must be at least 1");
    const size_t height = images.height, width = images.width;
    require(height + 2 * pad_y >= 3 && width + 2 * pad_x >= 3, "convolution: images are smaller than 3x3");
    const size_t inputs = packed_->inputs, outputs = packed_->outputs, padded = whole_strips(outputs);
    const size_t m = static_cast<size_t>(packed_->tile), n = m + 2;
    const size_t out_height = height + 2 * pad_y - 2, out_width = width + 2 * pad_x - 2;
    const size_t down = divide_up(out_height, m), across = divide_up(out_width, m);
    const size_t tiles = images.count * down * across;
    if (tiles == 0) return;
    const Plan plan = make_plan(tiles, inputs, outputs, packed_->tile, static_cast<size_t>(team.threads));
    const WinogradKernels& table = kernels().winograd;
    const auto input = m == 2 ? table.input2 : table.input4;
    const auto output = m == 2 ? table.output2 : table.output4;
    const AlignedArray<float> nothing = [&] {
        AlignedArray<float> zeros(inputs);
        std::fill_n(zeros.data(), inputs, 0.0f);
        return zeros;
    }();

    run_tasks(plan.blocks * plan.parts, team, [&](size_t task) {
        const size_t block = task / plan.parts, part = task % plan.parts * plan.part_outputs;
        const size_t first = tiles * block / plan.blocks, count = tiles * (block + 1) / plan.blocks - first;
        const size_t stride = whole_strips(inputs) + kGap, step = count * stride;
        const size_t sum_stride = kChunk + kGap, sum_step = count * sum_stride;
        float* const transformed = scratch(n * n * (step + sum_step));
        float* const sums = transformed + n * n * step;

        for (size_t t = 0; t < count; ++t) {
            const size_t at = first + t, image = at / (down * across);
            const size_t top = at / across % down * m, left = at % across * m;
            const float* pixels[36];
            for (size_t i = 0; i < n * n; ++i) {
                const size_t y = top + i / n - pad_y, x = left + i % n - pad_x;  // huge where outside
                pixels[i] = y < height && x < width
                                ? images.data + ((image * height + y) * width + x) * inputs
                                : nothing.data();
            }
            input(pixels, inputs, transformed + t * stride, step);
        }
        const size_t stop = std::min(part + plan.part_outputs, outputs);
        for (size_t from = part; from < stop; from += kChunk) {
            const size_t some = std::min(kChunk, stop - from);
            for (size_t i = 0; i < n * n; ++i)
                table.multiply(transformed + i * step, stride, count,
                               packed_->strips.data() + (i * padded + from) * inputs, inputs,
                               whole_strips(some), sums + i * sum_step, sum_stride);
            for (size_t t = 0; t < count; ++t) {
                const size_t at = first + t, image = at / (down * across);
                const size_t top = at / across % down * m, left = at % across * m;
                float* pixels[16];
                const float* others[16];
                for (size_t i = 0; i < m * m; ++i) {
                    const size_t y = top + i / m, x = left + i % m;
                    const bool inside = y < out_height && x < out_width;
                    const size_t place = ((image * out_height + y) * out_width + x) * outputs + from;
                    pixels[i] = inside ? out + place : nullptr;
                    others[i] = inside && other != nullptr ? other + place : nullptr;
                }
                output(sums + t * sum_stride, sum_step, packed_->bias.data() + from,
                       other != nullptr ? others : nullptr, activation, some, pixels);
            }
        }
    });
}

}  // namespace inreach
