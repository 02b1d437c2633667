"""Whole calls: queries, a bank that is on the device or comes in pieces, and answers in one block of memory.

Where bank and queries are on the device at once, a call waits once: for its answers. With them comes how long the
lists of candidates were; where one was too short, the search goes on from what it knows, in parts (`search`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...array_types import Array, IndexArray
from ..results import SearchCounts
from .answers import NONE, Answers, Counts, Piece
from .candidates import Candidates
from .device import Block, Device, DeviceArray, fill
from .frame import DeviceRows, Directions, Frame, find_nonfinite
from .ranked import k_nearest
from .search import Search, bounds_do_not_pay

Host = dict[str, Array]
BOTH_WAYS = ("ab_index", "ab_sq_distance", "ba_index", "ba_sq_distance")


@dataclass(frozen=True)
class Target:
    """A bank as calls search it.

    Attributes:
        frame, directions: of its rows. count: how many these are.
        pieces: gives them anew, piece by piece. whole: all of them, where they are on the device at once.
        gathered: rows by number, int64 (m,), for a bank that is not.
    """

    frame: Frame
    directions: Directions | None
    count: int
    pieces: Callable[[], Iterable[Piece]]
    whole: Piece | None
    gathered: Callable[[IndexArray], DeviceRows]

    def directions_after(self, listed: int, queries: int) -> Directions | None:
        """Leading directions to go on with, where a pass over the whole bank has listed so many pairs."""
        return None if bounds_do_not_pay(listed, queries * self.count) else self.directions


class Outcome:
    """What a call leaves: arrays by name on the device, in one block; counters among them.

    Args:
        device: where. parts: (shape, dtype) of the answers by name.
        queries: of the call. on_gpu: whether these were on the GPU before, so that nobody has looked for NaN in them
            (the counters will tell), and the answers stay there.
    """

    def __init__(
        self,
        device: Device,
        parts: dict[str, tuple[tuple[int, ...], npt.DTypeLike]],
        *,
        queries: DeviceRows,
        on_gpu: bool,
    ) -> None:
        self._device, self._on_gpu = device, on_gpu
        # decided, refined; as their lower halves how many candidates there were, there and back; the first row of NaN.
        block = Block(device, {"counters": ((5,), np.uint64), **parts})
        self._block, self.arrays = block, block.arrays
        counters = self.arrays["counters"]
        fill(device, counters.part(0, 4), 0)
        self.counts = Counts(counters.part(0, 1), counters.part(1, 2))
        self.listed = tuple(
            DeviceArray(counters.address + 8 * i, (1,), np.dtype(np.uint32), counters.owner) for i in (2, 3)
        )
        fill(device, counters.part(4, 5), NONE)
        if on_gpu:
            find_nonfinite(device, queries, counters.part(4, 5))

    def read(self) -> Host:
        """The counters, and with them the answers that are not to stay; this waits for the device."""
        if not self._on_gpu:
            return self._block.download()
        return {"counters": self._device.download(self.arrays["counters"])}

    def totals(self, host: Host, pairs: int) -> SearchCounts:
        """What the call did."""
        decided, refined = (int(n) for n in host["counters"][:2])
        return SearchCounts(
            pairs, self.counts.bounded, self.counts.filtered + refined, decided, brute_force=self.counts.filtered > 0
        )


def first_nonfinite(host: Host) -> int:
    """The first query that holds NaN or infinity; beyond all of them where none does."""
    return int(host["counters"][4])


def _held(host: Host, capacity: int) -> bool:
    """Whether the lists held all candidates."""
    return bool((host["counters"][2:4] <= capacity).all())


def nearest_call(
    search: Search,
    target: Target,
    queries: DeviceRows,
    k: int,
    *,
    hint: DeviceArray | None = None,
    on_gpu: bool = False,
) -> tuple[Outcome, Host]:
    """index int64 (m, k) and sq_distance float32 (m, k); k at most the bank's rows, ``hint`` for k = 1."""
    device, m = search.device, queries.count
    outcome = Outcome(device, _answers_of(m, k), queries=queries, on_gpu=on_gpu)
    places = outcome.arrays["index"], outcome.arrays["sq_distance"]
    if k > 1:
        k_nearest(search, target.frame, queries, target.pieces, target.count, k, outcome.counts, places)
        return outcome, outcome.read()
    answers, listed = Answers.none(device, m), 0
    if target.whole is not None and m <= search.at_once:
        candidates = Candidates(device, search.capacity, count=outcome.listed[0])
        search.enqueue(
            target.frame, queries, target.whole, answers, candidates, outcome.counts, target.directions, hint
        )
        search.finish(answers.best, answers.nearest, places)
        host = outcome.read()
        if _held(host, search.capacity):
            return outcome, host
        listed = int(host["counters"][2])
    directions = target.directions_after(listed, m)
    search.nearest(target.frame, queries, target.pieces, outcome.counts, directions, hint=hint, answers=answers)
    search.finish(answers.best, answers.nearest, places)
    return outcome, outcome.read()


def answered_call(search: Search, target: Target, queries: DeviceRows, *, on_gpu: bool = False) -> tuple[Outcome, Host]:
    """`nearest_call` of k = 1 with ``answered`` uint8 (m,): whether that row's nearest query is this one.

    Groups restrict which row a query may choose, not which query a row may.
    """
    device, frame, m = search.device, target.frame, queries.count
    parts = {**_answers_of(m, 1), "answered": ((m,), np.uint8)}
    outcome = Outcome(device, parts, queries=queries, on_gpu=on_gpu)
    places = outcome.arrays["index"], outcome.arrays["sq_distance"]
    answers, listed = Answers.none(device, m), 0
    if target.whole is not None and m <= search.at_once:
        candidates = Candidates(device, search.capacity, count=outcome.listed[0])
        search.enqueue(frame, queries, target.whole, answers, candidates, outcome.counts, target.directions)
        asking, among, back = search.ask_back(frame, queries, target.whole.rows, answers)
        search.enqueue(frame, asking, among, back, candidates.counted_by(outcome.listed[1]), outcome.counts)
        search.answered(answers, back, outcome.arrays["answered"])
        search.finish(answers.best, answers.nearest, places)
        host = outcome.read()
        if _held(host, search.capacity):
            return outcome, host
        listed = int(host["counters"][2])
    directions = target.directions_after(listed, m)
    search.nearest(frame, queries, target.pieces, outcome.counts, directions, answers=answers)
    search.finish(answers.best, answers.nearest, places)
    if target.whole is not None:
        asking, among, back = search.ask_back(frame, queries, target.whole.rows, answers)
    else:
        chosen = np.maximum(device.download(places[0]).reshape(-1), 0)
        held = target.gathered(chosen)
        _, among, back = search.ask_back(frame, queries, held, answers)
        asking = held
    search.nearest(frame, asking, lambda: [among], outcome.counts, answers=back)
    search.answered(answers, back, outcome.arrays["answered"])
    return outcome, outcome.read()


def mutual_call(search: Search, target: Target, a: DeviceRows, *, on_gpu: bool = False) -> tuple[Outcome, Host]:
    """`BOTH_WAYS`: index int64 and squared distance float32 of ``a`` (m,) and of the bank in ``target`` (n,)."""
    device, frame, m, n = search.device, target.frame, a.count, target.count
    parts: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {}
    for side, count in (("ab", m), ("ba", n)):
        parts.update({f"{side}_index": ((count,), np.int64), f"{side}_sq_distance": ((count,), np.float32)})
    outcome = Outcome(device, parts, queries=a, on_gpu=on_gpu)
    forward, backward = Answers.none(device, m), Answers.none(device, n)

    def read() -> Host:
        for side, answers in (("ab", forward), ("ba", backward)):
            places = outcome.arrays[f"{side}_index"], outcome.arrays[f"{side}_sq_distance"]
            search.finish(answers.best, answers.nearest, places)
        return outcome.read()

    if target.whole is not None and m <= search.at_once:
        candidates = Candidates(device, search.capacity, count=outcome.listed[0])
        search.enqueue_both(frame, a, target.whole, forward, backward, candidates, outcome.counts)
        host = read()
        if _held(host, search.capacity):
            return outcome, host
    search.mutual(frame, a, target.pieces, forward, backward, outcome.counts)
    return outcome, read()


def _answers_of(m: int, k: int) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
    return {"index": ((m, k), np.int64), "sq_distance": ((m, k), np.float32)}
