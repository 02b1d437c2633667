"""Rows of a bank that are on a GPU already: searched in place, and not copied to the CPU as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...array_types import Array, FloatArray
from ...errors import NonFiniteError
from .device import Device, fill
from .devices.interop import caller_of
from .frame import DeviceRows, find_nonfinite
from .search_state import NONE


class GpuRows:
    """Rows on a GPU that are read like an array: ``rows[numbers]`` and ``rows[a:b]`` copy these rows to the CPU.

    ``held`` is their memory, float32 (N, D).

    Raises:
        ParameterError: not two-dimensional, or not converted to float32 without loss.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, rows: Any, name: str) -> None:
        caller = caller_of(rows)
        assert caller is not None, "only for arrays on a GPU"
        self.caller = caller
        self.held = caller.take(rows, name, dtype="float32", ndim=2)
        self.shape = self.held.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> FloatArray:
        return self.caller.library.to_host(self.held.owner, key)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


def check_finite(device: Device, rows: DeviceRows, name: str) -> None:
    """Raises NonFiniteError naming the first row on the GPU that holds NaN or infinity; waits for the GPU."""
    first = device.empty(1, np.uint64)
    fill(device, first, NONE)
    find_nonfinite(device, rows, first)
    raise_nonfinite(int(device.download(first)[0]), rows.count, name)


def raise_nonfinite(bad: int, count: int, name: str) -> None:
    """Raises NonFiniteError where ``bad`` is one of ``count`` rows."""
    if bad < count:
        raise NonFiniteError(
            f"{name}: row {bad} holds NaN or infinity; remove or repair it before the search "
            "(distances to it have no meaning)"
        )
