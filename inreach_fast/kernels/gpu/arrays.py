"""The operations for arrays that are on a GPU: in and out without a copy, in the order of the caller's stream.

One of a call's arrays on a GPU is enough to bring it here. Banks of rows in the CPU's memory are uploaded once and
kept on the GPU (`Bank`); every other array must be on that GPU already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ...array_types import DoubleArray, IndexArray
from ...errors import DataError, DeviceMismatchError, GpuError, GpuLostError, ParameterError
from ..bank import Bank, as_hint, as_ids, check_not_empty, check_same_dim
from ..describe_plan import Plan
from ..registry import backends, gpu_kinds, warn_once
from ..results import AnsweredNearest, MutualNearest, Nearest
from .backends import StreamBackend, gpu_backend
from .calls import BOTH_WAYS, Host, Outcome, Target, answered_call, first_nonfinite, mutual_call, nearest_call
from .describe import MAX_BATCH, launch_describe, level_table
from .device import Device, DeviceArray
from .devices.gpu import GpuDevice
from .devices.interop import Caller, caller_of
from .devices.opening import is_gpu_name, open_gpu, parse_name
from .frame import DeviceRows
from .rows import check_finite, raise_nonfinite
from .search import Search
from .shared_bank import SharedBank
from .spread import channel_spread

_T = TypeVar("_T")


class Call:
    """One call: its GPU, stream and kernels.

    Raises:
        GpuUnavailableError, GpuError: the GPU's kernels cannot be used.
    """

    def __init__(self, caller: Caller, backend: str) -> None:
        self.caller = caller
        kind, gpus = parse_name(backend)
        if gpus is not None and caller.ordinal not in gpus:
            raise DeviceMismatchError(
                f"backend: {backend!r} does not name GPU {caller.ordinal}, where the arrays are; move them, or leave "
                "backend at 'auto'"
            )
        base = gpu_backend(f"{kind}:{caller.ordinal}")
        assert not isinstance(base, SharedBank)
        memory = caller.library.memory(caller.ordinal)
        device = GpuDevice(open_gpu(kind, caller.ordinal), caller.stream, memory=memory)
        self.device = device
        self.backend = StreamBackend(base, device)

    # ------------------------------------------------------------------------------------------------ search

    def nearest(self, queries: Any, bank: Any, k: int, query_group: Any, bank_group: Any, hint: Any = None) -> Nearest:
        """See `kernels.nearest`; index and distance (m, k)."""
        with self.backend.lock:
            rows, whole = self._checked(queries, bank, query_group, bank_group)
            kept = min(k, len(whole))
            guesses = None if hint is None or k > 1 else self._hint(hint, rows.count, len(whole))

            def call() -> tuple[Outcome, Host]:
                search, target = self._target(rows, whole)
                return nearest_call(search, target, rows, kept, hint=guesses, on_gpu=True)

            outcome, host = self._outcome(call, rows, whole, "queries")
            give, pad = self.caller.give, self.caller.library.padded
            index, distance = (give(outcome.arrays[name]) for name in ("index", "sq_distance"))
            return Nearest(pad(index, k, -1), pad(distance, k, np.inf), outcome.totals(host, rows.count * len(whole)))

    def mutual_nearest(self, a: Any, b: Any) -> MutualNearest:
        """See `kernels.mutual_nearest`."""
        with self.backend.lock:
            rows, whole = self._checked(a, b, None, None, names=("a", "b"))

            def call() -> tuple[Outcome, Host]:
                search, target = self._target(rows, whole, by_directions=False)
                return mutual_call(search, target, rows, on_gpu=True)

            outcome, host = self._outcome(call, rows, whole, "a")
            ab, ab_distance, ba, ba_distance = (self.caller.give(outcome.arrays[name]) for name in BOTH_WAYS)
            return MutualNearest(ab, ab_distance, ba, ba_distance, outcome.totals(host, rows.count * len(whole)))

    def nearest_answered(self, queries: Any, bank: Any, query_group: Any, bank_group: Any) -> AnsweredNearest:
        """See `kernels.nearest_answered`."""
        with self.backend.lock:
            rows, whole = self._checked(queries, bank, query_group, bank_group)

            def call() -> tuple[Outcome, Host]:
                search, target = self._target(rows, whole)
                return answered_call(search, target, rows, on_gpu=True)

            outcome, host = self._outcome(call, rows, whole, "queries")
            index, distance = (
                self.caller.give(outcome.arrays[name].reshape(rows.count)) for name in ("index", "sq_distance")
            )
            answered = self.caller.library.as_bool(self.caller.give(outcome.arrays["answered"]))
            return AnsweredNearest(index, distance, answered, outcome.totals(host, rows.count * len(whole)))

    def _outcome(
        self, call: Callable[[], tuple[Outcome, Host]], rows: DeviceRows, whole: Bank, name: str
    ) -> tuple[Outcome, Host]:
        """What a call leaves; NonFiniteError for its queries comes with it, so that the GPU is waited for once."""
        outcome, host = self.backend.within_memory(call, whole)
        raise_nonfinite(first_nonfinite(host), rows.count, name)
        return outcome, host

    def _checked(
        self, queries: Any, bank: Any, query_group: Any, bank_group: Any, names: tuple[str, str] = ("queries", "bank")
    ) -> tuple[DeviceRows, Bank]:
        """Queries on the GPU, under their groups where there are any, and the bank."""
        whole = self._bank(bank, bank_group, names[1])
        if query_group is None and isinstance(queries, Bank) and names[0] == "queries":
            query_group = queries.groups
        if query_group is not None and whole.groups is None:
            raise ParameterError("query_group: the bank has no groups to compare with; give bank_group as well")
        rows = self._rows(queries, names[0])
        check_same_dim(rows.dim, names[0], whole.dim, names[1])
        if query_group is not None:
            rows = DeviceRows(rows.values, rows.index, rows.first, rows.count, self._groups(query_group, rows.count))
        return rows, whole

    def _target(self, rows: DeviceRows, whole: Bank, *, by_directions: bool = True) -> tuple[Search, Target]:
        search = self.backend.search(rows.count * len(whole))
        groups = None if rows.group is None else whole.groups
        return search, self.backend.target(whole, search, groups, by_directions=by_directions)

    def _hint(self, value: Any, count: int, rows: int) -> DeviceArray:
        """A hint on the GPU. One that is there already is not looked at: kernels pass over numbers of no row."""
        if caller_of(value) is None:
            return self.device.upload(as_hint(value, count, rows))
        held = self.caller.take(value, "hint", dtype=np.int64, ndim=1)
        if len(held) != count:
            raise ParameterError(f"hint: expected {count} entries, one for each query, got {len(held)}")
        return held

    def _bank(self, value: Any, groups: Any, name: str) -> Bank:
        if isinstance(value, Bank):
            bank = value if groups is None else value.with_groups(groups)
        else:
            if caller_of(value) is None:
                raise DeviceMismatchError(
                    f"{name}: in the CPU's memory, where the call's other arrays are on GPU {self.caller.ordinal}; "
                    "move it there, or make it a Bank, which is uploaded once and kept"
                )
            bank = Bank.for_call(value, groups, name=name)
        if bank.gpu is not None:
            if bank.gpu.caller.ordinal != self.caller.ordinal:
                raise DeviceMismatchError(
                    f"{name}: on GPU {bank.gpu.caller.ordinal}, where the call's other arrays are on GPU "
                    f"{self.caller.ordinal}; move it there"
                )
            check_bank(self.device, bank)
        return bank

    def _rows(self, value: Any, name: str = "queries") -> DeviceRows:
        if isinstance(value, Bank):
            bank = self._bank(value, None, name)
            return self.backend._upload(bank, 0, len(bank), None)
        held = self.caller.take(value, name, dtype=np.float32, ndim=2)
        check_not_empty(held.shape[0], name)
        check_not_empty(held.shape[1], f"{name} (second dimension)")
        return DeviceRows(held, None, 0, len(held))

    def _groups(self, value: Any, count: int) -> DeviceArray:
        if caller_of(value) is None:
            return self.device.upload(as_ids(value, "query_group", count))
        held = self.caller.take(value, "query_group", dtype=np.int64, ndim=1)
        if len(held) != count:
            raise ParameterError(f"query_group: expected {count} entries, one for each row, got {len(held)}")
        return held

    # ----------------------------------------------------------------------------------- members and describe

    def members(self, value: Any) -> GpuMembers:
        """Members of channels, float32 (N, D), where they are."""
        return GpuMembers(self, self.caller.take(value, "members", dtype=np.float32, ndim=2))

    def describe(self, levels: list[Any], plan: Plan) -> Any:
        """Execute ``plan`` on (B, C, h, w) levels of any strides; (B, P, dim) of the caller's kind."""
        mine = [self.caller.library.adopt(level) for level in levels]
        views = [self.caller.library.strided(level) for level in mine]
        batch, places = views[0].shape[0], plan.grid[0] * plan.grid[1]
        if batch > MAX_BATCH:
            raise DataError(f"levels: a batch of {batch}; at most {MAX_BATCH} at once")
        device = self.device
        with self.backend.lock:
            tables = self.backend.base.describe_tables(plan)
            target = device.empty((batch, places, plan.dim), np.float32)
            work = device.empty(tables.work_shape(batch), np.float32)
            launch_describe(device, tables, device.upload(level_table(views)), batch, work, target,
                            (places * plan.dim, plan.dim))  # fmt: skip
            if any(ours is not theirs for ours, theirs in zip(mine, levels, strict=True)):
                device.synchronize()  # another library may take its memory back when we let go of it
        return self.caller.give(target)


def check_bank(device: Device, bank: Bank) -> None:
    """Raises NonFiniteError naming the first row of a bank on the GPU that holds NaN or infinity; looks once."""
    if bank.gpu is None:
        return
    held = bank.gpu.held

    def check() -> bool:
        index = None if bank.index is None else device.upload(bank.index)
        check_finite(device, DeviceRows(held, index, 0, len(bank)), bank.name)
        return True

    bank.prepared("finite", check)


class GpuMembers:
    """Members of channels on a GPU, as `kernels.filter_channels` looks at them.

    Attributes:
        shape: (N, D).
    """

    def __init__(self, call: Call, held: DeviceArray) -> None:
        self._call, self._held = call, held
        self.shape = held.shape

    def __len__(self) -> int:
        return self.shape[0]

    def check_finite(self, rows: IndexArray) -> None:
        """Raises NonFiniteError naming the first of these rows that holds NaN or infinity."""
        device = self._call.device
        if len(rows):
            check_finite(device, DeviceRows(self._held, device.upload(rows), 0, len(rows)), "members")

    def channel_spread(self, members: Any, rows: IndexArray, starts: IndexArray) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`; ``members`` are these."""
        backend = self._call.backend
        with backend.lock:
            return channel_spread(self._call.device, self._held, rows, starts, backend.device.free_bytes() // 4)


def to_gpu(caller: Caller, found: _T) -> _T:
    """What the CPU answered, with arrays of the caller's kind on the caller's GPU in the place of its own."""
    if isinstance(found, np.ndarray):
        array: _T = caller.library.to_gpu(np.ascontiguousarray(found), caller.ordinal)
        return array
    if not is_dataclass(found) or isinstance(found, type):
        return found
    return replace(found, **{field.name: to_gpu(caller, getattr(found, field.name)) for field in fields(found)})


def call_for(backend: str, *values: Any) -> Call | Caller | None:
    """The call, where one of the arrays is on a GPU and ``backend`` is "auto" or names GPUs; else None.

    Where "auto" finds no kernels for the GPU, the caller alone: the CPU computes the answer, the same to the bit,
    `to_gpu` takes it back, and one line of the log "inreach_fast" says so.

    Raises:
        GpuError: a backend that is named cannot be used, or the GPU is lost.
    """
    caller = caller_of(*(_array_of(v) for v in values))
    if caller is None or not (backend == "auto" or is_gpu_name(backend)):
        return None
    if backend != "auto":
        backends[backend]  # raises where it is not usable
        return Call(caller, backend)
    reasons: list[str] = []
    for kind in gpu_kinds(reasons):
        try:
            return Call(caller, kind)
        except GpuLostError:
            raise
        except GpuError as error:
            reasons.append(f"{kind}: {error}")
    warn_once(f"no kernels for arrays on GPU {caller.ordinal}, searching on the CPU instead: {'; '.join(reasons)}")
    return caller


def _array_of(value: Any) -> Any:
    if not isinstance(value, Bank):
        return value
    return None if value.gpu is None else value.gpu.held.owner
