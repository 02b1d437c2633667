// Tiles of fp16, bf16 or tf32 products on tensor cores: rows of both operands in shared memory as they are,
// in words of 32 bits (mma.cuh), fragments read from there word by word, the next piece on its way while the
// present one is multiplied.
#pragma once

#include "copy.cuh"
#include "mma.cuh"
#include "tile.cuh"

// kWarpRows x kWarpColumns warps, each with kRowTiles x kColumnTiles instructions' worth of sums.
template <class Format_, int kWarpRows, int kWarpColumns, int kRowTiles, int kColumnTiles>
struct TensorTile {
    typedef Format_ Format;
    typedef typename Format::type Value;
    static const int kValues = 4 / sizeof(Value);  // in a word
    static const int kTileRows = kWarpRows * kRowTiles * 16, kTileColumns = kWarpColumns * kColumnTiles * 8;
    static const int kRows = 2 * kRowTiles, kColumns = 2 * kColumnTiles;
    static const int kThreads = 32 * kWarpRows * kWarpColumns;
    static const int kChunk = 16;  // words
    static const int kRowLanes = 4;
    static const int kStrips = 4 * kWarpColumns;

    INREACH_DEVICE int warp_row() { return threadIdx.x / 32 / kWarpColumns * kRowTiles * 16; }
    INREACH_DEVICE int warp_column() { return threadIdx.x / 32 % kWarpColumns * kColumnTiles * 8; }
    INREACH_DEVICE int group() { return threadIdx.x % 32 / 4; }
    INREACH_DEVICE int place() { return threadIdx.x % 4; }
    INREACH_DEVICE int row(int i) { return warp_row() + i / 2 * 16 + i % 2 * 8 + group(); }
    INREACH_DEVICE int column(int j) { return warp_column() + j / 2 * 8 + place() * 2 + j % 2; }
    INREACH_DEVICE int strip() { return threadIdx.x / 32 % kWarpColumns * 4 + threadIdx.x % 4; }

    // 80 bytes a line: aligned for loads of 16, and the 32 words of a fragment lie in 32 banks.
    static const int kLine = kChunk + 4;
    struct alignas(16) Operands {
        u32 row[2][kTileRows][kLine];
        u32 column[2][kTileColumns][kLine];
    };
    struct Shared {
        Operands operands;
        TileShared<kTileRows, kTileColumns> tile;
    };

    static const int kRowLoads = kTileRows * kChunk / 4 / kThreads;
    static const int kColumnLoads = kTileColumns * kChunk / 4 / kThreads;

    // Where the rows of so many words that this thread fetches begin, in units of 16 bytes: 32 bits reach
    // over 64 GB, and take half of a pointer's registers.
    template <int kLoads>
    INREACH_DEVICE void find(int first, int count, int words, u32 (&at)[kLoads]) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
            const int mine = threadIdx.x + i * kThreads;
            at[i] =
                static_cast<u32>(present(first + mine / (kChunk / 4), count)) * static_cast<u32>(words / 4) +
                mine % (kChunk / 4);
        }
    }

    template <int kLoads, int kLines>
    INREACH_DEVICE void fetch(const Value* rows, const u32 (&at)[kLoads], int w,
                              u32 (&target)[kLines][kLine]) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
            const int mine = threadIdx.x + i * kThreads;
            copy_16_bytes(&target[mine / (kChunk / 4)][mine % (kChunk / 4) * 4],
                          rows + (static_cast<u64>(at[i]) * 4 + w) * kValues);
        }
    }

    INREACH_DEVICE void multiply(const Operands& operands, int half, float (&sum)[kRows][kColumns]) {
#pragma unroll
        for (int k = 0; k < kChunk; k += 8) {
            u32 b[kColumnTiles][2];
#pragma unroll
            for (int j = 0; j < kColumnTiles; ++j) {
                const u32* const line = operands.column[half][warp_column() + j * 8 + group()] + k + place();
                b[j][0] = line[0];
                b[j][1] = line[4];
            }
#pragma unroll
            for (int i = 0; i < kRowTiles; ++i) {
                const u32* const upper = operands.row[half][warp_row() + i * 16 + group()] + k + place();
                const u32* const lower = operands.row[half][warp_row() + i * 16 + 8 + group()] + k + place();
                const u32 a[4] = {upper[0], lower[0], upper[4], lower[4]};
#pragma unroll
                for (int j = 0; j < kColumnTiles; ++j)
                    matrix_multiply_add(Format(), sum[2 * i][2 * j], sum[2 * i][2 * j + 1],
                                        sum[2 * i + 1][2 * j], sum[2 * i + 1][2 * j + 1], a, b[j]);
            }
        }
    }

    INREACH_DEVICE void run(Shared& shared, const Side<Value>& q, const Side<Value>& x, int depth,
                            const TileTask& task) {
        const TensorTile tile = {};
        const int words = depth / kValues;
        const int q0 = static_cast<int>(blockIdx.y) * kTileRows;
        const int tiles = (x.count + kTileColumns - 1) / kTileColumns;
        for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
            const int x0 = t * kTileColumns;
            float sum[kRows][kColumns];
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kColumns; ++j) sum[i][j] = 0.0f;
            int half = 0;
            u32 row_at[kRowLoads], column_at[kColumnLoads];
            find(q0, q.count, words, row_at);
            find(x0, x.count, words, column_at);
            fetch(q.rows, row_at, 0, shared.operands.row[half]);
            fetch(x.rows, column_at, 0, shared.operands.column[half]);
            copies_done();
            __syncthreads();
            for (int w = kChunk; w < words; w += kChunk) {
                fetch(q.rows, row_at, w, shared.operands.row[half ^ 1]);
                fetch(x.rows, column_at, w, shared.operands.column[half ^ 1]);
                multiply(shared.operands, half, sum);
                copies_done();
                __syncthreads();
                half ^= 1;
            }
            multiply(shared.operands, half, sum);
            // Its first barrier is behind everybody's last read of the operands, which the next tile
            // overwrites; the next tile's first barrier is behind everybody's last read of the minima.
            finish_tile(shared.tile, tile, sum, q, x, q0, x0, task);
        }
    }
};

typedef TensorTile<Fp16, 2, 4, 4, 4> filter_fp16_128_tile;
typedef TensorTile<Fp16, 2, 2, 2, 4> filter_fp16_64_tile;
typedef TensorTile<Bf16, 2, 4, 4, 4> filter_bf16_128_tile;
typedef TensorTile<Bf16, 2, 2, 2, 4> filter_bf16_64_tile;
typedef TensorTile<Tf32, 2, 4, 4, 4> filter_tf32_128_tile;
typedef TensorTile<Tf32, 2, 2, 2, 4> filter_tf32_64_tile;
INREACH_FILTER(filter_fp16_128)
INREACH_FILTER(filter_fp16_64)
INREACH_FILTER(filter_bf16_128)
INREACH_FILTER(filter_bf16_64)
INREACH_FILTER(filter_tf32_128)
INREACH_FILTER(filter_tf32_64)
