// Descriptors in two sweeps over an image (formula, order of operations and figures: cpu/describe/README.md):
//
//   1. Stages whose grid is not the output's: all their outputs, at their own small resolution, into a table.
//   2. Bands of output rows: stages already on the output's grid are computed for the band; then the row of
//      every patch is written once, from left to right, blended from the tables.
//
// A stage is a run of levels on one grid; an output that two of them share is one longer run of taps. The
// inner loop sees planes only: the channels that 16 outputs need are packed into zero-bordered planes in
// cache, whatever the layout of the input, and an output is then a weighted sum of shifted planes, a vector
// of places at a time.
#include "inreach/describe.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "engine/threads.h"

namespace inreach {
namespace {

constexpr size_t kLanes = 16;               // sum_taps works on multiples of this
constexpr size_t kOutputGroup = 16;         // outputs that share packed planes
constexpr size_t kPlaneFloats = 64 * 1024;  // packed planes of a thread: 256 KB, to stay in a core's L2
constexpr size_t kBandPlaces = 512;         // grid cells of a band, so that its tables stay in L2 as well
constexpr size_t kMinBandRows = 4;          // thinner bands spend their time on the halo
constexpr size_t kMaxBandRows = 8;
constexpr size_t kThreadsPerImage = 8;  // more threads than this take several images at once

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
size_t divide_up(size_t n, size_t unit) { return (n + unit - 1) / unit; }

struct Stage {
    size_t first_level = 0, last_level = 0;  // [first, last)
    size_t height = 0, width = 0;
    size_t first_output = 0, outputs = 0;
    size_t shared = 0;  // leading outputs that an earlier stage has written already: they are added
    size_t channels = 0;
    bool on_grid = false;
};

struct Problem {
    const DescribeLevel* levels;
    std::vector<Stage> stages;
    size_t neighbourhood, grid_height, grid_width;
};

// Where packed planes hold zeros: beyond the image. Packing writes only what is inside, so that the zeros of
// the planes packed before serve those of the same shape.
struct Borders {
    size_t pitch = 0, width = 0, pad = 0, first = 0, last = 0;  // rows [first, last) of a plane are inside
    size_t planes = 0;                                          // so many planes have their zeros

    bool same_shape(const Borders& other) const {
        return pitch == other.pitch && width == other.width && pad == other.pad && first == other.first &&
               last == other.last;
    }
};

// A thread's working memory. It is kept between calls: its size is bounded, and fresh pages cost more than
// the work on a small image.
struct Scratch {
    std::vector<float> planes, sums, blended, band;
    std::vector<int32_t> offset;
    size_t offset_pitch = 0, offset_width = 0, offset_neighbourhood = 0;
    Borders borders;
};

Scratch& scratch() {
    thread_local Scratch memory;
    return memory;
}

float* at_least(std::vector<float>& memory, size_t n) {
    if (memory.size() < n) memory.resize(n);
    return memory.data();
}

// Geometry of the packed planes of some rows: every row has its zeros to the right, which are the next row's
// zeros to the left, so that shifted reads never need a mask.
struct Planes {
    size_t k, pad, width, rows;  // neighbourhood, its radius, row length with zeros, rows with halo
    size_t places;               // results of a plane, rounded up; those at the seams between rows are waste
    size_t pitch;  // floats from plane to plane: an odd number of cache lines, to spread over sets

    Planes(size_t neighbourhood, size_t image_width, size_t out_rows)
        : k(neighbourhood),
          pad(neighbourhood / 2),
          width(image_width + neighbourhood - 1),
          rows(out_rows + neighbourhood - 1),
          places(round_up(out_rows * width - (neighbourhood - 1), kLanes)),
          pitch(round_up(rows * width, kLanes)) {
        if (pitch / kLanes % 2 == 0) pitch += kLanes;
    }
};

// Where feature f of the first packed channel on starts in the packed planes.
const int32_t* feature_offsets(Scratch& memory, const Planes& planes, size_t channels) {
    const size_t kk = planes.k * planes.k;
    if (memory.offset_pitch != planes.pitch || memory.offset_width != planes.width ||
        memory.offset_neighbourhood != planes.k) {
        memory.offset.clear();
        memory.offset_pitch = planes.pitch;
        memory.offset_width = planes.width;
        memory.offset_neighbourhood = planes.k;
    }
    for (size_t c = memory.offset.size() / kk; c < channels; ++c)
        for (size_t y = 0; y < planes.k; ++y)
            for (size_t x = 0; x < planes.k; ++x)
                memory.offset.push_back(static_cast<int32_t>(c * planes.pitch + y * planes.width + x));
    return memory.offset.data();
}

// Asks for the channels of a row of places, which lie far apart where channels are contiguous: the processor
// does not see that they will be read.
void fetch_row(const float* row, ptrdiff_t column_stride, size_t width, size_t channels) {
    constexpr size_t kLineFloats = 16;
    for (size_t x = 0; x < width; ++x) {
        const float* const place = row + static_cast<ptrdiff_t>(x) * column_stride;
        // To the second-level cache: rows of 1024 channels share too few sets of the first.
        for (size_t c = 0; c < channels; c += kLineFloats) __builtin_prefetch(place + c, 0, 2);
        __builtin_prefetch(place + channels - 1, 0, 2);
    }
}

// Rows y0 - pad .. of channels [c0, c1) of one image, zero beyond the borders, to the thread's planes.
float* pack(const KernelTable& isa, const DescribeLevel& level, const float* image, const Planes& planes,
            size_t y0, size_t c0, size_t c1) {
    Scratch& memory = scratch();
    const size_t channels = c1 - c0, pad = planes.pad;
    // Reads of the waste places of the last plane run at most one plane's slack further.
    const size_t floats = channels * planes.pitch + planes.k * planes.width + kLanes;
    float* const dst = at_least(memory.planes, floats);
    Borders borders{planes.pitch,
                    planes.width,
                    pad,
                    pad > y0 ? pad - y0 : 0,
                    std::min(planes.rows, level.height + pad - y0),
                    0};
    if (!memory.borders.same_shape(borders)) memory.borders = borders;
    if (memory.borders.planes < channels) {
        float* const fresh = dst + memory.borders.planes * planes.pitch;
        std::fill(fresh, dst + floats, 0.0f);
        memory.borders.planes = channels;
    }
    const float* const first = image + static_cast<ptrdiff_t>(c0) * level.channel_stride;
    const auto source = [&](size_t r) {
        return first + static_cast<ptrdiff_t>(y0 + r - pad) * level.row_stride;
    };
    if (level.channel_stride == 1)
        fetch_row(source(borders.first), level.column_stride, level.width, channels);
    for (size_t r = borders.first; r < borders.last; ++r) {
        float* const row = dst + r * planes.width + pad;
        const float* const src = source(r);
        if (level.channel_stride == 1) {
            if (r + 1 < borders.last) fetch_row(source(r + 1), level.column_stride, level.width, channels);
            isa.describe.transpose(src, level.column_stride, row, static_cast<ptrdiff_t>(planes.pitch),
                                   level.width, channels);
            continue;
        }
        for (size_t c = 0; c < channels; ++c) {
            const float* const from = src + static_cast<ptrdiff_t>(c) * level.channel_stride;
            float* const to = row + c * planes.pitch;
            if (level.column_stride == 1) {
                std::memcpy(to, from, level.width * sizeof(float));
            } else {
                for (size_t x = 0; x < level.width; ++x)
                    to[x] = from[static_cast<ptrdiff_t>(x) * level.column_stride];
            }
        }
    }
    return dst;
}

// Outputs [j0, j1) (at most kOutputGroup, all of this stage) at rows [y0, y1) of the stage's grid; output j
// of cell (y, x) goes to table[((y - y0) * width + x) * stage.outputs + j - stage.first_output].
void sum_outputs(const KernelTable& isa, const Problem& problem, const Stage& stage, size_t image, size_t y0,
                 size_t y1, size_t j0, size_t j1, float* table) {
    Scratch& memory = scratch();
    const Planes planes(problem.neighbourhood, stage.width, y1 - y0);
    const int64_t kk = static_cast<int64_t>(planes.k * planes.k);
    const size_t chunk = std::max<size_t>(kLanes, kPlaneFloats / planes.pitch);
    float* const sums = at_least(memory.sums, kOutputGroup * planes.places);
    size_t written = stage.first_output;  // outputs below have sums from an earlier level of this stage
    for (size_t l = stage.first_level; l < stage.last_level; ++l) {
        const DescribeLevel& level = problem.levels[l];
        const float* const data = level.data + static_cast<ptrdiff_t>(image) * level.batch_stride;
        const size_t end = level.first_output + level.outputs;
        const size_t lo = std::max(j0, level.first_output), hi = std::min(j1, end);
        if (lo >= hi) {
            written = end;
            continue;
        }
        const auto run = [&](size_t j, int64_t& begin, int64_t& stop) {
            const size_t i = j - level.first_output;
            begin = level.feature_begin[i];
            stop = begin + (level.tap_begin[i + 1] - level.tap_begin[i]);
        };
        int64_t begin, stop, unused;
        run(lo, begin, unused);
        run(hi - 1, unused, stop);
        const size_t c_begin = static_cast<size_t>(begin / kk),
                     c_end = static_cast<size_t>((stop - 1) / kk) + 1;
        for (size_t c0 = c_begin; c0 < c_end; c0 += chunk) {
            stop_point();
            const size_t c1 = std::min(c0 + chunk, c_end);
            const int32_t* const offset = feature_offsets(memory, planes, c1 - c0);
            const float* const packed = pack(isa, level, data, planes, y0, c0, c1);
            const int64_t f0 = static_cast<int64_t>(c0) * kk, f1 = static_cast<int64_t>(c1) * kk;
            for (size_t j = lo; j < hi; ++j) {
                run(j, begin, stop);
                const int64_t from = std::max(begin, f0), to = std::min(stop, f1);
                if (from >= to) continue;
                const bool resume = j < written || from > begin;
                isa.describe.sum_taps(packed, offset + (from - f0),
                                      level.weight + level.tap_begin[j - level.first_output] + (from - begin),
                                      static_cast<size_t>(to - from), resume, sums + (j - j0) * planes.places,
                                      planes.places);
            }
        }
        written = end;
    }
    for (size_t y = 0; y < y1 - y0; ++y)
        isa.describe.transpose(sums + y * planes.width, static_cast<ptrdiff_t>(planes.places),
                               table + y * stage.width * stage.outputs + (j0 - stage.first_output),
                               static_cast<ptrdiff_t>(stage.outputs), j1 - j0, stage.width);
}

// One grid row of one stage: the blend of two table rows (or one of them as it is), not yet along x.
const float* blend_rows(const KernelTable& isa, const AxisResample& axis, size_t y, const float* table,
                        size_t row, float* memory) {
    const float* const upper = table + static_cast<size_t>(axis.i0[y]) * row;
    if (axis.w1[y] == 0.0f) return upper;
    isa.describe.blend(upper, upper + row, axis.w0[y], axis.w1[y], memory, row);
    return memory;
}

// One patch's outputs of one stage, from the row that blend_rows gave.
void write_patch(const KernelTable& isa, const Stage& stage, const AxisResample& axis, size_t x,
                 const float* line, float* dst) {
    const float* const a = line + static_cast<size_t>(axis.i0[x]) * stage.outputs;
    const float w0 = axis.w0[x], w1 = axis.w1[x];
    const size_t shared = stage.shared, own = stage.outputs - shared;
    if (w1 == 0.0f) {
        for (size_t i = 0; i < shared; ++i) dst[i] += a[i];
        std::memcpy(dst + shared, a + shared, own * sizeof(float));
    } else {
        const float* const b = a + stage.outputs;
        for (size_t i = 0; i < shared; ++i) dst[i] += w0 * a[i] + w1 * b[i];
        isa.describe.blend(a + shared, b + shared, w0, w1, dst + shared, own);
    }
}

std::vector<Stage> make_stages(const DescribeLevel* levels, size_t count, size_t grid_height,
                               size_t grid_width) {
    std::vector<Stage> stages;
    for (size_t l = 0; l < count; ++l) {
        const DescribeLevel& level = levels[l];
        if (stages.empty() || stages.back().height != level.height || stages.back().width != level.width) {
            Stage stage;
            stage.first_level = l;
            stage.height = level.height;
            stage.width = level.width;
            stage.first_output = level.first_output;
            stage.on_grid = level.height == grid_height && level.width == grid_width;
            if (!stages.empty()) {
                const size_t end = stages.back().first_output + stages.back().outputs;
                stage.shared = end - stage.first_output;  // 0, or the outputs that both stages have a part of
            }
            stages.push_back(stage);
        }
        Stage& stage = stages.back();
        stage.last_level = l + 1;
        stage.outputs = level.first_output + level.outputs - stage.first_output;
        stage.channels += level.channels;
    }
    return stages;
}

// Rows that one task of the first sweep takes: as many as its planes' budget allows.
size_t rows_of_task(const Stage& stage, size_t neighbourhood) {
    const size_t channels = kOutputGroup * stage.channels / stage.outputs + 2;
    const size_t row = channels * (stage.width + neighbourhood - 1);
    const size_t halo = neighbourhood - 1, fitting = kPlaneFloats / row;
    const size_t rows = std::min(stage.height, std::max(kMinBandRows, fitting > halo ? fitting - halo : 0));
    return divide_up(stage.height, divide_up(stage.height, rows));
}

struct TableTask {
    size_t image, stage, y0, y1, j0, j1;
};

}  // namespace

void describe(const DescribeLevel* levels, size_t level_count, size_t batch, size_t neighbourhood,
              size_t grid_height, size_t grid_width, size_t dim, float* out, ptrdiff_t out_batch_stride,
              ptrdiff_t out_row_stride) {
    if (batch == 0 || level_count == 0 || dim == 0) return;
    const KernelTable& isa = kernels();
    const Problem problem{levels, make_stages(levels, level_count, grid_height, grid_width), neighbourhood,
                          grid_height, grid_width};
    const std::vector<Stage>& stages = problem.stages;
    const size_t threads = static_cast<size_t>(num_threads());
    const size_t images = std::min(batch, divide_up(threads, kThreadsPerImage));

    // Tables of the stages off the grid, one set for each image in work.
    std::vector<size_t> table_begin(stages.size());
    size_t table_floats = 0, band_floats_per_place = 0, blended_floats = 0;
    for (size_t s = 0; s < stages.size(); ++s) {
        blended_floats = blended_floats + stages[s].width * stages[s].outputs;
        if (stages[s].on_grid) {
            table_begin[s] = band_floats_per_place;
            band_floats_per_place += stages[s].outputs;
        } else {
            table_begin[s] = table_floats;
            table_floats += stages[s].height * stages[s].width * stages[s].outputs;
        }
    }
    const std::unique_ptr<float[]> tables(table_floats > 0 ? new float[images * table_floats] : nullptr);

    size_t band_rows = std::min(kMaxBandRows, std::max(kMinBandRows, kBandPlaces / grid_width));
    size_t bands = divide_up(grid_height, band_rows);
    bands = std::min(grid_height, round_up(bands, std::min(threads, size_t{8})));
    band_rows = divide_up(grid_height, bands);
    bands = divide_up(grid_height, band_rows);

    for (size_t first = 0; first < batch; first += images) {
        const size_t in_work = std::min(images, batch - first);

        std::vector<TableTask> tasks;
        for (size_t b = 0; b < in_work; ++b)
            for (size_t s = 0; s < stages.size(); ++s) {
                const Stage& stage = stages[s];
                if (stage.on_grid) continue;
                const size_t rows = rows_of_task(stage, neighbourhood),
                             end = stage.first_output + stage.outputs;
                // Rows first: planes of one shape share their zeros (Borders).
                for (size_t y = 0; y < stage.height; y += rows)
                    for (size_t j = stage.first_output; j < end; j += kOutputGroup)
                        tasks.push_back(
                            {b, s, y, std::min(y + rows, stage.height), j, std::min(j + kOutputGroup, end)});
            }
        parallel_for(tasks.size(), [&](size_t i) {
            const TableTask& task = tasks[i];
            const Stage& stage = stages[task.stage];
            float* const table = tables.get() + task.image * table_floats + table_begin[task.stage];
            sum_outputs(isa, problem, stage, first + task.image, task.y0, task.y1, task.j0, task.j1,
                        table + task.y0 * stage.width * stage.outputs);
        });

        parallel_for(in_work * bands, [&](size_t i) {
            const size_t image = i / bands, y0 = i % bands * band_rows,
                         y1 = std::min(y0 + band_rows, grid_height);
            Scratch& memory = scratch();
            const size_t places = (y1 - y0) * grid_width;
            float* const band = at_least(memory.band, places * band_floats_per_place);
            for (size_t s = 0; s < stages.size(); ++s) {
                const Stage& stage = stages[s];
                if (!stage.on_grid) continue;
                const size_t end = stage.first_output + stage.outputs;
                for (size_t j = stage.first_output; j < end; j += kOutputGroup)
                    sum_outputs(isa, problem, stage, first + image, y0, y1, j,
                                std::min(j + kOutputGroup, end), band + places * table_begin[s]);
            }
            float* const blended = at_least(memory.blended, blended_floats);
            std::vector<const float*> line(stages.size());
            for (size_t y = y0; y < y1; ++y) {
                float* spare = blended;
                for (size_t s = 0; s < stages.size(); ++s) {
                    const Stage& stage = stages[s];
                    const size_t row = stage.width * stage.outputs;
                    if (stage.on_grid) {
                        line[s] = band + places * table_begin[s] + (y - y0) * row;
                        continue;
                    }
                    line[s] = blend_rows(isa, levels[stage.first_level].rows, y,
                                         tables.get() + image * table_floats + table_begin[s], row, spare);
                    spare += row;
                }
                float* dst = out + static_cast<ptrdiff_t>(first + image) * out_batch_stride +
                             static_cast<ptrdiff_t>(y * grid_width) * out_row_stride;
                for (size_t x = 0; x < grid_width; ++x, dst += out_row_stride)
                    for (size_t s = 0; s < stages.size(); ++s)
                        write_patch(isa, stages[s], levels[stages[s].first_level].columns, x, line[s],
                                    dst + stages[s].first_output);
            }
        });
    }
}

}  // namespace inreach
