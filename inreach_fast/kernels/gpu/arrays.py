"""The operations for arrays that are on a GPU: in and out without a copy, in the order of the caller's stream.

They are used when one of a call's arrays is on a GPU. A `Bank` of rows in the CPU's memory is uploaded once and kept;
every other array must be on that GPU already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ...array_types import DoubleArray, IndexArray
from ...errors import DataError, DeviceMismatchError, ParameterError
from ..bank import Bank, as_hint, as_ids, check_not_empty, check_same_dim
from ..describe_plan import Plan
from ..registry import backends, on_first_gpu_backend
from ..results import AnsweredNearest, MutualNearest, Nearest
from .backends import one_gpu
from .describe import MAX_BATCH, LevelView, level_table
from .device import Device, DeviceArray
from .devices.interop import Caller, caller_of
from .devices.opening import is_gpu_name, open_gpu, parse_name
from .frame import DeviceRows
from .rows import check_finite
from .spread import channel_spread

_T = TypeVar("_T")


class Call:
    """One call: its GPU, stream and kernels; its methods are the functions of `inreach_fast.kernels`.

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
        gpu, memory = open_gpu(kind, caller.ordinal), caller.library.memory(caller.ordinal)
        self.device = Device(gpu, caller.stream, memory=memory)
        self.backend = one_gpu(kind, caller.ordinal).on_stream(self.device)

    def nearest(self, queries: Any, bank: Any, k: int, query_group: Any, bank_group: Any, hint: Any = None) -> Nearest:
        """Index and distance (m, k)."""
        rows, whole = self._checked(queries, bank, query_group, bank_group)
        guesses = None
        if hint is not None and k == 1:  # kernels skip numbers of no row: one that is on the GPU is not checked
            guesses = self._numbers(hint, "hint", rows.count, partial(as_hint, hint, rows.count, len(whole)))
        return _converted(self.backend.nearest(rows, whole, k, hint=guesses), self.caller.give)

    def mutual_nearest(self, a: Any, b: Any) -> MutualNearest:
        rows, whole = self._checked(a, b, None, None, names=("a", "b"))
        return _converted(self.backend.mutual_nearest(rows, whole), self.caller.give)

    def nearest_answered(self, queries: Any, bank: Any, query_group: Any, bank_group: Any) -> AnsweredNearest:
        rows, whole = self._checked(queries, bank, query_group, bank_group)
        return _converted(self.backend.nearest_answered(rows, whole), self.caller.give)

    def _checked(
        self, queries: Any, bank: Any, query_group: Any, bank_group: Any, names: tuple[str, str] = ("queries", "bank")
    ) -> tuple[DeviceRows, Bank]:
        """Queries on the GPU, with their groups if there are any, and the bank."""
        whole = self._bank(bank, bank_group, names[1])
        if query_group is None and isinstance(queries, Bank) and names[0] == "queries":
            query_group = queries.groups
        if query_group is not None and whole.groups is None:
            raise ParameterError("query_group: the bank has no groups to compare with; give bank_group as well")
        rows = self._rows(queries, names[0])
        check_same_dim(rows.dim, names[0], whole.dim, names[1])
        if query_group is not None:
            checked = partial(as_ids, query_group, "query_group", rows.count)
            rows = replace(rows, group=self._numbers(query_group, "query_group", rows.count, checked))
        return rows, whole

    def _numbers(self, value: Any, name: str, count: int, checked: Callable[[], IndexArray]) -> DeviceArray:
        """int64 (count,) on the GPU; from the CPU comes what ``checked`` returns."""
        if caller_of(value) is None:
            return self.device.upload(checked())
        held = self.caller.take(value, name, dtype="int64", ndim=1)
        if len(held) != count:
            raise ParameterError(f"{name}: expected {count} entries, one for each query, got {len(held)}")
        return held

    def _bank(self, value: Any, groups: Any, name: str) -> Bank:
        if isinstance(value, Bank):
            bank = value if groups is None else value.with_groups(groups)
        elif caller_of(value) is None:
            raise DeviceMismatchError(
                f"{name}: in the CPU's memory, where the call's other arrays are on GPU {self.caller.ordinal}; move it "
                "there, or make it a Bank, which is uploaded once and kept"
            )
        else:
            bank = Bank.for_call(value, groups, name=name)
        if bank.gpu is not None:
            self.caller.check_gpu(bank.gpu.caller.ordinal, name)
            bank.prepared("finite", lambda: check_finite(self.device, self._whole(bank), bank.name))
        return bank

    def _whole(self, bank: Bank) -> DeviceRows:
        return self.backend.upload(bank, 0, len(bank), None)

    def _rows(self, value: Any, name: str) -> DeviceRows:
        if isinstance(value, Bank):
            return self._whole(self._bank(value, None, name))
        held = self.caller.take(value, name, dtype="float32", ndim=2)
        check_not_empty(held.shape[0], name)
        check_not_empty(held.shape[1], f"{name} (second dimension)")
        return DeviceRows(held, None, 0, len(held))

    def describe(self, levels: list[Any], plan: Plan) -> Any:
        """Executes ``plan`` on (B, C, h, w) levels of any strides; (B, P, dim) of the caller's kind."""
        library, device = self.caller.library, self.device
        held = [library.adopt(level) for level in levels]
        views = [LevelView(*library.layout(x), tuple(x.shape)) for x in held]
        batch = views[0].shape[0]
        if batch > MAX_BATCH:
            raise DataError(f"levels: a batch of {batch} is too large; give at most {MAX_BATCH} at once")
        describer = self.backend.describer(plan)
        target = device.empty((batch, plan.grid[0] * plan.grid[1], plan.dim), np.float32)
        describer.launch(device, device.upload(level_table(views)), batch, target)
        if not all(map(library.owns, levels)):
            device.synchronize()  # another library may reuse its memory when the levels are released
        return self.caller.give(target)


class GpuMembers:
    """Members of channels on a GPU, float32 (N, D), as `kernels.filter_channels` looks at them; used in place."""

    def __init__(self, call: Call, members: Any) -> None:
        self._device, self._held = call.device, call.caller.take(members, "members", dtype="float32", ndim=2)
        self.shape = self._held.shape

    def __len__(self) -> int:
        return self.shape[0]

    def check_finite(self, rows: IndexArray) -> None:
        """Raises NonFiniteError naming the first of these rows that holds NaN or infinity."""
        if len(rows):
            check_finite(self._device, DeviceRows(self._held, self._device.upload(rows), 0, len(rows)), "members")

    def channel_spread(self, members: Any, rows: IndexArray, starts: IndexArray) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`; ``members`` are these."""
        return channel_spread(self._device, self._held, rows, starts, self._device.free_bytes() // 4)


def to_gpu(caller: Caller, found: _T) -> _T:
    """An array or a result of the CPU's as the caller's kind of arrays on the caller's GPU."""

    def moved(array: Any) -> Any:
        return caller.library.to_gpu(np.ascontiguousarray(array), caller.ordinal)

    return moved(found) if isinstance(found, np.ndarray) else _converted(found, moved)


def _converted(found: _T, convert: Callable[[Any], Any]) -> _T:
    """A result with its arrays converted."""
    arrays = {name: convert(value) for name, value in vars(found).items() if hasattr(value, "shape")}
    return replace(found, **arrays)  # type: ignore[type-var]


def call_for(backend: str, *values: Any) -> Call | Caller | None:
    """The call, where one of the arrays is on a GPU and ``backend`` is "auto" or names GPUs; else None.

    Where "auto" finds no kernels for the GPU, the caller alone: the CPU computes the answer, with the same bits, and
    `to_gpu` takes it back.

    Raises:
        GpuError: a backend that is named cannot be used, or the GPU is lost.
    """
    caller = caller_for(*values)
    if caller is None or not (backend == "auto" or is_gpu_name(backend)):
        return None
    if backend != "auto":
        backends[backend]  # raises where it is not usable
        return Call(caller, backend)
    return on_first_gpu_backend(lambda kind: Call(caller, kind), f"arrays on GPU {caller.ordinal}") or caller


def caller_for(*values: Any) -> Caller | None:
    """Whose arrays on a GPU are among a call's arguments; None if none are."""
    return caller_of(*(_array_of(v) for v in values))


def _array_of(value: Any) -> Any:
    if not isinstance(value, Bank):
        return value
    return None if value.gpu is None else value.gpu.held.owner
