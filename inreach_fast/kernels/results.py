"""What the search kernels return."""

from __future__ import annotations

from dataclasses import dataclass

from ..array_types import BoolArray, FloatArray, IndexArray
from .gpu.devices.interop import numbers_like


@dataclass(frozen=True)
class SearchCounts:
    """What a search did: how many (query, row) pairs each stage looked at.

    Attributes:
        pairs: all pairs of the search, ``m * n``.
        bounded: pairs that were compared by a bound of their own.
        refined: pairs for which a tighter bound or a float32 distance was computed.
        decided: pairs decided in float64.
        brute_force: True where (some of) the search was done without bounds.
    """

    pairs: int = 0
    bounded: int = 0
    refined: int = 0
    decided: int = 0
    brute_force: bool = False

    def __add__(self, other: SearchCounts) -> SearchCounts:
        return SearchCounts(
            self.pairs + other.pairs,
            self.bounded + other.bounded,
            self.refined + other.refined,
            self.decided + other.decided,
            self.brute_force or other.brute_force,
        )


@dataclass(frozen=True)
class Nearest:
    """Nearest bank rows of each query.

    Attributes:
        index: int64, shape (m,) for ``k=1``, else (m, k), nearest first; -1 where fewer rows are eligible.
        sq_distance: float32, the same shape: squared L2 distance, infinity where ``index`` is -1.
        counts: what the search did.
    """

    index: IndexArray
    sq_distance: FloatArray
    counts: SearchCounts = SearchCounts()


@dataclass(frozen=True)
class NearestBounds:
    """Certified bounds on the distance from each query to its nearest bank row, and a row that is near.

    ``sq_lower <= Nearest.sq_distance <= sq_upper`` for every query, as float32 numbers. Equal bounds are the
    answer's distance; ``index`` may then still be another row than `nearest`'s, at the same distance.

    Attributes:
        index: int64 (m,), a bank row near the query; -1 where none is eligible.
        sq_upper: float32 (m,), the exact squared L2 distance to that row, as `nearest` would give it; infinity
            where ``index`` is -1.
        sq_lower: float32 (m,), no eligible row is nearer than this; infinity where ``index`` is -1.
        counts: what the search did.
        exact: True where the backend searched: bounds are equal and ``index`` is `nearest`'s.
    """

    index: IndexArray
    sq_upper: FloatArray
    sq_lower: FloatArray
    counts: SearchCounts = SearchCounts()
    exact: bool = False


@dataclass(frozen=True)
class MutualNearest:
    """Nearest rows in both directions between two sets (paper, section 3.2; ALGORITHM section 4).

    Attributes:
        ab_index: int64 (m,), for each row of ``a`` the nearest row of ``b``.
        ab_sq_distance: float32 (m,), its squared L2 distance.
        ba_index: int64 (n,), for each row of ``b`` the nearest row of ``a``.
        ba_sq_distance: float32 (n,), its squared L2 distance.
        counts: what the search did.
    """

    ab_index: IndexArray
    ab_sq_distance: FloatArray
    ba_index: IndexArray
    ba_sq_distance: FloatArray
    counts: SearchCounts = SearchCounts()

    def pairs(self) -> tuple[IndexArray, IndexArray]:
        """Rows that are each other's nearest: (rows of ``a`` ascending, their rows of ``b``), int64."""
        a_rows = numbers_like(self.ab_index)
        mutual = self.ba_index[self.ab_index] == a_rows
        return a_rows[mutual], self.ab_index[mutual]


@dataclass(frozen=True)
class AnsweredNearest:
    """Nearest bank row of each query, and whether the row answers: the query is its nearest among all queries.

    Attributes:
        index: int64 (m,), nearest bank row; -1 where none is eligible.
        sq_distance: float32 (m,), squared L2 distance.
        answered: bool (m,), True where no query is nearer to that bank row (the lowest query on exact ties).
        counts: what the search did.
    """

    index: IndexArray
    sq_distance: FloatArray
    answered: BoolArray
    counts: SearchCounts = SearchCounts()
