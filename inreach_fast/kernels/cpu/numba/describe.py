"""`describe` compiled by numba: the portable twin of csrc/cpu/engine/describe.cpp, to the bit.

It packs whole padded levels instead of cache-sized pieces of them, and is otherwise the same two sweeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....array_types import FloatArray
from ...describe_plan import Plan, Stage
from .search import _compiled, _parts, _run

_OUTPUTS = 8  # outputs of one task of the first sweep
_ROWS = 4  # grid rows of one task of the second


def describe(levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
    """Execute ``plan`` on (B, C, h, w) levels of any strides into ``out`` (B, P, dim)."""
    stages = plan.stages()
    for image in range(len(out)):
        for stage in stages:
            table = _stage_table([levels[i][image] for i in stage.levels], plan, stage)
            first = plan.levels[stage.levels[0]]
            rows, columns = first.rows, first.columns

            def write(
                y0: int,
                y1: int,
                table: Any = table,
                stage: Stage = stage,
                rows: Any = rows,
                columns: Any = columns,
                patches: Any = out[image],
            ) -> None:
                _write_rows(
                    table, rows.i0, rows.w0, rows.w1, columns.i0, columns.w0, columns.w1,
                    y0, y1, stage.first_output, stage.shared, patches,
                )  # fmt: skip

            _run(write, _parts(plan.grid[0], _ROWS))


def _stage_table(levels: Sequence[FloatArray], plan: Plan, stage: Stage) -> FloatArray:
    """Outputs of one stage at its own resolution, (h, w, outputs)."""
    pad = plan.neighbourhood // 2
    height, width = levels[0].shape[1:]
    sums = np.empty((stage.end_output - stage.first_output, height, width), np.float32)
    begun = 0  # leading outputs that an earlier level of the stage has begun
    for data, i in zip(levels, stage.levels, strict=True):
        taps = plan.levels[i].taps
        padded = np.zeros((data.shape[0], height + 2 * pad, width + 2 * pad), np.float32)
        padded[:, pad : pad + height, pad : pad + width] = data
        shift = taps.first_output - stage.first_output

        def add(
            j0: int, j1: int, padded: Any = padded, taps: Any = taps, shift: int = shift, begun: int = begun
        ) -> None:
            _sum_taps(
                padded, plan.neighbourhood, taps.feature_begin, taps.tap_begin, taps.weights,
                j0, j1, shift, begun, sums,
            )  # fmt: skip

        _run(add, _parts(len(taps.feature_begin), _OUTPUTS))
        begun = plan.levels[i].end_output - stage.first_output
    return np.ascontiguousarray(sums.transpose(1, 2, 0))


@_compiled()
def _sum_taps(
    padded: Any, k: int, feature_begin: Any, tap_begin: Any, weights: Any,
    j0: int, j1: int, shift: int, begun: int, sums: Any,
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
def _write_rows(
    table: Any, row_i0: Any, row_w0: Any, row_w1: Any, column_i0: Any, column_w0: Any, column_w1: Any,
    y0: int, y1: int, first: int, shared: int, patches: Any,
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
