"""Whole calls, which wait once where bank and queries are on the GPU together: for answers in one block of memory.

With the answers comes the length of the lists of candidates; where one was too short, `search` continues in parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...array_types import Array
from ..results import SearchCounts
from .device import Block, Device, DeviceArray, Shapes, fill
from .frame import DeviceRows, find_nonfinite
from .ranked import k_nearest
from .rows import raise_nonfinite
from .search import Search, Target
from .search_state import NONE, Answers, Candidates, Counts

BOTH_WAYS = ("ab_index", "ab_sq_distance", "ba_index", "ba_sq_distance")


class Outcome:
    """What a call leaves: answers by name in one block of GPU memory (``on_gpu``), with counters.

    Args:
        parts: shape and dtype of each answer.
        stays: name of the queries where they were on the GPU before: the answers then stay there, and the queries are
            also checked for NaN and infinity. None: answers go to the host.
    """

    def __init__(self, device: Device, parts: Shapes, queries: DeviceRows, stays: str | None) -> None:
        self._device, self._queries, self._stays = device, queries, stays
        # decided; refined; number of candidates, there and back, in their lower halves; first row of NaN or infinity.
        self._block = Block(device, {"counters": ((5,), np.uint64), **parts})
        self.on_gpu = self._block.arrays
        counters = self.on_gpu["counters"]
        fill(device, counters.part(0, 4), 0)
        self.counts = Counts(counters.part(0, 1), counters.part(1, 2))
        self.list_lengths = tuple(
            DeviceArray(counters.address + 8 * i, (1,), np.dtype(np.uint32), counters.owner) for i in (2, 3)
        )
        fill(device, counters.part(4, 5), NONE)
        if stays is not None:
            find_nonfinite(device, queries, counters.part(4, 5))

    def places(self, side: str = "") -> tuple[DeviceArray, DeviceArray]:
        """Index and squared distance on the GPU."""
        return self.on_gpu[f"{side}index"], self.on_gpu[f"{side}sq_distance"]

    def read(self) -> tuple[int, int]:
        """Waits for the GPU; brings the counters, and answers that do not stay. Number of candidates, there and back.

        Raises:
            NonFiniteError: a query holds NaN or infinity.
        """
        if self._stays is None:
            host = self._block.views(self._device.download(self._block.block))
            self.answers: Mapping[str, Array | DeviceArray] = host
            self._counters = host["counters"]
        else:
            self.answers = self.on_gpu
            self._counters = self._device.download(self.on_gpu["counters"])
            raise_nonfinite(int(self._counters[4]), len(self._queries), self._stays)
        return int(self._counters[2]), int(self._counters[3])

    def totals(self, pairs: int) -> SearchCounts:
        """What the call did."""
        return self.counts.totals(pairs, int(self._counters[0]), int(self._counters[1]))


def nearest_call(
    search: Search,
    target: Target,
    queries: DeviceRows,
    k: int,
    *,
    answered: bool = False,
    hint: DeviceArray | None = None,
    stays: str | None = None,
) -> Outcome:
    """index int64 (m, k) and sq_distance float32 (m, k).

    For k = 1 a ``hint`` is int64 (m,), and ``answered`` asks for bool (m,) as well: whether that row's nearest query is
    this one. Groups restrict which row a query may choose, not which query a row may.
    """
    device, frame, m = search.device, target.frame, queries.count
    parts: Shapes = {"index": ((m, k), np.int64), "sq_distance": ((m, k), np.float32)}
    if answered:
        parts = {**parts, "answered": ((m,), np.bool_)}
    outcome = Outcome(device, parts, queries, stays)
    if k > 1:
        k_nearest(search, target, queries, k, outcome.counts, outcome.places())
        outcome.read()
        return outcome
    answers, listed = Answers.none(device, m, frame), 0
    if target.whole is not None and m <= search.at_once:
        candidates = Candidates(device, search.capacity, outcome.counts, count=outcome.list_lengths[0])
        search.enqueue(target, queries, answers, candidates, hint=hint)
        if answered:
            asking, among, back = search.ask_back(frame, queries, target.whole.rows, answers)
            search.enqueue(among, asking, back, candidates.counted_by(outcome.list_lengths[1]))
            search.answered(answers, back, outcome.on_gpu["answered"])
        search.finish(answers.best, answers.nearest, outcome.places())
        listed, listed_back = outcome.read()
        if max(listed, listed_back) <= search.capacity:
            return outcome
    search.complete(target.after(listed, m), queries, answers, outcome.counts, hint=hint)
    search.finish(answers.best, answers.nearest, outcome.places())
    if answered:
        if target.whole is not None:
            asking, among, back = search.ask_back(frame, queries, target.whole.rows, answers)
        else:
            assert target.gathered is not None
            chosen = np.maximum(device.download(outcome.on_gpu["index"]).reshape(-1), 0)
            asking = target.gathered(chosen)
            _, among, back = search.ask_back(frame, queries, asking, answers)
        search.complete(among, asking, back, outcome.counts)
        search.answered(answers, back, outcome.on_gpu["answered"])
    outcome.read()
    return outcome


def mutual_call(search: Search, target: Target, a: DeviceRows, *, stays: str | None = None) -> Outcome:
    """`BOTH_WAYS`: index int64 and squared distance float32 of ``a`` (m,) and of the bank in ``target`` (n,)."""
    device, m, n = search.device, a.count, target.count
    parts = {
        f"{side}_{name}": ((count,), kind)
        for side, count in (("ab", m), ("ba", n))
        for name, kind in (("index", np.int64), ("sq_distance", np.float32))
    }
    outcome = Outcome(device, parts, a, stays)
    forward, backward = Answers.none(device, m, target.frame), Answers.none(device, n, target.frame)

    def read() -> int:
        search.finish(forward.best, forward.nearest, outcome.places("ab_"))
        search.finish(backward.best, backward.nearest, outcome.places("ba_"))
        return outcome.read()[0]

    if target.whole is not None and m <= search.at_once:
        candidates = Candidates(device, search.capacity, outcome.counts, count=outcome.list_lengths[0])
        search.enqueue(target, a, forward, candidates, back=backward)
        if read() <= search.capacity:
            return outcome
    search.complete(target, a, forward, outcome.counts, back=backward)
    read()
    return outcome
