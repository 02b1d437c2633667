"""The float32 pass of the numba and torch backends, and the search that is made of it.

An exact search decides pairs by r(x, y), the float64 squared distance of the original rows (16-lane order).
That costs ten times as much as a float32 product, so a float32 pass first rules out pairs that cannot win.

With a centre c and a power of two s (the `FilterFrame`), every row becomes a = fl32(s (x - c)) and keeps its squared
length A = |a|^2, summed in float64. For a query a and a bank row b the pass computes, in float32,

    low = (1 - e) A + (1 - e) B - 2 <a, b>           e = gamma + 8u,  gamma = D u / (1 - D u),  u = 2^-24

With t = 2^-20, f = D 2^-120 and the decided distance s^2 r (docs/search.md, section 10, has the proof):

    (P1)  low <= (1 + 2t) s^2 r + f                    so a pair whose `low` is above that is farther than r
    (P2)  s^2 r <= (1 + 2t) (low + 2e (A + B)) + f     a pair's distance is at most this, undecided
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ...array_types import DoubleArray, FloatArray, IndexArray
from ..backend import Backend
from ..bank import Bank
from ..basis import sample_rows
from ..results import Nearest, SearchCounts

UNIT_ROUNDOFF = 2.0**-24
# The factor 1 + 2t of P1 and P2.
STRETCH = 1.0 + 2.0**-19
# Beyond this dim gamma loses its meaning: the floor becomes infinite and every pair is decided.
_MAX_DIM = 1 << 22
_SAMPLE_ROWS = 512
_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class FilterFrame:
    """Centre, scale and error terms that one search's float32 pass uses.

    Attributes:
        centre: float64 (D,), subtracted from every row.
        scale: power of two that brings the largest |x - centre| of both sets into [1/2, 1).
        error: e of P1 and P2.
        floor: f of P1 and P2.
    """

    centre: DoubleArray
    scale: float
    error: float
    floor: float


class FilterBackend(Backend):
    """A backend that searches by a float32 pass over all pairs, deciding in float64 what the pass leaves."""

    def product_loss(self) -> float:
        """See `make_frame`."""
        return 0.0

    @abstractmethod
    def decide(self, queries: Bank, bank: Bank, frame: FilterFrame, index: IndexArray, sq_distance: DoubleArray) -> int:
        """Writes the nearest rows to ``index`` (m, k), all -1, and ``sq_distance`` (m, k), all infinity.

        Groups are compared where the queries have some. Returns the number of pairs decided.
        """

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        m, n = len(queries), len(bank)
        index, sq_distance = np.full((m, k), -1, np.int64), np.full((m, k), np.inf)
        asking = queries.with_groups(None if bank.groups is None else query_group)
        decided = self.decide(asking, bank, make_frame(queries, bank, self.product_loss()), index, sq_distance)
        with np.errstate(over="ignore", under="ignore"):  # beyond float32's range infinity is the right rounding
            rounded = sq_distance.astype(np.float32)
        return Nearest(index, rounded, SearchCounts(m * n, 0, m * n, decided, brute_force=True))


def make_frame(queries: Bank, bank: Bank, product_loss: float = 0.0) -> FilterFrame:
    """The frame of a search between two sets of rows of one length.

    ``product_loss`` bounds the relative error that rounding the inputs of a product adds to it, for matrix
    units that read fewer bits than float32 has (0 for float32 itself).
    """
    dim = bank.dim
    centre = _extent(bank)[0]
    extents = (_extent(bank)[1:], _extent(queries)[1:])
    largest = max(float(np.maximum(high - centre, centre - low).max()) for low, high in extents)
    scale = math.ldexp(1.0, -math.frexp(largest)[1]) if largest > 0.0 else 1.0
    if dim >= _MAX_DIM:
        return FilterFrame(centre, scale, 0.0, math.inf)
    gamma = dim * UNIT_ROUNDOFF / (1.0 - dim * UNIT_ROUNDOFF)
    error = gamma * (1.0 + product_loss) + product_loss + 8.0 * UNIT_ROUNDOFF
    return FilterFrame(centre, scale, error, dim * 2.0**-120)


def framed_rows(bank: Bank, frame: FilterFrame, first: int, stop: int) -> tuple[FloatArray, FloatArray, DoubleArray]:
    """Rows first to stop-1: original, in the frame, and their squared lengths A."""
    original = bank.rows[first:stop] if bank.index is None else bank.rows[bank.index[first:stop]]
    framed = ((original - frame.centre) * frame.scale).astype(np.float32)
    return original, framed, np.square(framed, dtype=np.float64).sum(axis=1)


def _extent(bank: Bank) -> tuple[DoubleArray, FloatArray, FloatArray]:
    """Mean of a sample, and least and greatest value of each column; kept as long as the bank lives."""

    def measure() -> tuple[DoubleArray, FloatArray, FloatArray]:
        mean = sample_rows(bank.rows, bank.index, _SAMPLE_ROWS).mean(axis=0, dtype=np.float64)
        low, high = np.full(bank.dim, np.inf, np.float32), np.full(bank.dim, -np.inf, np.float32)
        for start in range(0, len(bank), _CHUNK_ROWS):  # in chunks: a gathered copy of a bank could be gigabytes
            stop = start + _CHUNK_ROWS
            chunk = bank.rows[start:stop] if bank.index is None else bank.rows[bank.index[start:stop]]
            np.minimum(low, chunk.min(axis=0), out=low)
            np.maximum(high, chunk.max(axis=0), out=high)
        return mean, low, high

    return bank.prepared("float32_filter", measure)
