"""Interleaved timing: peer, ours, peer, ours, ... so that drift of the machine affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

OURS = "inreach_fast"
# After a parallel region, OpenMP's workers spin for a while; the next contestant waits until they stop.
_REST = 0.03

Contestants = Mapping[str, Callable[[], object]]


def race(
    contestants: Contestants,
    *,
    rounds: int,
    budget: float = 60.0,
    warm: Iterable[str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contestant, one entry per round; wall clock unless another ``clock`` is given.

    Args:
        contestants: name -> what to time.
        rounds: number of rounds; each runs every contestant once, in the given order.
        budget: seconds; no round starts after they are spent (the first always runs).
        warm: contestants that run once before, untimed; all by default.
        clock: `time.process_time` for CPU time, which other processes hardly change: for contestants of one thread.
    """
    for name in contestants if warm is None else warm:
        contestants[name]()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    begun = time.perf_counter()
    for _ in range(rounds):
        for name, run in contestants.items():
            time.sleep(_REST)
            start = clock()
            run()
            seconds[name].append(clock() - start)
        if time.perf_counter() - begun > budget:
            break
    return seconds


def spread(values: list[float]) -> dict[str, Any]:
    """Median, minimum and maximum of some values, and the values."""
    return {"median": median(values), "min": min(values), "max": max(values), "values": values}


def ratios(seconds: Mapping[str, list[float]], ours: str) -> dict[str, dict[str, Any]]:
    """Ratio of each other contestant's time to ours in the same round, and its median: above 1, ours is faster."""
    return {
        name: spread([peer / mine for peer, mine in zip(values, seconds[ours], strict=True)])
        for name, values in seconds.items()
        if name != ours
    }
