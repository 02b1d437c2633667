"""What a search keeps on the GPU: the list of candidates, running answers, and counts of what was done."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from ..results import SearchCounts
from .device import Argument, Device, DeviceArray, fill
from .frame import Frame

NONE = 2**64 - 1  # after every distance and every row number
INFINITY = 0x7F800000  # bits of float32 infinity


@dataclass
class Counts:
    """Pairs that each stage looked at; ``decided`` and ``refined`` are on the GPU until they are read."""

    decided: DeviceArray
    refined: DeviceArray
    bounded: int = 0
    filtered: int = 0

    def totals(self, pairs: int, decided: int, refined: int) -> SearchCounts:
        """All counts of a search over ``pairs``, once the other two have been read."""
        return SearchCounts(pairs, self.bounded, self.filtered + refined, decided, brute_force=self.filtered > 0)

    @staticmethod
    def zero(device: Device, both: DeviceArray | None = None) -> Counts:
        """Counters at 0, in ``both`` (uint64 (2,)) where it is given."""
        both = device.empty(2, np.uint64) if both is None else both
        fill(device, both, 0)
        return Counts(both.part(0, 1), both.part(1, 2))


class Candidates:
    """Pairs that a filter could not rule out (csrc/cuda/kernels/README.md): the list between filter and decision.

    Attributes:
        capacity: pairs that filters may add; more are counted and dropped.
        spare: places after these, for pairs that are carried over (k > 1).
        count: uint32 (1,), number of pairs; more than ``capacity`` where some were dropped. Searches clear it first.
    """

    def __init__(
        self, device: Device, capacity: int, counts: Counts, *, spare: int = 0, count: DeviceArray | None = None
    ) -> None:
        self.device, self.capacity, self.spare, self.counts = device, capacity, spare, counts
        total = capacity + spare
        self.query = device.empty(total, np.uint32)
        self.row = device.empty(total, np.uint32)
        self.low = device.empty(total, np.float32)
        self.sq = device.empty(total, np.uint64)
        self.count = device.empty(1, np.uint32) if count is None else count

    def counted_by(self, count: DeviceArray) -> Candidates:
        """The same places for another search, whose pairs ``count`` (uint32 (1,)) counts."""
        other = copy(self)
        other.count = count
        return other

    def clear(self) -> None:
        fill(self.device, self.count, 0)

    def listed_count(self) -> int:
        """Pairs that filters have added or dropped; waits for the GPU."""
        return int(self.device.download(self.count)[0])

    @property
    def listed(self) -> tuple[Argument, ...]:
        """Arguments of the kernels that fill the list or bound its pairs."""
        return self.query, self.row, self.low, self.count, np.uint32(self.capacity)

    def held(self, with_spare: bool = False) -> tuple[Argument, ...]:
        """Arguments of the kernels that read decided pairs: query, row, sq, count, capacity."""
        return self.query, self.row, self.sq, self.count, np.uint32(self.capacity + (self.spare if with_spare else 0))


@dataclass
class Answers:
    """Running answers of some queries for k = 1 (csrc/cuda/kernels/README.md).

    ``reach`` is uint32, the others uint64; ``sq_scale`` is that of the frame that the reaches are in.
    """

    reach: DeviceArray
    best: DeviceArray
    seen: DeviceArray
    nearest: DeviceArray
    sq_scale: np.float64

    @staticmethod
    def none(device: Device, count: int, frame: Frame) -> Answers:
        reach, others = device.empty(count, np.uint32), device.empty((3, count), np.uint64)
        fill(device, reach, INFINITY)
        fill(device, others, NONE)
        best, seen, nearest = (others.part(i, i + 1).reshape(count) for i in range(3))
        return Answers(reach, best, seen, nearest, frame.sq_scale)

    def __len__(self) -> int:
        return len(self.reach)

    def part(self, first: int, stop: int) -> Answers:
        reach, best, seen, nearest = (x.part(first, stop) for x in (self.reach, self.best, self.seen, self.nearest))
        return Answers(reach, best, seen, nearest, self.sq_scale)
