"""A histogram of durations in bounded memory, for quantiles far out in the tail."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

_BITS = 7  # a bucket is at most 1/128 as wide as its values
_MOST = (1 << 40) - 1  # microseconds: twelve days
_SHIFTS = 40 - _BITS - 1
_PER_SECOND = 1_000_000


class LatencyHistogram:
    """Counts durations in buckets whose width grows with the value, as HdrHistogram does; thread-safe.

    Durations are counted in microseconds, rounded up. Up to 256 microseconds each value has a bucket of its own; from
    there on a bucket is at most 0.8 % wide. It takes 34 kB, however many durations are recorded.

    Attributes:
        count: durations recorded. total: their sum in seconds. longest: the longest, in seconds.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((_SHIFTS + 2) << _BITS, dtype=np.int64)
        self._lock = threading.Lock()
        self.count = 0
        self.total = 0.0
        self.longest = 0.0

    def record(self, seconds: float) -> None:
        """Counts a duration; a negative one counts as 0."""
        seconds = max(seconds, 0.0)
        bucket = _bucket(math.ceil(seconds * _PER_SECOND))
        with self._lock:
            self._counts[bucket] += 1
            self.count += 1
            self.total += seconds
            self.longest = max(self.longest, seconds)

    def quantile(self, q: float) -> float:
        """The duration, in seconds, that a share ``q`` (0 to 1) of those recorded does not exceed.

        At least the exact quantile, and at most 0.8 % and a microsecond more. NaN while nothing is recorded.
        """
        with self._lock:
            if not self.count:
                return math.nan
            rank = min(max(math.ceil(q * self.count), 1), self.count)
            bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
            return min(_upper(bucket) / _PER_SECOND, self.longest)

    def at_most(self, microseconds: Sequence[int]) -> list[int]:
        """How many durations do not exceed each of these bounds; exact for powers of two."""
        with self._lock:
            sums = np.cumsum(self._counts)
        return [int(sums[_bucket(bound)]) for bound in microseconds]

    def summary(self) -> dict[str, float | int | None]:
        """Number, mean, p50, p99, p99.9 and longest; durations in milliseconds, None while nothing is recorded."""
        quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "p99_9_ms": 0.999}
        seconds = {
            "mean_ms": self.total / max(self.count, 1),
            **{name: self.quantile(q) for name, q in quantiles.items()},
            "longest_ms": self.longest,
        }
        return {
            "count": self.count,
            **{name: round(1e3 * value, 3) if self.count else None for name, value in seconds.items()},
        }


def _bucket(ticks: int) -> int:
    """The bucket of a duration in microseconds. Buckets include their upper end, so that powers of two are ends."""
    value = min(max(ticks - 1, 0), _MOST)
    shift = max(value.bit_length() - _BITS - 1, 0)
    return (shift << _BITS) + (value >> shift)


def _upper(bucket: int) -> int:
    """The longest duration in a bucket, in microseconds."""
    shift = max((bucket >> _BITS) - 1, 0)
    return (bucket - (shift << _BITS) + 1) << shift
