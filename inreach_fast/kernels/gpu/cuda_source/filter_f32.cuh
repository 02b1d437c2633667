// Tiles of float32 products: both operands in shared memory, dimension by dimension, a tile of kRows x
// kColumns sums a thread; the next piece is fetched into registers while the present one is multiplied.
//
// FILTER: each product is a chain of `depth` multiply-adds, fused or not: error <= gamma(depth) * sum
// |terms|.
#pragma once

#include "tile.cuh"

template <int kTileRows_, int kTileColumns_, int kRows_, int kColumns_, int kChunk_>
struct Float32Tile {
    typedef Float32 Format;
    static const int kTileRows = kTileRows_, kTileColumns = kTileColumns_, kRows = kRows_,
                     kColumns = kColumns_;
    static const int kChunk = kChunk_;
    static const int kAcross = kTileColumns / kColumns;  // threads along a row
    static const int kThreads = (kTileRows / kRows) * kAcross;
    static const int kRowLanes = kAcross < 32 ? kAcross : 32;
    static const int kStrips = kAcross;
    static const int kRowStep = 4 * (kTileRows / kRows), kColumnStep = 4 * kAcross;

    // Rows and columns in fours: loads of 16 bytes that spread over the banks.
    INREACH_DEVICE int thread_row() { return threadIdx.x / kAcross; }
    INREACH_DEVICE int thread_column() { return threadIdx.x % kAcross; }
    INREACH_DEVICE int row(int i) { return i / 4 * kRowStep + thread_row() * 4 + i % 4; }
    INREACH_DEVICE int column(int j) { return j / 4 * kColumnStep + thread_column() * 4 + j % 4; }
    INREACH_DEVICE int strip() { return thread_column(); }

    // Behind each line 4 values of room: lines start in different banks, and stay aligned to 16 bytes.
    struct alignas(16) Operands {
        float row[2][kChunk][kTileRows + 4];
        float column[2][kChunk][kTileColumns + 4];
    };
    struct Shared {
        Operands operands;
        TileShared<kTileRows, kTileColumns> tile;
    };

    static const int kRowLoads = kTileRows * kChunk / 4 / kThreads;
    static const int kColumnLoads = kTileColumns * kChunk / 4 / kThreads;

    // Where the rows that this thread fetches begin, in units of 16 bytes: 32 bits reach over 64 GB, and take
    // half of a pointer's registers.
    template <int kLoads>
    INREACH_DEVICE void find(int first, int count, int depth, u32 (&at)[kLoads]) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
            const int mine = threadIdx.x + i * kThreads;
            at[i] =
                static_cast<u32>(present(first + mine / (kChunk / 4), count)) * static_cast<u32>(depth / 4) +
                mine % (kChunk / 4);
        }
    }

    template <int kLoads>
    INREACH_DEVICE void fetch(const float* rows, const u32 (&at)[kLoads], int d, float4 (&held)[kLoads]) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i)
            held[i] = *reinterpret_cast<const float4*>(rows + static_cast<u64>(at[i]) * 4 + d);
    }

    template <int kLoads, int kStride>
    INREACH_DEVICE void put(const float4 (&held)[kLoads], float (&target)[kChunk][kStride]) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
            const int at = threadIdx.x + i * kThreads, r = at / (kChunk / 4), k = at % (kChunk / 4) * 4;
            target[k][r] = held[i].x;
            target[k + 1][r] = held[i].y;
            target[k + 2][r] = held[i].z;
            target[k + 3][r] = held[i].w;
        }
    }

    template <int kCount, int kStep, int kStride>
    INREACH_DEVICE void take(const float (&line)[kStride], int thread, float (&values)[kCount]) {
#pragma unroll
        for (int i = 0; i < kCount; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(&line[i / 4 * kStep + thread * 4]);
            values[i] = four.x;
            values[i + 1] = four.y;
            values[i + 2] = four.z;
            values[i + 3] = four.w;
        }
    }

    INREACH_DEVICE void multiply(const Operands& operands, int half, float (&sum)[kRows][kColumns]) {
// More at once, and the sums no longer fit into 128 registers beside what is fetched.
#pragma unroll 2
        for (int k = 0; k < kChunk; ++k) {
            float a[kRows], b[kColumns];
            take<kRows, kRowStep>(operands.row[half][k], thread_row(), a);
            take<kColumns, kColumnStep>(operands.column[half][k], thread_column(), b);
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kColumns; ++j) sum[i][j] = __fmaf_rn(a[i], b[j], sum[i][j]);
        }
    }

    INREACH_DEVICE void run(Shared& shared, const Side<float>& q, const Side<float>& x, int depth,
                            const TileTask& task) {
        const Float32Tile place = {};
        const int q0 = static_cast<int>(blockIdx.y) * kTileRows;
        const int tiles = (x.count + kTileColumns - 1) / kTileColumns;
        for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
            const int x0 = t * kTileColumns;
            float sum[kRows][kColumns];
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kColumns; ++j) sum[i][j] = 0.0f;
            float4 row_held[kRowLoads], column_held[kColumnLoads];
            u32 row_at[kRowLoads], column_at[kColumnLoads];
            find(q0, q.count, depth, row_at);
            find(x0, x.count, depth, column_at);
            fetch(q.rows, row_at, 0, row_held);
            fetch(x.rows, column_at, 0, column_held);
            put(row_held, shared.operands.row[0]);
            put(column_held, shared.operands.column[0]);
            __syncthreads();
            int half = 0;
            for (int d = kChunk; d < depth; d += kChunk) {
                fetch(q.rows, row_at, d, row_held);
                fetch(x.rows, column_at, d, column_held);
                multiply(shared.operands, half, sum);
                half ^= 1;
                put(row_held, shared.operands.row[half]);
                put(column_held, shared.operands.column[half]);
                __syncthreads();
            }
            multiply(shared.operands, half, sum);
            // Its first barrier is behind everybody's last read of the operands, which the next tile
            // overwrites; the next tile's first barrier is behind everybody's last read of the minima.
            finish_tile(shared.tile, place, sum, q, x, q0, x0, task);
        }
    }
};

typedef Float32Tile<128, 128, 8, 8, 8> filter_f32_128_tile;
typedef Float32Tile<64, 64, 8, 4, 16> filter_f32_64_tile;
INREACH_FILTER(filter_f32_128)
INREACH_FILTER(filter_f32_64)
