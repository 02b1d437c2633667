"""What a search holds: bank rows on the device, running answers, and counts of what was done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .device import Device, DeviceArray, fill
from .frame import DeviceRows, FramedRows

NONE = 2**64 - 1  # after every distance and every row number
INFINITY = 0x7F800000  # bits of float32 infinity


@dataclass(frozen=True)
class Piece:
    """Bank rows that are on the device together.

    Attributes:
        base: number of the first one in the bank.
        rows, framed: as they are, and in the frame.
        heads: in leading directions, or None.
    """

    base: int
    rows: DeviceRows
    framed: FramedRows
    heads: FramedRows | None = None

    @property
    def count(self) -> int:
        """Rows."""
        return self.rows.count

    def part(self, first: int, stop: int) -> Piece:
        """Rows first to stop-1 of the piece."""
        heads = None if self.heads is None else self.heads.part(first, stop)
        return Piece(self.base + first, self.rows.part(first, stop), self.framed.part(first, stop), heads)


@dataclass
class Counts:
    """What a search did; on the device until it is read."""

    decided: DeviceArray
    refined: DeviceArray
    bounded: int = 0
    filtered: int = 0

    @staticmethod
    def zero(device: Device, both: DeviceArray | None = None) -> Counts:
        """Counters at 0, in ``both`` (uint64 (2,)) where it is given."""
        both = device.empty(2, np.uint64) if both is None else both
        fill(device, both, 0)
        return Counts(both.part(0, 1), both.part(1, 2))


@dataclass
class Answers:
    """Running answers of some queries (csrc/cuda/kernels/README.md): k = 1."""

    reach: DeviceArray
    best: DeviceArray
    seen: DeviceArray
    nearest: DeviceArray

    @staticmethod
    def none(device: Device, count: int) -> Answers:
        """Nothing is known yet."""
        reach, others = device.empty(count, np.uint32), device.empty((3, count), np.uint64)
        fill(device, reach, INFINITY)
        fill(device, others, NONE)
        return Answers(reach, *(others.part(i, i + 1).reshape(count) for i in range(3)))

    def __len__(self) -> int:
        return len(self.reach)

    def part(self, first: int, stop: int) -> Answers:
        """Those of queries first to stop-1, a view."""
        return Answers(*(x.part(first, stop) for x in (self.reach, self.best, self.seen, self.nearest)))
