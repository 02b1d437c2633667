#include "inreach/convolution.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "engine/aligned.h"
#include "engine/require.h"
#include "engine/threads.h"
#include "engine/winograd_weights.h"

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

// All tiles of all images, in their order.
struct Tiles {
    size_t edge, down, across, count;

    struct Place {
        size_t image, top, left;
    };
    Place operator[](size_t t) const {
        return {t / (down * across), t / across % down * edge, t % across * edge};
    }
};

// Work of one call: blocks of tiles, each with parts of the outputs.
struct Plan {
    size_t blocks, parts, part_outputs;
};

Plan make_plan(size_t tiles, size_t inputs, size_t outputs, int tile, size_t threads) {
    const size_t values = tile_edge(tile) * tile_edge(tile), floats = values * (whole_strips(inputs) + kGap);
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

class ThreadLimit {
  public:
    explicit ThreadLimit(int threads) : before_(limit_threads(threads)) {}
    ~ThreadLimit() { limit_threads(before_); }
    ThreadLimit(const ThreadLimit&) = delete;
    ThreadLimit& operator=(const ThreadLimit&) = delete;

  private:
    const int before_;
};

// Calls task(i) for each i < n on the threads of `team`.
void run_tasks(size_t n, const Team& team, const std::function<void(size_t)>& task) {
    if (team.run == nullptr || team.threads <= 1 || n <= 1) {
        const ThreadLimit limit(team.threads);
        return parallel_for(n, task);
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
    // All of its threads, as for the team's own work: OpenMP ends those that a smaller team leaves out, and
    // they would have to be started again.
    team.run(work, &shared, static_cast<unsigned>(team.threads), 0);
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
    const size_t n = tile_edge(tile), padded = whole_strips(outputs);
    auto packed = std::make_unique<Packed>(Packed{
        inputs, outputs, tile, AlignedArray<float>(n * n * padded * inputs), AlignedArray<float>(padded)});
    std::fill_n(std::copy_n(bias, outputs, packed->bias.data()), padded - outputs, 0.0f);
    transform_weights(weight, inputs, outputs, tile, packed->strips.data());
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
    const Tiles tiles{m, down, across, images.count * down * across};
    if (tiles.count == 0) return;
    const Plan plan =
        make_plan(tiles.count, inputs, outputs, packed_->tile, static_cast<size_t>(team.threads));
    const WinogradKernels& table = kernels().winograd;
    const auto input = m == 2 ? table.input2 : table.input4;
    const auto output = m == 2 ? table.output2 : table.output4;
    const std::vector<float> outside(inputs, 0.0f);

    run_tasks(plan.blocks * plan.parts, team, [&](size_t task) {
        const size_t block = task / plan.parts, part = task % plan.parts * plan.part_outputs;
        const size_t first = tiles.count * block / plan.blocks;
        const size_t count = tiles.count * (block + 1) / plan.blocks - first;
        const size_t stride = whole_strips(inputs) + kGap, step = count * stride;
        const size_t sum_stride = kChunk + kGap, sum_step = count * sum_stride;
        float* const transformed = scratch(n * n * (step + sum_step));
        float* const sums = transformed + n * n * step;

        for (size_t t = 0; t < count; ++t) {
            const auto [image, top, left] = tiles[first + t];
            const float* pixels[36];
            for (size_t i = 0; i < n * n; ++i) {
                const size_t y = top + i / n - pad_y, x = left + i % n - pad_x;  // huge where outside
                pixels[i] = y < height && x < width
                                ? images.data + ((image * height + y) * width + x) * inputs
                                : outside.data();
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
                const auto [image, top, left] = tiles[first + t];
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
