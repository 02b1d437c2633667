"""The number of threads that a prediction uses, measured on the machine as it is (``threads="auto"``).

More threads are not always faster: beside a busy process, each of a network's many small operations waits until the
system runs the last thread. So the numbers are tried, and tried again when latencies have changed: then the next images
take turns between them, which costs no image more than a slower number would.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

from ..array_types import Array
from ..system.threads import thread_limit

_log = logging.getLogger("inreach_fast")

_ROUNDS: Final = 5  # of the first measurement, in which the numbers take turns
_IMAGES: Final = 3  # for each number, when images are what is measured
_WINDOW: Final = 16  # images whose median is compared with that of the choice
_DRIFT: Final = 1.4  # a change of latency, up or down, after which the numbers are tried again
_GAIN: Final = 0.9  # another number is taken if its latency is below this share of the present one's
_MOST_WINDOWS: Final = 32  # to wait after trials that changed nothing; it doubles with each of them


class ThreadChoice:
    """A number of threads, 1 to ``most``, that follows what is fastest. It may be used from several threads.

    Args:
        most: of the machine. fixed: it stays at ``most``. clock: seconds, for tests.
    """

    def __init__(self, most: int, *, fixed: bool = False, clock: Callable[[], float] = time.perf_counter) -> None:
        self._candidates = (most,) if fixed else candidates(most)
        self._clock = clock
        self._lock = threading.Lock()
        self._number = most
        self._usual = 0.0  # median seconds of an image when the number was chosen
        self._recent: list[float] = []
        self._trial: dict[int, list[float]] = {}  # empty: none under way
        self._rest, self._waiting = 1, 0

    @property
    def number(self) -> int:
        """The present choice."""
        return self._number

    def measure(self, work: Callable[[], Array]) -> None:
        """Chooses by the time of ``work``, which is done some times with each number.

        Numbers with which its result has other bits than with the threads of now are left out: torch adds up some
        layers in another order.
        """
        expected = work().tobytes()
        found: dict[int, list[float]] = {number: [] for number in self._candidates}
        for turn in range(_ROUNDS + 1):
            for number in tuple(found):
                with thread_limit(number):
                    begun = self._clock()
                    result = work()
                    seconds = self._clock() - begun
                if turn:
                    found[number].append(seconds)
                elif result.tobytes() != expected:  # in the first turn threads are made, and it is not counted
                    del found[number]
        if len(found) < len(self._candidates):
            _log.info("threads: the network's features have the same bits with %s threads", [*found])
        if not found:
            return
        self._candidates = tuple(found)
        with self._lock:
            self._choose(found)
            self._rest = 1

    @contextmanager
    def images(self, count: int) -> Iterator[None]:
        """Within it ``count`` images are predicted, with the number whose turn it is; their time is noted."""
        with self._lock:
            number = min(self._trial, key=lambda n: len(self._trial[n])) if self._trial else self._number
        with thread_limit(number):
            begun = self._clock()
            yield
            seconds = (self._clock() - begun) / count
        with self._lock:
            self._note(number, seconds)

    def _note(self, number: int, seconds: float) -> None:
        if self._trial:
            if number in self._trial:
                self._trial[number].append(seconds)
            if all(len(times) >= _IMAGES for times in self._trial.values()):
                tried = self._trial
                self._choose(tried)
                if not tried.keys() >= (next_to := set(_around(self._candidates, self._number))):
                    self._trial = {n: [] for n in sorted(next_to)}  # it moved, and may move on
            return
        if number != self._number:  # begun before the choice
            return
        self._recent.append(seconds)
        if len(self._recent) < _WINDOW:
            return
        now, self._recent, self._waiting = median(self._recent), [], self._waiting + 1
        if self._usual == 0.0:
            self._usual = now
        elif self._waiting >= self._rest and not self._usual / _DRIFT <= now <= self._usual * _DRIFT:
            around = _around(self._candidates, self._number)
            self._trial = {n: [] for n in around} if len(around) > 1 else {}

    def _choose(self, found: dict[int, list[float]]) -> None:
        times = {number: median(values) for number, values in found.items()}
        best = min(times, key=lambda n: times[n])
        if self._number not in times or times[best] < _GAIN * times[self._number]:
            _log.info("threads: %d from now on (%.1f ms an image)", best, 1e3 * times[best])
            self._number, self._rest = best, 1
        else:
            self._rest = min(2 * self._rest, _MOST_WINDOWS)
        self._usual, self._waiting = times[self._number], 0
        self._recent, self._trial = [], {}


def candidates(most: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, ... and ``most``: numbers of threads that are worth a try."""
    numbers = {1, most}
    for power in range(most.bit_length()):
        numbers |= {n for n in (1 << power, 3 << power) if n <= most}
    return tuple(sorted(numbers))


def _around(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    """The number with its neighbours, and the least: the whole list would take too many images."""
    place = min(bisect_left(numbers, number), len(numbers) - 1)
    return tuple(sorted({numbers[0], *numbers[max(0, place - 1) : place + 2]}))
