"""The operations of `inreach_fast.kernels` on one GPU."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ...array_types import DoubleArray, FloatArray, IndexArray
from ..backend import Backend
from ..bank import Bank
from ..basis import sample_rows
from ..describe_plan import Plan
from ..results import AnsweredNearest, MutualNearest, Nearest, SearchCounts
from .calls import BOTH_WAYS, Outcome, mutual_call, nearest_call
from .describe import MAX_BATCH, DescribeLauncher, LevelView, level_table
from .device import Device
from .frame import HEAD_DEPTH, DeviceRows, Directions, Frame, Piece, most_rows
from .routes import FORMATS, Route
from .search import Search, Target
from .spread import channel_pieces, channel_spread

T = TypeVar("T")

_FRAME_SAMPLE = 512
_DIRECTION_SAMPLE = 2048
# Bounds in leading directions need a bank that is kept and has structure (docs/search.md, section 8).
_MIN_HEAD_ROWS = 4096
_MIN_CAPTURED = 0.7
_SMALL_PAIRS = 1 << 22  # with fewer, a tile of 128 rows would leave most multiprocessors without work
# A fifth of the free memory, or this much (at most half of it), is left to queries, lists and descriptors.
_LEFT_SHARE, _LEFT_BYTES = 5, 256 << 20
# Bytes of a place in the list of candidates, and the share of the free memory that the list may take.
_PLACE_BYTES, _LIST_SHARE = 28, 1 / 16
_LEAST_CAPACITY = 1 << 12
# A call that runs out of memory starts again with so many times less, so many times in all.
_SHRINK, _TRIES = 4, 5
_KEPT_PLANS = 16


@dataclass(frozen=True)
class Options:
    """How a backend searches; answers do not depend on it.

    Attributes:
        route, head_route: the filters; None: fp16 for calls with enough work, else float32.
        heads: search by leading directions: True, False, or None for where it should pay.
        capacity: places in the list of candidates.
        memory_limit: bytes of a bank that may be on the GPU at once; None: most of what is free.
    """

    route: Route | None = None
    head_route: Route | None = None
    heads: bool | None = None
    capacity: int = 1 << 20
    memory_limit: int | None = None


class _Prepared(NamedTuple):
    """What is kept of one bank on one GPU; ``piece``: all of its rows, where they fit."""

    frame: Frame
    directions: Directions | None
    piece: Piece | None


class GpuBackend(Backend):
    """Searches, describe and channel_spread on one GPU, in the order of one stream.

    Queries are a `Bank`, and results then NumPy arrays; or `DeviceRows`, and results then `DeviceArray`.

    Others may use the GPU's memory as well. A call that runs out of it starts again with a shorter list of candidates
    and the bank in smaller pieces, which does not change the answer.

    Args:
        name: key under which banks keep what is prepared for them.
        device: opens the device at first use.
        base: a backend of the same GPU that prepares and keeps banks and plans for this one, on its own stream.
    """

    takes_floors = False

    def __init__(
        self, name: str, device: Callable[[], Device], options: Options | None = None, *, base: GpuBackend | None = None
    ) -> None:
        self.name, self.options, self.base = name, options or Options(), base
        self._open_device = device
        self._device: Device | None = None
        self._describers: dict[object, DescribeLauncher] = {}
        self.lock = threading.RLock()  # launches of two threads on one stream must not mix

    def on_stream(self, device: Device) -> GpuBackend:
        """This backend in the order of another stream of the GPU."""
        return GpuBackend(self.name, lambda: device, self.options, base=self)

    @property
    def device(self) -> Device:
        with self.lock:
            if self._device is None:
                self._device = self._open_device()
            return self._device

    def nearest(
        self, queries: Bank | DeviceRows, bank: Bank, k: int, query_group: IndexArray | None = None, hint: Any = None
    ) -> Nearest:
        """As `inreach_fast.kernels.nearest`, arrays (m, k); a hint (of the kind of the queries) serves k = 1."""

        found, counts = self._called(partial(nearest_call, k=k, hint=hint), queries, bank, query_group)
        return Nearest(found["index"], found["sq_distance"], counts)

    def nearest_answered(
        self, queries: Bank | DeviceRows, bank: Bank, query_group: IndexArray | None = None
    ) -> AnsweredNearest:
        """As `inreach_fast.kernels.nearest_answered`."""
        found, counts = self._called(partial(nearest_call, k=1, answered=True), queries, bank, query_group)
        index, sq_distance = (found[name].reshape(len(queries)) for name in ("index", "sq_distance"))
        return AnsweredNearest(index, sq_distance, found["answered"], counts)

    def mutual_nearest(self, a: Bank | DeviceRows, b: Bank) -> MutualNearest:
        """As `inreach_fast.kernels.mutual_nearest`."""
        # Leading directions serve one direction alone.
        found, counts = self._called(mutual_call, a, b, None, name="a", by_directions=False)
        return MutualNearest(**{name: found[name] for name in BOTH_WAYS}, counts=counts)

    def _called(
        self,
        call: Callable[..., Outcome],
        queries: Bank | DeviceRows,
        bank: Bank,
        query_group: IndexArray | None,
        *,
        name: str = "queries",
        by_directions: bool = True,
    ) -> tuple[Mapping[str, Any], SearchCounts]:
        """Answers by name, and what the call did."""
        pairs = len(queries) * len(bank)

        def attempt() -> Outcome:
            search = self.search(pairs)
            if isinstance(queries, DeviceRows):
                rows, stays = queries, name
            else:
                rows, stays = self.upload(queries, 0, len(queries), None if bank.groups is None else query_group), None
            groups = None if rows.group is None else bank.groups
            target = self.target(bank, search, groups, by_directions=by_directions)
            return call(search, target, rows, stays=stays)

        outcome = self._within_memory(attempt, bank)
        return outcome.answers, outcome.totals(pairs)

    def search(self, pairs: int) -> Search:
        options = self.options
        tile = 64 if pairs < _SMALL_PAIRS else 128
        route = options.route or Route("fp16" if pairs >= _SMALL_PAIRS else "f32", tile)
        head_route = options.head_route or Route("fp16", tile)
        return Search(self.device, route, head_route, options.capacity)

    def target(self, bank: Bank, search: Search, groups: IndexArray | None, *, by_directions: bool = True) -> Target:
        """The bank as a search sees it: all of it where it stays on the GPU, else pieces that are uploaded in turn."""
        device, (frame, directions, piece) = search.device, self._prepared(bank, search)
        directions = directions if by_directions else None
        if piece is not None:
            group = None if groups is None else device.upload(groups)
            whole = replace(piece, rows=replace(piece.rows, group=group))
            return Target(frame, directions, len(bank), lambda: [whole], whole)
        step = self._rows_at_once(bank, search, directions)

        def pieces() -> Iterator[Piece]:
            for first in range(0, len(bank), step):
                rows = self.upload(bank, first, min(first + step, len(bank)), groups)
                yield search.piece(frame, first, rows, directions)

        def gathered(numbers: IndexArray) -> DeviceRows:
            chosen = numbers if bank.index is None else bank.index[numbers]
            return DeviceRows(device.upload(bank.rows[chosen]), None, 0, len(numbers))

        return Target(frame, directions, len(bank), pieces, gathered=gathered)

    def _prepared(self, bank: Bank, search: Search) -> _Prepared:
        base = self.base
        if base is not None and bank.persistent:
            # On the base's own stream, waited for once. Rows on the GPU are there: the check for NaN has waited
            # for the caller's stream when it looked at them.
            with base.lock:
                before, base.options = base.options, self.options  # with less memory, where that is short
                try:
                    return base._prepared(bank, replace(search, device=base.device))
                finally:
                    base.options = before
        heads = self.options.heads
        if heads is None:
            heads = bank.persistent and len(bank) >= _MIN_HEAD_ROWS and bank.dim > 2 * HEAD_DEPTH

        def make() -> _Prepared:
            frame = Frame.of_sample(search.device, sample_rows(bank.rows, bank.index, _FRAME_SAMPLE))
            directions = None
            if heads:
                sample = sample_rows(bank.rows, bank.index, _DIRECTION_SAMPLE)
                directions = Directions.of_sample(search.device, sample, frame.scale)
                if self.options.heads is None and directions.captured < _MIN_CAPTURED:
                    directions = None
            piece = None
            if self._rows_at_once(bank, search, directions) >= len(bank):
                piece = search.piece(frame, 0, self.upload(bank, 0, len(bank), None), directions)
            if bank.persistent:
                search.device.synchronize()  # other streams may use it from now on
            return _Prepared(frame, directions, piece)

        return bank.prepared(self.name, make, (id(search.device), search.route, search.head_route, heads))

    def _budget(self) -> int:
        if self.options.memory_limit is not None:
            return self.options.memory_limit
        free = self.device.free_bytes()
        return free - max(free // _LEFT_SHARE, min(free // 2, _LEFT_BYTES))

    def _rows_at_once(self, bank: Bank, search: Search, directions: Directions | None) -> int:
        """Bank rows on the GPU at once: all of them, or those of a piece while the next one is made."""
        stored = (bank.dim + 32) * FORMATS[search.route.format].dtype.itemsize
        heads = 0 if directions is None else HEAD_DEPTH * FORMATS[search.head_route.format].dtype.itemsize
        row_bytes = stored + heads + 24 + (0 if self._lies_here(bank) else 4 * bank.dim)
        budget, most = self._budget(), most_rows(bank.dim)
        if len(bank) <= min(most, budget // row_bytes):
            return len(bank)
        return max(1, min(most, budget // (2 * row_bytes)))

    def upload(self, bank: Bank, first: int, stop: int, groups: IndexArray | None) -> DeviceRows:
        """Rows first to stop-1 of a bank on the GPU; those that are there already are used in place."""
        device = self.device
        count, group = stop - first, None if groups is None else device.upload(groups[first:stop])
        if bank.gpu is not None and self._lies_here(bank):
            index = None if bank.index is None else device.upload(bank.index)
            return DeviceRows(bank.gpu.held, index, first, count, group)
        if bank.index is None:
            return DeviceRows(device.upload(bank.rows[first:stop]), None, 0, count, group)
        if 2 * count >= len(bank.rows):  # most rows are needed: gathering on the GPU saves a copy here
            return DeviceRows(device.upload(bank.rows), device.upload(bank.index), first, count, group)
        return DeviceRows(device.upload(bank.rows[bank.index[first:stop]]), None, 0, count, group)

    def _lies_here(self, bank: Bank) -> bool:
        return bank.gpu is not None and bank.gpu.caller.ordinal == self.device.gpu.ordinal

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """Executes ``plan`` on (B, C, h, w) levels of any strides into ``out`` (B, P, dim)."""
        with self.lock:
            device, describer = self.device, self.describer(plan)
            for first in range(0, len(out), MAX_BATCH):
                batch, views, held = min(MAX_BATCH, len(out) - first), [], []
                for level in levels:
                    data, strides = _in_memory_order(level[first : first + batch])
                    held.append(device.upload(data))
                    views.append(LevelView(held[-1].address, strides, (batch, *level.shape[1:])))
                target = device.empty((batch, out.shape[1], plan.dim), np.float32)
                describer.launch(device, device.upload(level_table(views)), batch, target)
                out[first : first + batch] = device.download(target)

    def describer(self, plan: Plan) -> DescribeLauncher:
        """The plan on the GPU, kept for the next call."""
        if self.base is not None:
            return self.base.describer(plan)
        key = (plan.grid, plan.dim, plan.neighbourhood, *((x.taps.channels, x.height, x.width) for x in plan.levels))
        with self.lock:
            if key not in self._describers:
                if len(self._describers) >= _KEPT_PLANS:
                    self._describers.clear()
                self._describers[key] = DescribeLauncher(self.device, plan)
                self.device.synchronize()  # other streams may use it from now on
            return self._describers[key]

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`; members that do not fit are uploaded by channels."""

        def attempt() -> tuple[DoubleArray, DoubleArray]:
            budget = self._budget() // 2
            distance, sigma = np.empty(len(rows), np.float64), np.empty(len(starts) - 1, np.float64)
            for first, stop in channel_pieces(starts, max(1, budget // (4 * members.shape[1]))):
                begin, end = int(starts[first]), int(starts[stop])
                own, place = members, rows[begin:end]
                used, places = np.unique(place, return_inverse=True)
                if 2 * len(used) < len(members) or members.nbytes > budget:  # upload only what these channels need
                    own, place = members[used], places.reshape(-1).astype(np.int64)
                distance[begin:end], sigma[first:stop] = channel_spread(
                    self.device, self.device.upload(own), place, starts[first : stop + 1] - begin, budget // 2
                )
            return distance, sigma

        return self._within_memory(attempt)

    def _within_memory(self, call: Callable[[], T], bank: Bank | None = None) -> T:
        """What ``call`` returns; it starts again with smaller parts as long as the memory does not suffice."""
        with self.lock:
            before = self.options
            try:
                self.options = replace(before, capacity=fitting_capacity(self.device.free_bytes(), before.capacity))
                for attempt in range(1, _TRIES + 1):
                    try:
                        return call()
                    except MemoryError:
                        if attempt == _TRIES:
                            raise
                    if bank is not None:
                        bank.forget(self.name)  # this may be what fills the memory
                    gc.collect()  # an error and its traceback hold each other, and what the call had
                    limit = self.device.free_bytes() // _SHRINK**attempt
                    capacity = max(_LEAST_CAPACITY, self.options.capacity // _SHRINK)
                    self.options = replace(before, capacity=capacity, memory_limit=limit)
            finally:
                self.options = before
        raise AssertionError("the last attempt returns or raises")


def fitting_capacity(free: int, most: int) -> int:
    """Places of a list of candidates of at most ``most``, with so much free memory."""
    return min(most, max(_LEAST_CAPACITY, int(free * _LIST_SHARE) // _PLACE_BYTES))


def _in_memory_order(array: FloatArray) -> tuple[FloatArray, tuple[int, ...]]:
    """The values in the order in which they are in memory, and strides (in values) that read them there."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    data = np.ascontiguousarray(array.transpose(order))
    strides = [0] * array.ndim
    for axis, stride in zip(order, data.strides, strict=True):
        strides[axis] = stride // data.itemsize
    return data, tuple(strides)
