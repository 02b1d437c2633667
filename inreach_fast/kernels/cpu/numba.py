"""The portable backend: loops compiled by numba, for machines without the compiled extension.

Threads are Python threads around loops that release the GIL, not numba's own: its thread layers either
abort when two Python threads call at once or do not survive a fork.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...array_types import DoubleArray, IndexArray
from ...system.threads import get_num_threads
from ..bank import Bank
from . import numba_loops as loops
from .float32_filter import FilterBackend, FilterFrame, framed_rows

# An empty array stands for None in compiled loops.
_NONE, _NO_FLOOR = np.empty(0, np.int64), np.empty(0, np.float32)
_CHUNK_QUERIES = 2048


class NumbaBackend(FilterBackend):
    """Loops compiled by numba."""

    name = "numba"

    def decide(self, queries: Bank, bank: Bank, frame: FilterFrame, index: IndexArray, sq_distance: DoubleArray) -> int:
        q_groups, b_groups = (_NONE if bank.groups is None else bank.groups for bank in (queries, bank))

        b_floor = _NO_FLOOR if bank.floor is None else bank.floor

        def search(first: int, stop: int) -> int:
            rows, framed, length = framed_rows(queries, frame, first, stop)
            padded = np.pad(framed, ((0, -len(framed) % 4), (0, -bank.dim % 4)))
            limit = np.full(stop - first, np.inf)
            block = np.zeros((padded.shape[1], loops.BLOCK_ROWS), np.float32)
            decided = 0
            for start in range(0, len(bank), loops.BLOCK_ROWS):
                end = min(start + loops.BLOCK_ROWS, len(bank))
                b_rows, framed, b_length = framed_rows(bank, frame, start, end)
                for row in range(0, end - start, 8):  # all at once would miss the cache with each value
                    block[: bank.dim, row : min(row + 8, end - start)] = framed[row : row + 8].T
                decided += loops.search_block(
                    rows, padded, length, q_groups[first:stop], b_rows, block, b_length, b_groups[start:end],
                    b_floor[start:end], start,
                    frame.scale, frame.error, frame.floor, limit, index[first:stop], sq_distance[first:stop],
                )  # fmt: skip
            return decided

        size = min(_CHUNK_QUERIES, -(-len(queries) // get_num_threads()))
        firsts = range(0, len(queries), size)
        with ThreadPoolExecutor(get_num_threads()) as pool:  # of this call alone: a fork finds nothing to break
            return sum(pool.map(search, firsts, [*firsts[1:], len(queries)]))
