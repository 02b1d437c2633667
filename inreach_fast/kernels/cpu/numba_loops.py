"""The loops of the numba backend, compiled at first use.

Search works on blocks: 256 bank rows, centred and scaled (`float32_filter`), lie dimension by dimension in
a buffer that stays in the second-level cache; four queries at a time run over it. What the filter cannot rule
out is decided at once on the original rows, which tightens the limit for the rows that follow.

Only the filter may fuse multiply and add ("contract"), because its bound allows for that; the decisions are compiled
without any fast-math flag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from .float32_filter import STRETCH

_Function = TypeVar("_Function", bound=Callable[..., Any])

_BLOCK_ROWS = 256


def _compiled(**options: Any) -> Callable[[_Function], _Function]:
    """`numba.njit` that releases the GIL and caches its result on disk where that is possible."""

    def decorate(function: _Function) -> _Function:
        try:
            return cast(_Function, numba.njit(nogil=True, cache=True, **options)(function))
        except RuntimeError:  # no directory that numba may write its cache to
            return cast(_Function, numba.njit(nogil=True, **options)(function))

    return decorate


@_compiled()
def _sq_distance(x: Any, y: Any, lanes: Any) -> float:
    """Squared distance of two rows by the sixteen-lane rule; `lanes` is scratch, float64 (16,).

    Four steps of a lane are taken between its load and its store; the order of its additions stays.
    """
    dim = x.shape[0]
    for lane in range(16):
        lanes[lane] = 0.0
    whole = dim - dim % 64
    for start in range(0, whole, 64):
        for lane in range(16):
            total = lanes[lane]
            d0 = np.float64(x[start + lane]) - np.float64(y[start + lane])
            d1 = np.float64(x[start + 16 + lane]) - np.float64(y[start + 16 + lane])
            d2 = np.float64(x[start + 32 + lane]) - np.float64(y[start + 32 + lane])
            d3 = np.float64(x[start + 48 + lane]) - np.float64(y[start + 48 + lane])
            total = total + d0 * d0
            total = total + d1 * d1
            total = total + d2 * d2
            total = total + d3 * d3
            lanes[lane] = total
    for start in range(whole, dim, 16):
        for lane in range(min(16, dim - start)):
            d = np.float64(x[start + lane]) - np.float64(y[start + lane])
            lanes[lane] = lanes[lane] + d * d
    for width in (8, 4, 2, 1):
        for lane in range(width):
            lanes[lane] = lanes[lane] + lanes[lane + width]
    return lanes[0]  # type: ignore[no-any-return]


@_compiled()
def _framed(row: Any, centre: Any, scale: float, out: Any) -> float:
    """Writes a row in the frame to ``out``; returns its squared length."""
    total = 0.0
    for d in range(row.shape[0]):
        value = np.float32((np.float64(row[d]) - centre[d]) * scale)
        out[d] = value
        total += np.float64(value) * np.float64(value)
    return total


@_compiled()
def _fill_queries(rows: Any, index: Any, first: int, stop: int, centre: Any, scale: float) -> Any:
    """Rows of a chunk in the frame: (m, D) zero-padded to multiples of four, and their squared lengths."""
    out = np.zeros(((stop - first + 3) // 4 * 4, (rows.shape[1] + 3) // 4 * 4), np.float32)
    length = np.zeros(out.shape[0], np.float64)
    for i in range(stop - first):
        row = rows[index[first + i]] if index.shape[0] > 0 else rows[first + i]
        length[i] = _framed(row, centre, scale, out[i])
    return out, length


@_compiled()
def _fill_block(
    rows: Any, index: Any, first: int, count: int, centre: Any, scale: float, keep: float,
    block: Any, length: Any, low: Any,
) -> None:  # fmt: skip
    """Rows of a block in the frame, dimension by dimension; columns past `count` can never be candidates."""
    for j in range(count):
        row = rows[index[first + j]] if index.shape[0] > 0 else rows[first + j]
        length[j] = _framed(row, centre, scale, block[:, j])
        low[j] = np.float32(keep * length[j])
    block[:, count:] = 0.0
    length[count:] = 0.0
    low[count:] = np.inf


@_compiled(fastmath={"contract"})
def _tile(queries: Any, block: Any, low: Any, out: Any) -> None:
    """out[r, j] = low[j] - 2 <queries[r], block[:, j]> for four queries, in float32."""
    depth, width = block.shape
    out[:] = np.float32(0.0)
    for d in range(0, depth, 4):
        q00, q01, q02, q03 = queries[0, d], queries[0, d + 1], queries[0, d + 2], queries[0, d + 3]
        q10, q11, q12, q13 = queries[1, d], queries[1, d + 1], queries[1, d + 2], queries[1, d + 3]
        q20, q21, q22, q23 = queries[2, d], queries[2, d + 1], queries[2, d + 2], queries[2, d + 3]
        q30, q31, q32, q33 = queries[3, d], queries[3, d + 1], queries[3, d + 2], queries[3, d + 3]
        for j in range(width):
            b0, b1, b2, b3 = block[d, j], block[d + 1, j], block[d + 2, j], block[d + 3, j]
            out[0, j] += q00 * b0 + q01 * b1 + q02 * b2 + q03 * b3
            out[1, j] += q10 * b0 + q11 * b1 + q12 * b2 + q13 * b3
            out[2, j] += q20 * b0 + q21 * b1 + q22 * b2 + q23 * b3
            out[3, j] += q30 * b0 + q31 * b1 + q32 * b2 + q33 * b3
    for r in range(4):
        for j in range(width):
            out[r, j] = low[j] - np.float32(2.0) * out[r, j]


@_compiled(fastmath={"nnan", "nsz"})
def _minimum(row: Any) -> float:
    lowest = row[0]
    for j in range(row.shape[0]):
        lowest = min(lowest, row[j])
    return lowest  # type: ignore[no-any-return]


@_compiled()
def search(
    q_rows: Any, q_index: Any, q_group: Any, b_rows: Any, b_index: Any, b_group: Any, b_floor: Any, n: int,
    centre: Any, scale: float, error: float, floor: float, out_index: Any, out_best: Any, first: int, stop: int,
) -> int:  # fmt: skip
    """Fills rows first..stop-1 of out_index and out_best, (m, k); returns the number of pairs decided."""
    k = out_best.shape[1]
    queries, q_length = _fill_queries(q_rows, q_index, first, stop, centre, scale)
    block = np.zeros((queries.shape[1], _BLOCK_ROWS), np.float32)
    length = np.empty(_BLOCK_ROWS, np.float64)
    low = np.empty(_BLOCK_ROWS, np.float32)
    tile = np.empty((4, _BLOCK_ROWS), np.float32)
    upper = np.empty(_BLOCK_ROWS, np.float64)
    lanes = np.empty(16, np.float64)
    limit = np.full(stop - first, np.inf)  # (1 + 2t) s^2 best + f of P1
    decided = 0
    for start in range(0, n, _BLOCK_ROWS):
        count = min(_BLOCK_ROWS, n - start)
        _fill_block(b_rows, b_index, start, count, centre, scale, 1.0 - error, block, length, low)
        for i in range(0, queries.shape[0], 4):
            _tile(queries[i : i + 4], block, low, tile)
            for r in range(min(4, stop - first - i)):
                q = i + r
                row = tile[r]
                if q_group.shape[0] > 0:
                    own = q_group[first + q]
                    for j in range(count):
                        if b_group[start + j] == own:
                            row[j] = np.inf
                q_low = (1.0 - error) * q_length[q]
                if np.float64(_minimum(row)) + q_low > limit[q]:
                    continue
                eligible = 0
                for j in range(count):
                    if row[j] < np.inf:
                        upper[eligible] = np.float64(row[j]) + q_low + 2.0 * error * (q_length[q] + length[j])
                        if b_floor.shape[0] > 0:
                            upper[eligible] = max(upper[eligible], scale * scale * b_floor[start + j])
                        eligible += 1
                if eligible >= k:  # P2: k rows of this block are at most so far
                    achieved = STRETCH * np.partition(upper[:eligible], k - 1)[k - 1] + floor
                    limit[q] = min(limit[q], STRETCH * achieved + floor)
                query = q_rows[q_index[first + q]] if q_index.shape[0] > 0 else q_rows[first + q]
                best, index = out_best[first + q], out_index[first + q]
                for j in range(count):
                    if row[j] == np.inf or np.float64(row[j]) + q_low > limit[q]:
                        continue
                    if b_floor.shape[0] > 0 and (b_floor[start + j] > best[k - 1] or b_floor[start + j] == np.inf):
                        continue
                    other = b_rows[b_index[start + j]] if b_index.shape[0] > 0 else b_rows[start + j]
                    distance = _sq_distance(query, other, lanes)
                    decided += 1
                    if b_floor.shape[0] > 0:
                        distance = max(distance, np.float64(b_floor[start + j]))
                    if not distance < best[k - 1]:  # rows ascend: a tie stays with the earlier
                        continue
                    p = k - 1
                    while p > 0 and distance < best[p - 1]:
                        best[p] = best[p - 1]
                        index[p] = index[p - 1]
                        p -= 1
                    best[p] = distance
                    index[p] = start + j
                    limit[q] = min(limit[q], STRETCH * scale * scale * best[k - 1] + floor)
    return decided


# ------------------------------------------------------------------------------------------ descriptors


@_compiled()
def sum_taps(
    padded: Any, k: int, feature_begin: Any, tap_begin: Any, weights: Any, shift: int, begun: int, sums: Any,
    j0: int, j1: int,
) -> None:  # fmt: skip
    height, width = sums.shape[1], sums.shape[2]
    for j in range(j0, j1):
        taps = tap_begin[j + 1] - tap_begin[j]
        for y in range(height):
            total = sums[shift + j, y]
            for t in range(taps):
                feature = feature_begin[j] + t
                place = feature % (k * k)
                row = padded[feature // (k * k), y + place // k]
                kx = place % k
                weight = weights[tap_begin[j] + t]
                if t == 0 and shift + j >= begun:
                    for x in range(width):
                        total[x] = weight * row[x + kx]
                else:
                    for x in range(width):
                        total[x] = total[x] + weight * row[x + kx]


@_compiled()
def write_rows(
    table: Any, row_i0: Any, row_w0: Any, row_w1: Any, column_i0: Any, column_w0: Any, column_w1: Any,
    first: int, shared: int, patches: Any, y0: int, y1: int,
) -> None:  # fmt: skip
    width, outputs = table.shape[1], table.shape[2]
    line = np.empty((width, outputs), np.float32)
    value = np.empty(outputs, np.float32)
    for y in range(y0, y1):
        upper = table[row_i0[y]]
        if row_w1[y] == 0:
            line[:] = upper
        else:
            lower = table[row_i0[y] + 1]
            for x in range(width):
                for j in range(outputs):
                    line[x, j] = row_w0[y] * upper[x, j] + row_w1[y] * lower[x, j]
        for x in range(column_i0.shape[0]):
            left = line[column_i0[x]]
            if column_w1[x] == 0:
                value[:] = left
            else:
                right = line[column_i0[x] + 1]
                for j in range(outputs):
                    value[j] = column_w0[x] * left[j] + column_w1[x] * right[j]
            patch = patches[y * column_i0.shape[0] + x]
            for j in range(shared):
                patch[first + j] = patch[first + j] + value[j]
            for j in range(shared, outputs):
                patch[first + j] = value[j]
