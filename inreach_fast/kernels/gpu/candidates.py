"""The list between filter and decision."""

from __future__ import annotations

from copy import copy

import numpy as np

from .device import Argument, Device, DeviceArray, fill


class Candidates:
    """Pairs that a filter could not rule out, on the device; see csrc/cuda/kernels/README.md.

    Attributes:
        capacity: pairs that filters may add; more are counted and dropped.
        spare: places behind, for pairs that are carried over (k > 1).
        count: uint32 (1,), how many there were; more than ``capacity`` where some were dropped. A given one is the
            caller's: searches clear it where they begin.
    """

    def __init__(self, device: Device, capacity: int, spare: int = 0, count: DeviceArray | None = None) -> None:
        self.device = device
        self.capacity = capacity
        self.spare = spare
        total = capacity + spare
        self.query = device.empty(total, np.uint32)
        self.row = device.empty(total, np.uint32)
        self.low = device.empty(total, np.float32)
        self.sq = device.empty(total, np.uint64)
        self.count = device.empty(1, np.uint32) if count is None else count
        if count is None:
            self.clear()

    def counted_by(self, count: DeviceArray) -> Candidates:
        """The same places for another search, whose candidates ``count`` (uint32 (1,)) counts."""
        other = copy(self)
        other.count = count
        return other

    def clear(self) -> None:
        """No pairs."""
        fill(self.device, self.count, 0)

    def listed_count(self) -> int:
        """Pairs that filters have added or dropped; waits for the device."""
        return int(self.device.download(self.count)[0])

    @property
    def listed(self) -> tuple[DeviceArray, DeviceArray, DeviceArray, DeviceArray, np.uint32]:
        """Arguments of the kernels that fill or bound the list."""
        return self.query, self.row, self.low, self.count, np.uint32(self.capacity)

    def held(self, with_spare: bool = False) -> tuple[Argument, ...]:
        """Arguments of the kernels that read decided pairs: query, row, sq, count, capacity."""
        return self.query, self.row, self.sq, self.count, np.uint32(self.capacity + (self.spare if with_spare else 0))
