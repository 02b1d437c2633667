"""Banks whose rows are on a GPU already: taken in place, searched there, never copied to the CPU as a whole."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ...array_types import Array, FloatArray
from ..bank import Bank
from ..validation import as_ids, check_index, check_not_empty
from .calls import check_nonfinite
from .device import Device, DeviceArray, fill
from .devices.interop import Caller, caller_of
from .frame import DeviceRows, find_nonfinite
from .search_state import NONE


class GpuRows:
    """Rows on a GPU that are read like an array: ``rows[numbers]`` and ``rows[a:b]`` copy just these to the CPU.

    Attributes:
        held: the rows in the GPU's memory, float32 (N, D).
        caller: whose they are, and where.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, caller: Caller, held: DeviceArray) -> None:
        self.caller = caller
        self.held = held
        self.shape = held.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> FloatArray:
        return self.caller.library.to_host(self.held.owner, key)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


class GpuBank(Bank):
    """What `Bank` makes of rows on a GPU; arguments and errors are its own (``basis`` and ``index_arrays``, which are
    the CPU engine's, have no effect).

    Attributes:
        caller: whose rows they are, and on which GPU.
    """

    def __init__(
        self,
        rows: Any,
        groups: Any = None,
        *,
        index: Any = None,
        basis: Any = None,
        index_arrays: Any = None,
        name: str = "bank",
    ) -> None:
        caller = caller_of(rows)
        assert caller is not None, "Bank makes one of rows on a GPU only"
        self.caller: Caller = caller
        self._rows = GpuRows(caller, caller.take(rows, name, dtype="float32", ndim=2))  # type: ignore[assignment]
        self._index = None if index is None else as_ids(index, "index")
        if self._index is not None:
            check_index(self._index, len(self._rows), "index")
        self._groups = None if groups is None else as_ids(groups, "groups", len(self))
        check_not_empty(len(self), name)
        check_not_empty(self.dim, f"{name} (second dimension)")
        self._name = name
        self._checked = False
        self._mapped = False
        self._prepared: dict[str, Any] = {}
        self._basis = []
        self.lock = threading.RLock()
        self.persistent = True
        self.keep_projected = False

    @property
    def held(self) -> DeviceArray:
        """The rows in the GPU's memory, float32 (N, D)."""
        rows: Any = self._rows
        held: DeviceArray = rows.held
        return held

    def check_finite(self, device: Device) -> None:
        """Raises NonFiniteError naming the first row that holds NaN or infinity; looks once."""
        with self.lock:
            if not self._checked:
                index = None if self._index is None else device.upload(self._index)
                check_finite(device, DeviceRows(self.held, index, 0, len(self)), self._name)
                self._checked = True

    def on_cpu(self) -> Bank:
        """The same rows and groups in the CPU's memory."""
        bank = Bank(self._rows[:] if self._index is None else self._rows[self._index], self._groups, name=self._name)
        bank.persistent = self.persistent
        return bank

    def __reduce__(self) -> tuple[Any, ...]:
        return self.on_cpu().__reduce__()

    def gathered(self) -> FloatArray:
        """See `Bank`; a copy in the CPU's memory."""
        return self.on_cpu().rows


def check_finite(device: Device, rows: DeviceRows, name: str) -> None:
    """Raises NonFiniteError naming the first row on the GPU that holds NaN or infinity; waits for the GPU."""
    first = device.empty(1, np.uint64)
    fill(device, first, NONE)
    find_nonfinite(device, rows, first)
    check_nonfinite(int(device.download(first)[0]), rows.count, name)
