"""The operations for arrays that are on a card: in and out without a copy, in the order of the caller's stream.

One of a call's arrays on a card is enough to bring it here. Banks of rows in the CPU's memory are uploaded once and
kept on the card (`Bank`); every other array must be on that card already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DataError, DeviceMismatchError, GpuError, GpuLostError, ParameterError
from .bank import Bank
from .describe_plan import Plan
from .describing import DESCRIBERS
from .gpu.backend import GpuBackend
from .gpu.describe import MAX_BATCH, launch_describe, level_table
from .gpu.device import DeviceArray
from .gpu.frame import DeviceRows
from .gpu.search import Search
from .gpu_backends import CardBackend, gpu_backend
from .gpu_bank import GpuBank, check_finite
from .gpu_devices.card import CardDevice
from .gpu_devices.interop import Caller, caller_of
from .gpu_devices.opening import is_card_name, open_card, parse_name
from .nearest import mutual_nearest, nearest, nearest_answered
from .registry import backend_module, card_kinds, operation_module, tell_once
from .results import AnsweredNearest, MutualNearest, Nearest
from .shared_bank import SharedBank
from .validation import as_ids, check_not_empty, check_same_dim


class CallBackend(CardBackend):
    """A card's backend in the order of one caller's stream, with its allocator; banks are shared with ``base``."""

    def __init__(self, base: GpuBackend, caller: Caller, device: CardDevice) -> None:
        super().__init__(base.name, lambda: device, base.options)
        self.base, self.caller = base, caller

    def _prepared(self, bank: Bank, search: Search) -> Any:
        if isinstance(bank, GpuBank) and not bank.persistent:
            return super()._prepared(bank, search)
        # On the base's own stream, waited for: other streams may use it from then on.
        with self.base.lock:
            base_search = Search(self.base.device, search.route, search.head_route, search.capacity)
            state = self.base._prepared(bank, base_search)
            synchronize = getattr(self.base.device, "synchronize", None)
            if synchronize is not None:
                synchronize()
            return state

    def _upload(self, bank: Bank, first: int, stop: int, groups: Any) -> DeviceRows:
        return rows_of(self, bank, first, stop, groups) or super()._upload(bank, first, stop, groups)


def rows_of(backend: GpuBackend, bank: Bank, first: int, stop: int, groups: Any) -> DeviceRows | None:
    """A bank's rows where they are, if that is the backend's card."""
    device = backend.device
    card = getattr(device, "card", None)
    if not isinstance(bank, GpuBank) or card is None or bank.caller.ordinal != card.ordinal:
        return None
    group = None if groups is None else device.upload(groups[first:stop])
    index = None if bank.index is None else device.upload(bank.index)
    return DeviceRows(bank.held, index, first, stop - first, group)


class Call:
    """One call: its card, stream and kernels.

    Raises:
        GpuUnavailableError, GpuError: the card's kernels cannot be used.
    """

    def __init__(self, caller: Caller, backend: str) -> None:
        self.caller = caller
        kind, cards = parse_name(backend)
        if cards is not None and caller.ordinal not in cards:
            raise DeviceMismatchError(
                f"backend: {backend!r} does not name card {caller.ordinal}, where the arrays are; move them, or leave "
                "backend at 'auto'"
            )
        base = gpu_backend(f"{kind}:{caller.ordinal}")
        assert not isinstance(base, SharedBank)
        memory = caller.library.memory(caller.ordinal)
        device = CardDevice(open_card(kind, caller.ordinal), caller.stream, memory=memory)
        self.device = device
        self.backend = CallBackend(base, caller, device)

    # ------------------------------------------------------------------------------------------------ search

    def nearest(self, queries: Any, bank: Any, k: int, query_group: Any, bank_group: Any) -> Nearest:
        """See `kernels.nearest`; index and distance (m, k)."""
        with self.backend.lock:
            rows, whole, pieces, search, state = self._prepared(queries, bank, query_group, bank_group)
            counts = search.counts()
            kept = min(k, len(whole))
            if k == 1:
                index, distance = search.nearest(state.frame, rows, pieces, counts, state.directions)
                index, distance = index.reshape(rows.count, 1), distance.reshape(rows.count, 1)
            else:
                index, distance = search.k_nearest(state.frame, rows, pieces, len(whole), kept, counts)
            found = self.backend._counts(counts, rows.count * len(whole))
            give, pad = self.caller.give, self.caller.library.padded
            return Nearest(pad(give(index), k, -1), pad(give(distance), k, np.inf), found)

    def mutual_nearest(self, a: Any, b: Any) -> MutualNearest:
        """See `kernels.mutual_nearest`."""
        with self.backend.lock:
            rows, whole, pieces, search, state = self._prepared(a, b, None, None, names=("a", "b"))
            counts = search.counts()
            found = search.mutual(state.frame, rows, pieces, len(whole), counts)
            totals = self.backend._counts(counts, rows.count * len(whole))
            ab, ab_distance, ba, ba_distance = (self.caller.give(x) for x in found)
            return MutualNearest(ab, ab_distance, ba, ba_distance, totals)

    def nearest_answered(self, queries: Any, bank: Any, query_group: Any, bank_group: Any) -> AnsweredNearest:
        """See `kernels.nearest_answered`."""
        with self.backend.lock:
            mine = queries if isinstance(queries, Bank) else Bank.for_call(queries, name="queries")
            whole = self._bank(bank, bank_group, "bank")
            forward = self.nearest(mine, whole, 1, query_group, None)
            to_host, to_card = self.caller.library.to_host, self.caller.library.to_card
            index = to_host(forward.index, slice(None))[:, 0]
            answered = np.zeros(len(index), np.bool_)
            chosen, chosen_of = np.unique(index[index >= 0], return_inverse=True)
            if len(chosen):
                held = self._rows(whole)
                numbers = chosen if whole.index is None else whole.index[chosen]
                asking = DeviceRows(held.values, self.device.upload(numbers), 0, len(chosen))
                _, _, pieces, search, state = self._prepared(asking, mine, None, None)
                back, _ = search.nearest(state.frame, asking, pieces, search.counts(), state.directions)
                answered[index >= 0] = self.device.download(back)[chosen_of] == np.flatnonzero(index >= 0)
            return AnsweredNearest(
                forward.index[:, 0], forward.sq_distance[:, 0], to_card(answered, self.caller.ordinal), forward.counts
            )

    def _prepared(
        self, queries: Any, bank: Any, query_group: Any, bank_group: Any, names: tuple[str, str] = ("queries", "bank")
    ) -> tuple[DeviceRows, Bank, Callable[[], Any], Search, Any]:
        whole = self._bank(bank, bank_group, names[1])
        groups = whole.groups
        if query_group is None and isinstance(queries, Bank):
            query_group = queries.groups
        if query_group is not None and groups is None:
            raise ParameterError("query_group: the bank has no groups to compare with; give bank_group as well")
        rows = queries if isinstance(queries, DeviceRows) else self._rows(queries, names[0])
        check_same_dim(rows.dim, names[0], whole.dim, names[1])
        if query_group is not None:
            rows = DeviceRows(rows.values, rows.index, rows.first, rows.count, self._groups(query_group, rows.count))
        search = self.backend.search(rows.count * len(whole))
        state = self.backend._prepared(whole, search)
        pieces = self.backend._pieces(whole, search, state, None if query_group is None else groups)
        return rows, whole, pieces, search, state

    def _bank(self, value: Any, groups: Any, name: str) -> Bank:
        if isinstance(value, Bank):
            bank = value if groups is None else value.with_groups(groups)
        else:
            if caller_of(value) is None:
                raise DeviceMismatchError(
                    f"{name}: in the CPU's memory, where the call's other arrays are on card {self.caller.ordinal}; "
                    "move it there, or make it a Bank, which is uploaded once and kept"
                )
            bank = Bank.for_call(value, groups, name=name)
        if isinstance(bank, GpuBank):
            if bank.caller.ordinal != self.caller.ordinal:
                raise DeviceMismatchError(
                    f"{name}: on card {bank.caller.ordinal}, where the call's other arrays are on card "
                    f"{self.caller.ordinal}; move it there"
                )
            bank.check_finite(self.device)
        return bank

    def _rows(self, value: Any, name: str = "queries") -> DeviceRows:
        if isinstance(value, Bank):
            bank = self._bank(value, None, name)
            return self.backend._upload(bank, 0, len(bank), None)
        held = self.caller.take(value, name, dtype=np.float32, ndim=2)
        check_not_empty(held.shape[0], name)
        check_not_empty(held.shape[1], f"{name} (second dimension)")
        check_finite(self.device, held, None, len(held), name)
        return DeviceRows(held, None, 0, len(held))

    def _groups(self, value: Any, count: int) -> DeviceArray:
        if caller_of(value) is None:
            return self.device.upload(as_ids(value, "query_group", count))
        held = self.caller.take(value, "query_group", dtype=np.int64, ndim=1)
        if len(held) != count:
            raise ParameterError(f"query_group: expected {count} entries, one for each row, got {len(held)}")
        return held

    # ---------------------------------------------------------------------------------------------- describe

    def describe(self, levels: list[Any], plan: Plan) -> Any:
        """Execute ``plan`` on (B, C, h, w) levels of any strides; (B, P, dim) of the caller's kind."""
        views = [self.caller.library.strided(level) for level in levels]
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
        return self.caller.give(target)


class CallOnCpu:
    """A call whose arrays are on a card that has no kernels: they visit the CPU, and the results come back."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def nearest(self, queries: Any, bank: Any, k: int, query_group: Any, bank_group: Any) -> Nearest:
        """See `kernels.nearest`; index and distance (m, k)."""
        found = nearest(self._cpu(queries), self._cpu(bank), k=k, query_group=query_group, bank_group=bank_group)
        index, distance = (self._back(x.reshape(-1, k)) for x in (found.index, found.sq_distance))
        return Nearest(index, distance, found.counts)

    def mutual_nearest(self, a: Any, b: Any) -> MutualNearest:
        """See `kernels.mutual_nearest`."""
        found = mutual_nearest(self._cpu(a), self._cpu(b))
        ab, ba = self._back(found.ab_index), self._back(found.ba_index)
        ab_distance, ba_distance = self._back(found.ab_sq_distance), self._back(found.ba_sq_distance)
        return MutualNearest(ab, ab_distance, ba, ba_distance, found.counts)

    def nearest_answered(self, queries: Any, bank: Any, query_group: Any, bank_group: Any) -> AnsweredNearest:
        """See `kernels.nearest_answered`."""
        found = nearest_answered(self._cpu(queries), self._cpu(bank), query_group=query_group, bank_group=bank_group)
        return AnsweredNearest(
            self._back(found.index), self._back(found.sq_distance), self._back(found.answered), found.counts
        )

    def describe(self, levels: list[Any], plan: Plan) -> Any:
        """Execute ``plan`` on (B, C, h, w) levels; (B, P, dim) of the caller's kind."""
        out = np.empty((levels[0].shape[0], plan.grid[0] * plan.grid[1], plan.dim), np.float32)
        host = [self.caller.library.to_host(self.caller.library.adopt(x), slice(None)) for x in levels]
        operation_module("auto", DESCRIBERS).describe(host, plan, out)
        return self._back(out)

    def _cpu(self, value: Any) -> Any:
        if isinstance(value, GpuBank):
            return value.on_cpu()
        if isinstance(value, Bank) or caller_of(value) is None:
            return value
        return self.caller.library.to_host(self.caller.library.adopt(value), slice(None))

    def _back(self, value: Any) -> Any:
        return self.caller.library.to_card(np.ascontiguousarray(value), self.caller.ordinal)


def call_for(backend: str, *values: Any) -> Call | CallOnCpu | None:
    """The call, where one of the arrays is on a card and ``backend`` is "auto" or names cards; else None.

    Where "auto" finds no kernels for the card, the answer comes from the CPU, the same to the bit, and one line of the
    log "inreach_fast" says so.

    Raises:
        GpuError: a backend that is named cannot be used, or the card is lost.
    """
    caller = caller_of(*(_array_of(v) for v in values))
    if caller is None or not (backend == "auto" or is_card_name(backend)):
        return None
    if backend != "auto":
        backend_module(backend)  # raises where it is not usable
        return Call(caller, backend)
    reasons: list[str] = []
    for kind in card_kinds(reasons):
        try:
            return Call(caller, kind)
        except GpuLostError:
            raise
        except GpuError as error:
            reasons.append(f"{kind}: {error}")
    tell_once(f"no kernels for arrays on card {caller.ordinal}, searching on the CPU instead: {'; '.join(reasons)}")
    return CallOnCpu(caller)


def _array_of(value: Any) -> Any:
    return value.held.owner if isinstance(value, GpuBank) else None if isinstance(value, Bank) else value


__all__ = ["Call", "CallOnCpu", "call_for"]
