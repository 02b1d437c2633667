"""The operations of `inreach_fast.kernels` on a `Device`, from and to NumPy: what a GPU backend module offers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...array_types import DoubleArray, FloatArray, IndexArray
from ..backend import Backend
from ..bank import Bank
from ..basis import sample_rows
from ..describe_plan import Plan
from ..results import AnsweredNearest, MutualNearest, Nearest
from .answers import Piece
from .calls import BOTH_WAYS, Target, answered_call, mutual_call, nearest_call
from .describe import MAX_BATCH, DescribeTables, LevelView, launch_describe, level_table
from .device import Device
from .frame import HEAD_DEPTH, DeviceRows, Directions, Frame, most_rows
from .routes import FORMATS, Route
from .search import Search
from .spread import channel_pieces, channel_spread

_FRAME_SAMPLE = 512
_DIRECTION_SAMPLE = 2048
# Bounds in leading directions need a bank that is kept and has structure (docs/search.md, section 8).
_MIN_HEAD_ROWS = 4096
_MIN_CAPTURED = 0.7
# Few rows: a tile of 128 would leave most multiprocessors without work.
_SMALL_PAIRS = 1 << 22
# Of the free memory a fifth, or this much (of little memory the half), is left to queries, lists and descriptors.
_LEFT_SHARE, _LEFT_BYTES = 5, 256 << 20


@dataclass(frozen=True)
class Options:
    """How a backend searches; answers do not depend on any of it.

    Attributes:
        route: the filter; None: fp16 for calls with work enough, else float32.
        heads: search by leading directions: True, False, or None for where it should pay.
        capacity: places in the list of candidates.
        memory_limit: bytes of a bank that may be on the device at once; None: most of what is free.
    """

    route: Route | None = None
    head_route: Route | None = None
    heads: bool | None = None
    capacity: int = 1 << 20
    memory_limit: int | None = None


class _Prepared:
    """What is kept of one bank on one device."""

    def __init__(self, frame: Frame, directions: Directions | None, piece: Piece | None) -> None:
        self.frame, self.directions, self.piece = frame, directions, piece


class GpuBackend(Backend):
    """The search operations, describe and channel_spread over one device.

    Args:
        name: under which banks keep what is prepared for them.
        device: makes the device at first use.
        options: see `Options`.
    """

    def __init__(self, name: str, device: Callable[[], Device], options: Options | None = None) -> None:
        self.name = name
        self.options = options or Options()
        self._make_device = device
        self._device: Device | None = None
        self._tables: dict[object, DescribeTables] = {}
        # One stream: launches of two threads must not come between one another.
        self.lock = threading.RLock()

    @property
    def device(self) -> Device:
        """The device, made at first use."""
        with self.lock:
            if self._device is None:
                self._device = self._make_device()
            return self._device

    # ------------------------------------------------------------------------------------------------ search

    def search(self, pairs: int) -> Search:
        """The search for a call of so many pairs."""
        options = self.options
        tile = 64 if pairs < _SMALL_PAIRS else 128
        route = options.route or Route("fp16" if pairs >= _SMALL_PAIRS else "f32", tile)
        head_route = options.head_route or Route("fp16", tile)
        return Search(self.device, route, head_route, options.capacity)

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        """See `inreach_fast.kernels.nearest`; a hint is of use for k = 1."""
        m, n = len(queries), len(bank)
        kept = min(k, n)
        with self.lock:
            search, target, rows = self._call(queries, bank, query_group)
            guesses = None if hint is None or k > 1 else self.device.upload(hint)
            outcome, host = nearest_call(search, target, rows, kept, hint=guesses)
            index, sq_distance = host["index"], host["sq_distance"]
            if kept < k:
                index = np.pad(index, ((0, 0), (0, k - kept)), constant_values=-1)
                sq_distance = np.pad(sq_distance, ((0, 0), (0, k - kept)), constant_values=np.inf)
            return Nearest(index, sq_distance, outcome.totals(host, m * n))

    def nearest_answered(self, queries: Bank, bank: Bank, query_group: IndexArray | None) -> AnsweredNearest:
        """See `inreach_fast.kernels.nearest_answered`."""
        with self.lock:
            search, target, rows = self._call(queries, bank, query_group)
            outcome, host = answered_call(search, target, rows)
            return AnsweredNearest(
                host["index"].reshape(-1),
                host["sq_distance"].reshape(-1),
                host["answered"].astype(np.bool_),
                outcome.totals(host, len(queries) * len(bank)),
            )

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        """See `inreach_fast.kernels.mutual_nearest`."""
        with self.lock:
            search, target, rows = self._call(a, b, None, by_directions=False)
            outcome, host = mutual_call(search, target, rows)
            ab, ab_distance, ba, ba_distance = (host[name] for name in BOTH_WAYS)
            return MutualNearest(ab, ab_distance, ba, ba_distance, outcome.totals(host, len(a) * len(b)))

    def _call(
        self, queries: Bank, bank: Bank, query_group: IndexArray | None, *, by_directions: bool = True
    ) -> tuple[Search, Target, DeviceRows]:
        """The search, the bank and the queries of a call."""
        group = None if bank.groups is None else query_group
        search = self.search(len(queries) * len(bank))
        target = self.target(bank, search, None if group is None else bank.groups, by_directions=by_directions)
        return search, target, self._upload(queries, 0, len(queries), group)

    def target(self, bank: Bank, search: Search, groups: IndexArray | None, *, by_directions: bool = True) -> Target:
        """The bank as a call searches it; leading directions serve one direction of a search alone."""
        state = self._prepared(bank, search)
        if not by_directions:
            state = _Prepared(state.frame, None, state.piece)
        pieces, whole = self._pieces(bank, search, state, groups)

        def gathered(numbers: IndexArray) -> DeviceRows:
            held = bank.rows[numbers if bank.index is None else bank.index[numbers]]
            return DeviceRows(self.device.upload(np.ascontiguousarray(held)), None, 0, len(numbers))

        return Target(state.frame, state.directions, len(bank), pieces, whole, gathered)

    def _prepared(self, bank: Bank, search: Search) -> _Prepared:
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
                piece = search.piece(frame, 0, self._upload(bank, 0, len(bank), None), directions)
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
        """Bank rows on the device at once: all of them, or those of a piece, beside which the next one is made."""
        row_bytes, budget, most = self._row_bytes(bank, search, directions), self._budget(), most_rows(bank.dim)
        if len(bank) <= min(most, budget // row_bytes):
            return len(bank)
        return max(1, min(most, budget // (2 * row_bytes)))

    def _row_bytes(self, bank: Bank, search: Search, directions: Directions | None) -> int:
        """What a bank row takes."""
        stored = (bank.dim + 32) * FORMATS[search.route.format].dtype.itemsize
        heads = 0 if directions is None else HEAD_DEPTH * FORMATS[search.head_route.format].dtype.itemsize
        return 4 * bank.dim + stored + heads + 24

    def _pieces(
        self, bank: Bank, search: Search, state: _Prepared, groups: IndexArray | None
    ) -> tuple[Callable[[], Iterable[Piece]], Piece | None]:
        """The bank, piece by piece: as many as it takes, uploaded in turn, or one that stays; and that one."""
        if state.piece is not None:
            group = None if groups is None else search.device.upload(groups)
            whole = replace(state.piece, rows=replace(state.piece.rows, group=group))
            return (lambda: [whole]), whole
        step = self._rows_at_once(bank, search, state.directions)

        def uploaded() -> Iterator[Piece]:
            for first in range(0, len(bank), step):
                rows = self._upload(bank, first, min(first + step, len(bank)), groups)
                yield search.piece(state.frame, first, rows, state.directions)

        return uploaded, None

    def _upload(self, bank: Bank, first: int, stop: int, groups: IndexArray | None) -> DeviceRows:
        device = self.device
        group = None if groups is None else device.upload(groups[first:stop])
        if bank.index is None:
            return DeviceRows(device.upload(bank.rows[first:stop]), None, 0, stop - first, group)
        if 2 * (stop - first) >= len(bank.rows):  # most rows are needed: gathering on the device saves a copy here
            return DeviceRows(device.upload(bank.rows), device.upload(bank.index), first, stop - first, group)
        return DeviceRows(device.upload(bank.rows[bank.index[first:stop]]), None, 0, stop - first, group)

    # ------------------------------------------------------------------------------------------- the others

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """Execute ``plan`` on (B, C, h, w) levels of any strides into ``out`` (B, P, dim)."""
        with self.lock:
            device = self.device
            tables = self.describe_tables(plan)
            for first in range(0, len(out), MAX_BATCH):
                part = [level[first : first + MAX_BATCH] for level in levels]
                batch, places = len(part[0]), out.shape[1]
                held = [_as_it_lies(x) for x in part]
                arrays = [device.upload(data) for data, _strides in held]
                views = [
                    LevelView(array.address, strides, x.shape)  # type: ignore[arg-type]
                    for array, (_data, strides), x in zip(arrays, held, part, strict=True)
                ]
                target = device.empty((batch, places, plan.dim), np.float32)
                work = device.empty(tables.work_shape(batch), np.float32)
                table = device.upload(level_table(views))
                launch_describe(device, tables, table, batch, work, target, (places * plan.dim, plan.dim))
                out[first : first + MAX_BATCH] = device.download(target)

    def describe_tables(self, plan: Plan) -> DescribeTables:
        """The plan on the device, kept for the next call."""
        key = (plan.grid, plan.dim, plan.neighbourhood, *((x.taps.channels, x.height, x.width) for x in plan.levels))
        with self.lock:
            if key not in self._tables:
                if len(self._tables) >= 16:
                    self._tables.clear()
                self._tables[key] = DescribeTables(self.device, plan)
                self.device.synchronize()  # other streams may use them from now on
            return self._tables[key]

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`; members that do not fit come channels by channels."""
        with self.lock:
            budget = self._budget() // 2
            distance, sigma = np.empty(len(rows), np.float64), np.empty(len(starts) - 1, np.float64)
            for first, stop in channel_pieces(starts, max(1, budget // (4 * members.shape[1]))):
                begin, end = int(starts[first]), int(starts[stop])
                own, place = members, rows[begin:end]
                used, places = np.unique(place, return_inverse=True)
                if 2 * len(used) < len(members) or members.nbytes > budget:  # only what these channels have goes over
                    own, place = members[used], places.reshape(-1).astype(np.int64)
                distance[begin:end], sigma[first:stop] = channel_spread(
                    self.device, self.device.upload(own), place, starts[first : stop + 1] - begin, budget // 2
                )
            return distance, sigma


def _as_it_lies(array: FloatArray) -> tuple[FloatArray, tuple[int, ...]]:
    """The values in the order in which they lie in memory, and strides (in values) that read them there."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    data = np.ascontiguousarray(array.transpose(order))
    strides = [0] * array.ndim
    for axis, stride in zip(order, data.strides, strict=True):
        strides[axis] = stride // data.itemsize
    return data, tuple(strides)
