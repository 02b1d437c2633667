"""The GPU backends: `gpu.GpuBackend` on real GPUs, one or several."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ...array_types import DoubleArray, FloatArray, IndexArray
from ..bank import Bank
from ..results import AnsweredNearest, MutualNearest, Nearest
from .backend import GpuBackend
from .device import Device
from .devices.opening import current_gpu, open_device, open_gpu, parse_name
from .frame import DeviceRows, Directions
from .search import Search
from .shared_bank import SharedBank

T = TypeVar("T")
# Bytes of a place in the list of candidates, and which share of the free memory the list may take.
_PLACE_BYTES, _LIST_SHARE = 28, 1 / 16
_LEAST_CAPACITY = 1 << 12
_SHRINK = 4
_TRIES = 5


def fitting_capacity(free: int, most: int) -> int:
    """Places of a list of candidates, of which ``most`` are wanted, beside so much free memory."""
    return min(most, max(_LEAST_CAPACITY, int(free * _LIST_SHARE) // _PLACE_BYTES))


class RetryingGpuBackend(GpuBackend):
    """`GpuBackend` on a GPU whose memory others use as well.

    Where the memory does not suffice, the call begins anew with a shorter list of candidates and a bank in smaller
    pieces: neither changes the answer.
    """

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        """See `inreach_fast.kernels.nearest`."""
        return self.within_memory(lambda: GpuBackend.nearest(self, queries, bank, k, query_group, hint), bank)

    def nearest_answered(self, queries: Bank, bank: Bank, query_group: IndexArray | None) -> AnsweredNearest:
        """See `inreach_fast.kernels.nearest_answered`."""
        return self.within_memory(lambda: GpuBackend.nearest_answered(self, queries, bank, query_group), bank)

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        """See `inreach_fast.kernels.mutual_nearest`."""
        return self.within_memory(lambda: GpuBackend.mutual_nearest(self, a, b), b)

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`."""
        return self.within_memory(lambda: GpuBackend.channel_spread(self, members, rows, starts))

    def _upload(self, bank: Bank, first: int, stop: int, groups: IndexArray | None) -> DeviceRows:
        if bank.gpu is None or not self._lies_here(bank):
            return super()._upload(bank, first, stop, groups)
        group = None if groups is None else self.device.upload(groups[first:stop])
        index = None if bank.index is None else self.device.upload(bank.index)
        return DeviceRows(bank.gpu.held, index, first, stop - first, group)

    def _row_bytes(self, bank: Bank, search: Search, directions: Directions | None) -> int:
        rows = 4 * bank.dim if self._lies_here(bank) else 0
        return super()._row_bytes(bank, search, directions) - rows

    def _lies_here(self, bank: Bank) -> bool:
        """Whether the bank's rows are on this GPU already: they are read in place."""
        gpu = getattr(self.device, "gpu", None)
        return bank.gpu is not None and gpu is not None and bank.gpu.caller.ordinal == gpu.ordinal

    def within_memory(self, call: Callable[[], T], bank: Bank | None = None) -> T:
        """What ``call`` returns, begun anew with smaller parts as long as the memory does not suffice."""
        with self.lock:
            before = self.options
            try:
                free = self.device.free_bytes()
                self.options = replace(before, capacity=fitting_capacity(free, before.capacity))
                for attempt in range(1, _TRIES + 1):
                    try:
                        return call()
                    except MemoryError:
                        if attempt == _TRIES:
                            raise
                    if bank is not None:
                        bank.forget(self.name)  # what the memory may be full of
                    gc.collect()  # an error and its traceback hold each other, and what the call had
                    limit = self.device.free_bytes() // _SHRINK**attempt
                    capacity = max(_LEAST_CAPACITY, self.options.capacity // _SHRINK)
                    self.options = replace(before, capacity=capacity, memory_limit=limit)
            finally:
                self.options = before
        raise AssertionError("the last attempt returns or raises")


class StreamBackend(RetryingGpuBackend):
    """A GPU's backend in the order of another stream. Banks that stay are prepared and kept by ``base``, once for all
    streams; what is made anew for each call (pieces of a bank that does not fit) is made on this one."""

    def __init__(self, base: GpuBackend, device: Device) -> None:
        super().__init__(base.name, lambda: device, base.options)
        self.base = base

    def _prepared(self, bank: Bank, search: Search) -> Any:
        if not bank.persistent:
            return super()._prepared(bank, search)
        # On the base's own stream, waited for once. Rows on the GPU are there: `arrays.check_bank` has waited for
        # the caller's stream when it looked at them.
        with self.base.lock:
            base_search = Search(self.base.device, search.route, search.head_route, search.capacity)
            before, self.base.options = self.base.options, self.options  # with less memory, where that is short
            try:
                return self.base._prepared(bank, base_search)
            finally:
                self.base.options = before


_backends: dict[tuple[str, tuple[int, ...]], GpuBackend | SharedBank] = {}
_singles: dict[tuple[str, int], GpuBackend] = {}
_lock = threading.RLock()


def gpu_backend(name: str) -> GpuBackend | SharedBank:
    """What is behind "cuda", "cupy", "cuda:1", "cuda:0,1" or "cuda:all"; its GPUs are opened, once a process.

    Raises:
        BackendError, GpuUnavailableError, GpuMemoryError, GpuError: unknown name, or a GPU that cannot be used.
    """
    kind, numbers = parse_name(name)
    gpus = (current_gpu(),) if numbers is None else numbers
    for ordinal in gpus:
        open_gpu(kind, ordinal)  # errors come before anything is remembered
    with _lock:
        if (kind, gpus) not in _backends:
            singles = [_single(kind, ordinal) for ordinal in gpus]
            _backends[kind, gpus] = singles[0] if len(singles) == 1 else SharedBank(name, singles)
        return _backends[kind, gpus]


def _single(kind: str, ordinal: int) -> GpuBackend:
    if (kind, ordinal) not in _singles:
        opened: Callable[[], Device] = partial(open_device, kind, ordinal)
        _singles[kind, ordinal] = RetryingGpuBackend(f"{kind}:{ordinal}", opened)
    return _singles[kind, ordinal]
