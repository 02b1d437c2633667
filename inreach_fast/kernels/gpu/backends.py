"""The backends behind the names of GPUs: one GPU, or several that each hold a run of a bank's rows.

The answers of a GPU come in the order of (float64 distance, row number), with distances rounded to float32, which
keeps that order. Where two GPUs give the same float32 number, the float64 distances are computed again, from the
original rows and in the kernels' order of summation. The merged answer is that of the whole bank, to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from ...array_types import DoubleArray, FloatArray, IndexArray
from ..backend import Backend
from ..bank import Bank
from ..describe_plan import Plan
from ..distance import exact_sq_distance
from ..results import MutualNearest, Nearest, SearchCounts
from .backend import GpuBackend
from .device import Device
from .devices.opening import current_gpu, open_gpu, parse_name, shared_memory

_PAIRS_AT_ONCE = 4096


class SeveralGpus(Backend):
    """Spreads banks over several GPUs, by the backend of each; banks keep their parts under ``name``."""

    takes_floors = False

    def __init__(self, name: str, gpus: Sequence[Backend]) -> None:
        self.name, self.gpus = name, gpus

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        """See `Backend`; hints are not used."""
        parts = self._parts(bank)
        group = None if bank.groups is None else query_group
        found = self._each(parts, lambda gpu, part: gpu.nearest(queries, part, k, group))
        index, sq_distance = _merged(queries, bank, k, [first for first, _ in parts], found)
        return Nearest(index, sq_distance, sum((x.counts for x in found), SearchCounts()))

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        parts = self._parts(b)
        found = self._each(parts, lambda gpu, part: gpu.mutual_nearest(a, part))
        forward = [Nearest(x.ab_index[:, None], x.ab_sq_distance[:, None]) for x in found]
        index, sq_distance = _merged(a, b, 1, [first for first, _ in parts], forward)
        ba_index, ba_distance = (
            np.concatenate([getattr(x, name) for x in found]) for name in ("ba_index", "ba_sq_distance")
        )
        counts = sum((x.counts for x in found), SearchCounts())
        return MutualNearest(index[:, 0], sq_distance[:, 0], ba_index, ba_distance, counts)

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """See `Backend`; on the first GPU, one image is too little to be shared."""
        self.gpus[0].describe(levels, plan, out)

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`; on the first GPU."""
        return self.gpus[0].channel_spread(members, rows, starts)

    def _parts(self, bank: Bank) -> list[tuple[int, Bank]]:
        """(number of the first row, part) for each GPU; kept with the bank, under the groups that it has now."""

        def make() -> list[tuple[int, Bank]]:
            count = min(len(self.gpus), len(bank))
            ends = [len(bank) * i // count for i in range(count + 1)]
            return [(first, _part(bank, first, stop)) for first, stop in pairwise(ends)]

        parts, groups = bank.prepared(f"shared {self.name}", make), bank.groups
        if groups is None:
            return parts
        return [(first, part.with_groups(groups[first : first + len(part)])) for first, part in parts]

    def _each(self, parts: Sequence[tuple[int, Bank]], work: Callable[[Any, Bank], Any]) -> list[Any]:
        """All GPUs at once; the first error is raised when all have ended."""
        if len(parts) == 1:
            return [work(self.gpus[0], parts[0][1])]
        with ThreadPoolExecutor(len(parts), thread_name_prefix="inreach-GPU") as pool:
            waiting = [pool.submit(work, gpu, part) for gpu, (_, part) in zip(self.gpus, parts, strict=False)]
        return [done.result() for done in waiting]


def _part(bank: Bank, first: int, stop: int) -> Bank:
    """Rows first to stop-1 of a bank."""
    index = bank.index
    part = Bank(bank.rows[first:stop]) if index is None else Bank(bank.rows, index=index[first:stop])
    part.persistent = bank.persistent
    return part


def _merged(
    queries: Bank, bank: Bank, k: int, firsts: Sequence[int], found: Sequence[Nearest]
) -> tuple[IndexArray, FloatArray]:
    """The k best of all parts' k best; arrays (m, k)."""
    index = np.concatenate(
        [np.where(x.index < 0, -1, x.index + first) for x, first in zip(found, firsts, strict=True)], 1
    )
    single = np.concatenate([x.sq_distance for x in found], 1)
    order = np.lexsort((index, index < 0, single), axis=1)  # -1 comes after a row at an infinite distance
    index, single = np.take_along_axis(index, order, 1), np.take_along_axis(single, order, 1)
    # Neighbours in this order with equal distances are decided by their float64 distances.
    equal = (single[:, 1:] == single[:, :-1]) & (index[:, 1:] >= 0) & (index[:, :-1] >= 0)
    for query in np.flatnonzero(equal[:, :k].any(axis=1)).tolist():
        valid = int(np.count_nonzero(index[query] >= 0))
        chosen = index[query, :valid]
        index[query, :valid] = chosen[np.lexsort((chosen, _exact(queries, bank, query, chosen)))]
    return np.ascontiguousarray(index[:, :k]), np.ascontiguousarray(single[:, :k])


def _exact(queries: Bank, bank: Bank, query: int, chosen: IndexArray) -> DoubleArray:
    row = queries.rows[query if queries.index is None else queries.index[query]]
    out = np.empty(len(chosen), np.float64)
    for start in range(0, len(chosen), _PAIRS_AT_ONCE):
        part = chosen[start : start + _PAIRS_AT_ONCE]
        rows = bank.rows[part if bank.index is None else bank.index[part]]
        out[start : start + _PAIRS_AT_ONCE] = exact_sq_distance(np.broadcast_to(row, rows.shape), rows)
    return out


_single: dict[tuple[str, int], GpuBackend] = {}
_lock = threading.Lock()


def gpu_backend(name: str) -> GpuBackend | SeveralGpus:
    """What is behind "cuda", "cupy", "cuda:1", "cuda:0,1" or "cuda:all"; its GPUs are opened, once in a process.

    Raises:
        BackendError: unknown name. GpuUnavailableError, GpuMemoryError, GpuError: a GPU cannot be used.
    """
    kind, numbers = parse_name(name)
    gpus = (current_gpu(),) if numbers is None else numbers
    each = [one_gpu(kind, ordinal) for ordinal in gpus]
    return each[0] if len(each) == 1 else SeveralGpus(f"{kind}:{','.join(map(str, gpus))}", each)


def one_gpu(kind: str, ordinal: int) -> GpuBackend:
    """The backend of a single GPU; errors as of `open_gpu`."""
    gpu = open_gpu(kind, ordinal)
    with _lock:
        if (kind, ordinal) not in _single:
            _single[kind, ordinal] = GpuBackend(
                f"{kind}:{ordinal}", lambda: Device(gpu, memory=shared_memory(kind, ordinal))
            )
        return _single[kind, ordinal]
