"""What a backend offers: one class with one method for each operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..array_types import Array, DoubleArray, FloatArray, IndexArray
from .band import Band
from .bank import Bank
from .basis import Basis
from .describe_arrays import describe_images
from .describe_plan import Plan
from .distance import exact_sq_distance
from .results import AnsweredNearest, MutualNearest, Nearest, NearestBounds

_SPREAD_BYTES = 32 << 20


class Backend(ABC):
    """The operations of `inreach_fast.kernels`, on arguments that have been checked.

    Rows are finite float32 of one length, groups and hints int64, k at least 1. A backend implements `nearest`, and
    overrides the other methods where it has something faster.

    Attributes:
        name: what callers pass as ``backend``.
        takes_floors: whether its searches in one direction heed a bank's floor.
    """

    name: str
    takes_floors = True

    @abstractmethod
    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        """See `kernels.nearest`; arrays of shape (m, k). A backend may ignore the hint."""

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """Execute ``plan`` on (B, C, h, w) levels of any strides into ``out`` (B, P, dim); here by NumPy."""
        describe_images(levels, plan, out)

    def nearest_bounds(
        self, queries: Bank, bank: Bank, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> NearestBounds:
        """See `kernels.nearest_bounds`; here the answer itself."""
        return exact_bounds(self.nearest(queries, bank, 1, query_group, hint))

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        """See `kernels.mutual_nearest`; here by two searches."""
        return both_ways(self.nearest(a, b, 1, None), self.nearest(b, a, 1, None))

    def nearest_answered(self, queries: Bank, bank: Bank, query_group: IndexArray | None) -> AnsweredNearest:
        """See `kernels.nearest_answered`; here by two searches."""

        def answer(chosen: IndexArray) -> Nearest:
            asked = Bank(bank.rows, index=chosen if bank.index is None else bank.index[chosen])
            return self.nearest(asked, queries, 1, None)

        return with_answers(self.nearest(queries, bank, 1, query_group), answer)

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """Distance of each member to its channel's mean, and the population standard deviation of each channel.

        Channel c holds the members ``members[rows[starts[c]:starts[c + 1]]]``, at least one. The mean and
        both sums of the standard deviation are float64, in the order of the members, divided by the count;
        squared distances are summed in sixteen lanes (`exact_sq_distance`). Here the k-th members of many channels are
        added at once, k after k, which keeps that order.
        """
        distance, sigma = np.empty(len(rows)), np.empty(len(starts) - 1)
        length = np.diff(starts)
        by_length = np.argsort(-length, kind="stable")  # channels that have a k-th member come first
        step = max(1, _SPREAD_BYTES // (16 * members.shape[1]))
        for first in range(0, len(by_length), step):
            chosen = by_length[first : first + step]
            count = length[chosen]
            places = [starts[chosen[: np.count_nonzero(count > k)]] + k for k in range(int(count[0]))]
            mean = np.zeros((len(chosen), members.shape[1]))
            for place in places:
                mean[: len(place)] += members[rows[place]]
            mean /= count[:, None]
            for place in places:
                distance[place] = np.sqrt(exact_sq_distance(members[rows[place]], mean[: len(place)]))
            total, squares = np.zeros(len(chosen)), np.zeros(len(chosen))
            for place in places:
                total[: len(place)] += distance[place]
            for place in places:
                squares[: len(place)] += (distance[place] - (total / count)[: len(place)]) ** 2
            sigma[chosen] = np.sqrt(squares / count)
        return distance, sigma

    def add_rows(self, rows: FloatArray, slots: IndexArray, sums: DoubleArray) -> None:
        """``sums[slots[i]] += rows[i]`` in float64, for channels whose members are read image by image.

        An image has at most one member in a channel, so that sums are in the order of the members.

        Args:
            rows: (m, D) float32. slots: int64 (m,), negative for none, none named twice. sums: float64 (S, D), C order.
        """
        used = np.flatnonzero(slots >= 0)
        sums[slots[used]] += rows[used]

    def distances(self, rows: FloatArray, slots: IndexArray, means: DoubleArray) -> DoubleArray:
        """Distance of ``rows[i]`` to ``means[slots[i]]``, float64 (m,), NaN where the slot is negative."""
        out = np.full(len(rows), np.nan)
        used = np.flatnonzero(slots >= 0)
        out[used] = np.sqrt(exact_sq_distance(rows[used], means[slots[used]]))
        return out

    def linear_map(self, rows: FloatArray, mean: FloatArray, matrix: FloatArray) -> FloatArray:
        """See `kernels.linear_map`."""
        with np.errstate(over="ignore", invalid="ignore"):
            centred = rows - mean
            out: FloatArray = centred[:, :1] * matrix[0]
            for d in range(1, len(matrix)):
                out += centred[:, d : d + 1] * matrix[d]
        return out

    def smooth(self, scores: DoubleArray, rows: Band, columns: Band, size: tuple[int, int]) -> FloatArray:
        """See `kernels.smoothing.smooth`."""
        half = np.zeros((size[0], len(columns)))
        for j, (low, high, weights) in enumerate(rows):
            half[low:high] += weights[:, None] * scores[j]
        half = np.ascontiguousarray(half.T)
        full = np.zeros((size[1], size[0]))
        for j, (low, high, weights) in enumerate(columns):
            full[low:high] += weights[:, None] * half[j]
        return np.ascontiguousarray(full.T.astype(np.float32))

    def index_arrays(self, bank: Bank, folder: Path | None, memory_limit: int | None) -> dict[str, Array]:
        """See `Bank.index_arrays`; none where the backend has no index."""
        return {}

    def adopt_index(self, bank: Bank, arrays: Mapping[str, Array]) -> Basis | None:
        """Makes ``arrays`` the bank's index and returns its basis; ParameterError where they cannot be."""
        return None


def both_ways(forward: Nearest, backward: Nearest) -> MutualNearest:
    """The answers (m, 1) and (n, 1) of two searches between the same sets."""
    (ab, ab_sq_distance), (ba, ba_sq_distance) = (
        (found.index[:, 0], found.sq_distance[:, 0]) for found in (forward, backward)
    )
    counts = replace(forward.counts + backward.counts, pairs=len(ab) * len(ba))
    return MutualNearest(ab, ab_sq_distance, ba, ba_sq_distance, counts)


def with_answers(forward: Nearest, answer: Callable[[IndexArray], Nearest]) -> AnsweredNearest:
    """An answer (m, 1), where ``answer(rows)`` searches the queries for these bank rows (ascending, each once)."""
    index, counts = forward.index[:, 0], forward.counts
    found = np.flatnonzero(index >= 0)
    answered = np.zeros(len(index), dtype=np.bool_)
    chosen, chosen_of = np.unique(index[found], return_inverse=True)
    if len(chosen):
        backward = answer(chosen)
        answered[found] = backward.index[chosen_of, 0] == found
        counts += backward.counts
    return AnsweredNearest(index, forward.sq_distance[:, 0], answered, counts)


def exact_bounds(found: Nearest) -> NearestBounds:
    """An answer (m, 1) as bounds that are equal."""
    distance = found.sq_distance[:, 0]
    return NearestBounds(found.index[:, 0], distance, distance, found.counts, exact=True)
