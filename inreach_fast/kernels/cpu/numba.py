"""The portable backend: loops compiled by numba, for machines without the compiled extension.

Threads are Python threads around loops that release the GIL, not numba's own: its thread layers either
abort when two Python threads call at once or do not survive a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from ...array_types import FloatArray, IndexArray
from ...threads import get_num_threads
from ..backend import Backend
from ..bank import Bank
from ..describe_plan import Plan, Stage
from ..results import Nearest, SearchCounts
from . import numba_loops as loops
from .float32_filter import make_frame, to_float32

_Result = TypeVar("_Result")

_NONE = np.empty(0, np.int64)
_OUTPUTS = 8  # outputs of one task of describe's first sweep
_ROWS = 4  # grid rows of one task of the second


class NumbaBackend(Backend):
    """Loops compiled by numba."""

    name = "numba"

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        """See `Backend`."""
        m, n = len(queries), len(bank)
        frame = make_frame(queries, bank)
        index = np.full((m, k), -1, np.int64)
        best = np.full((m, k), np.inf, np.float64)
        grouped = query_group is not None and bank.groups is not None
        query_group = query_group if grouped and query_group is not None else _NONE
        bank_group = bank.groups if grouped and bank.groups is not None else _NONE

        def search(first: int, stop: int) -> int:
            return int(
                loops.search(
                    queries.rows, _index(queries), query_group, first, stop,
                    bank.rows, _index(bank), bank_group, n,
                    frame.centre, frame.scale, frame.error, frame.floor, index, best,
                )
            )  # fmt: skip

        size = min(loops.CHUNK_QUERIES, -(-m // get_num_threads()))
        decided = sum(_run(search, _parts(m, size)))
        return Nearest(index, to_float32(best), SearchCounts(m * n, 0, m * n, decided, brute_force=True))

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """See `Backend`; csrc/cpu/engine/describe.cpp packs smaller pieces and is otherwise the same two sweeps."""
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
                    loops.write_rows(
                        table, rows.i0, rows.w0, rows.w1, columns.i0, columns.w0, columns.w1,
                        y0, y1, stage.first_output, stage.shared, patches,
                    )  # fmt: skip

                _run(write, _parts(plan.grid[0], _ROWS))


def _run(task: Callable[[int, int], _Result], parts: Sequence[tuple[int, int]]) -> list[_Result]:
    """task(first, stop) for each part, on as many threads as are set; results in the order of the parts."""
    threads = min(get_num_threads(), len(parts))
    if threads == 1:
        return [task(*part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:  # of this call alone: a fork finds nothing to break
        return list(pool.map(lambda part: task(*part), parts))


def _parts(count: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def _index(bank: Bank) -> IndexArray:
    return _NONE if bank.index is None else bank.index


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
            loops.sum_taps(
                padded, plan.neighbourhood, taps.feature_begin, taps.tap_begin, taps.weights,
                j0, j1, shift, begun, sums,
            )  # fmt: skip

        _run(add, _parts(len(taps.feature_begin), _OUTPUTS))
        begun = plan.levels[i].end_output - stage.first_output
    return np.ascontiguousarray(sums.transpose(1, 2, 0))
