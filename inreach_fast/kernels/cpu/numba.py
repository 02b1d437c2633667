"""The portable backend: loops compiled by numba, for machines without the compiled extension.

Threads are Python threads around loops that release the GIL, not numba's own: its thread layers either
abort when two Python threads call at once or do not survive a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from ...array_types import DoubleArray, FloatArray, IndexArray
from ...threads import get_num_threads
from ..bank import Bank
from ..describe_plan import Plan, Stage
from . import numba_loops as loops
from .float32_filter import FilterBackend, FilterFrame

_Result = TypeVar("_Result")

_NONE, _NO_FLOOR = np.empty(0, np.int64), np.empty(0, np.float32)
_CHUNK_QUERIES = 512
_OUTPUTS = 8  # outputs of one task of describe's first sweep
_ROWS = 4  # grid rows of one task of the second


class NumbaBackend(FilterBackend):
    """Loops compiled by numba."""

    name = "numba"

    def decide(self, queries: Bank, bank: Bank, frame: FilterFrame, index: IndexArray, sq_distance: DoubleArray) -> int:
        """See `FilterBackend`."""
        search = partial(
            loops.search,
            queries.rows, _or_none(queries.index), _or_none(queries.groups),
            bank.rows, _or_none(bank.index), _or_none(bank.groups),
            _NO_FLOOR if bank.floor is None else bank.floor, len(bank),
            frame.centre, frame.scale, frame.error, frame.floor, index, sq_distance,
        )  # fmt: skip
        size = min(_CHUNK_QUERIES, -(-len(queries) // get_num_threads()))
        return sum(_run(search, len(queries), size))

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """See `Backend`; csrc/cpu/engine/describe.cpp packs smaller pieces and is otherwise the same two sweeps."""
        stages = plan.stages()
        for image in range(len(out)):
            for stage in stages:
                table = _stage_table([levels[i][image] for i in stage.levels], plan, stage)
                first = plan.levels[stage.levels[0]]
                rows, columns = first.rows, first.columns
                write = partial(
                    loops.write_rows,
                    table, rows.i0, rows.w0, rows.w1, columns.i0, columns.w0, columns.w1,
                    stage.first_output, stage.shared, out[image],
                )  # fmt: skip
                _run(write, plan.grid[0], _ROWS)


def _run(task: Callable[[int, int], _Result], count: int, size: int) -> list[_Result]:
    """task(first, stop) for parts of ``size`` of ``count`` items, on as many threads as are set; results in order."""
    firsts = range(0, count, size)
    stops = [*firsts[1:], count]
    threads = min(get_num_threads(), len(firsts))
    if threads == 1:
        return list(map(task, firsts, stops))
    with ThreadPoolExecutor(threads) as pool:  # of this call alone: a fork finds nothing to break
        return list(pool.map(task, firsts, stops))


def _or_none(values: IndexArray | None) -> IndexArray:
    """In compiled loops an empty array stands for None."""
    return _NONE if values is None else values


def _stage_table(levels: Sequence[FloatArray], plan: Plan, stage: Stage) -> FloatArray:
    """Outputs of one stage at its own resolution, (h, w, outputs)."""
    pad = plan.neighbourhood // 2
    height, width = levels[0].shape[1:]
    sums = np.empty((stage.end_output - stage.first_output, height, width), np.float32)
    begun = 0  # leading outputs that an earlier level of the stage has begun
    for data, i in zip(levels, stage.levels, strict=True):
        taps = plan.levels[i].taps
        padded = np.pad(data, ((0, 0), (pad, pad), (pad, pad)))
        shift = taps.first_output - stage.first_output
        add = partial(
            loops.sum_taps,
            padded, plan.neighbourhood, taps.feature_begin, taps.tap_begin, taps.weights, shift, begun, sums,
        )  # fmt: skip
        _run(add, len(taps.feature_begin), _OUTPUTS)
        begun = plan.levels[i].end_output - stage.first_output
    return np.ascontiguousarray(sums.transpose(1, 2, 0))
