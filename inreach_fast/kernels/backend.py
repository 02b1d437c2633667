"""What a backend offers: one class with one method for each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import Array, DoubleArray, FloatArray, IndexArray
from .bank import Bank
from .basis import Basis
from .describe_plan import Plan
from .distance import exact_sq_distance
from .results import AnsweredNearest, MutualNearest, Nearest, NearestBounds


class Backend:
    """The operations of `inreach_fast.kernels`, on arguments that have been checked.

    Rows are finite float32 of one length, groups and hints int64, k at least 1. A backend implements `nearest`,
    `mutual_nearest`, `describe` and `channel_spread`, and others where it has something faster than what is here.

    Attributes:
        name: what callers pass as ``backend``.
    """

    name: str

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        """See `kernels.nearest`; arrays of shape (m, k). A backend may ignore the hint."""
        raise NotImplementedError

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        """See `kernels.mutual_nearest`."""
        raise NotImplementedError

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """Execute ``plan`` on (B, C, h, w) levels of any strides into ``out`` (B, P, dim)."""
        raise NotImplementedError

    def describe_tensors(self, levels: Sequence[Any], plan: Plan) -> Any:
        """Execute ``plan`` on (B, C, h, w) torch tensors of any one device; a tensor (B, P, dim) there."""
        raise NotImplementedError

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """Distance of each member to its channel's mean, and the population standard deviation of each channel.

        Channel c holds the members ``members[rows[starts[c]:starts[c + 1]]]``, at least one. The mean and
        both sums of the standard deviation are float64, in the order of the members, divided by the count;
        squared distances are summed in sixteen lanes (`distance.exact_sq_distance`).
        """
        raise NotImplementedError

    def nearest_bounds(
        self, queries: Bank, bank: Bank, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> NearestBounds:
        """See `kernels.nearest_bounds`; here the answer itself."""
        return exact_bounds(self.nearest(queries, bank, 1, query_group, hint))

    def nearest_answered(self, queries: Bank, bank: Bank, query_group: IndexArray | None) -> AnsweredNearest:
        """See `kernels.nearest_answered`; here by two searches."""
        forward = self.nearest(queries, bank, 1, query_group)
        index = forward.index[:, 0]
        found = np.flatnonzero(index >= 0)
        answered = np.zeros(len(index), dtype=np.bool_)
        chosen, chosen_of = np.unique(index[found], return_inverse=True)
        if len(chosen):
            asked = Bank(bank.rows, index=chosen if bank.index is None else bank.index[chosen])
            answer = self.nearest(asked, queries, 1, None).index[:, 0]
            answered[found] = answer[chosen_of] == found
        return AnsweredNearest(index, forward.sq_distance[:, 0], answered)

    def add_rows(self, rows: FloatArray, slots: IndexArray, sums: DoubleArray) -> None:
        """See `channel_sums.add_rows`."""
        used = np.flatnonzero(slots >= 0)
        sums[slots[used]] += rows[used]

    def distances(self, rows: FloatArray, slots: IndexArray, means: DoubleArray) -> DoubleArray:
        """See `channel_sums.distances`."""
        out = np.full(len(rows), np.nan)
        used = np.flatnonzero(slots >= 0)
        out[used] = np.sqrt(exact_sq_distance(rows[used], means[slots[used]]))
        return out

    def index_arrays(self, bank: Bank, folder: Path | None, memory_limit: int | None) -> dict[str, Array]:
        """See `Bank.index_arrays`; none where the backend has no index."""
        return {}

    def adopt_index(self, bank: Bank, arrays: Mapping[str, Array]) -> Basis | None:
        """Makes ``arrays`` the bank's index and returns its basis; ParameterError where they cannot be."""
        return None


def exact_bounds(found: Nearest) -> NearestBounds:
    """An answer (m, 1) as bounds that are equal."""
    distance = found.sq_distance[:, 0]
    return NearestBounds(found.index[:, 0], distance, distance, found.counts, exact=True)
