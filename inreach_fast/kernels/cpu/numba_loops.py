"""The loops of the numba backend, compiled at first use.

Search works on blocks: 256 bank rows, centred and scaled (`float32_filter`), lie dimension by dimension in
a buffer that stays in the second-level cache; four queries at a time run over it. What the filter cannot rule
out is decided at once on the original rows, which tightens the limit for the rows that follow.

Only the filter may fuse multiply and add ("contract"), because its bound allows for that; the decisions are compiled
without any fast-math flag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .float32_filter import STRETCH

BLOCK_ROWS = 256


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` that releases the GIL and caches its result on disk where that is possible."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no directory that numba may write its cache to
            return numba.njit(nogil=True, **options)(function)

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
def search_block(
    q_rows: Any, queries: Any, q_length: Any, q_group: Any, b_rows: Any, block: Any, length: Any, b_group: Any,
    b_floor: Any, start: int, scale: float, error: float, floor: float, limit: Any, out_index: Any, out_best: Any,
) -> int:  # fmt: skip
    """Takes bank rows from number ``start`` on into the answers and limits of some queries; returns the pairs decided.

    ``limit`` is (1 + 2t) s^2 best + f of P1. Columns of ``block`` beyond the last row can never be candidates.
    """
    m, k = out_best.shape
    count = b_rows.shape[0]
    low = np.full(BLOCK_ROWS, np.inf, np.float32)
    for j in range(count):
        low[j] = np.float32((1.0 - error) * length[j])
    tile = np.empty((4, BLOCK_ROWS), np.float32)
    upper = np.empty(BLOCK_ROWS, np.float64)
    lanes = np.empty(16, np.float64)
    decided = 0
    for i in range(0, m, 4):
        _tile(queries[i : i + 4], block, low, tile)
        for r in range(min(4, m - i)):
            q = i + r
            row = tile[r]
            if q_group.shape[0] > 0:
                for j in range(count):
                    if b_group[j] == q_group[q]:
                        row[j] = np.inf
            q_low = (1.0 - error) * q_length[q]
            if np.float64(_minimum(row)) + q_low > limit[q]:
                continue
            eligible = 0
            for j in range(count):
                if row[j] < np.inf:
                    upper[eligible] = np.float64(row[j]) + q_low + 2.0 * error * (q_length[q] + length[j])
                    if b_floor.shape[0] > 0:
                        upper[eligible] = max(upper[eligible], scale * scale * b_floor[j])
                    eligible += 1
            if eligible >= k:  # P2: k rows of this block are at most so far
                achieved = STRETCH * np.partition(upper[:eligible], k - 1)[k - 1] + floor
                limit[q] = min(limit[q], STRETCH * achieved + floor)
            best, index = out_best[q], out_index[q]
            for j in range(count):
                if row[j] == np.inf or np.float64(row[j]) + q_low > limit[q]:
                    continue
                if b_floor.shape[0] > 0 and (b_floor[j] > best[k - 1] or b_floor[j] == np.inf):
                    continue
                distance = _sq_distance(q_rows[q], b_rows[j], lanes)
                decided += 1
                if b_floor.shape[0] > 0:
                    distance = max(distance, np.float64(b_floor[j]))
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
