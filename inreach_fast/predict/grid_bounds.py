"""Bounds on every patch's distance from the search of every ninth patch: neighbouring patches are alike.

In each 3 x 3 cell of an image's grid one patch is searched. The distances of the others of its cell are bounded by
means of that patch and its nearest nominal patch (docs/serving.md, section 2). A poor guess gives a loose bound, never
a wrong one. With floors (reachability) the same bounds hold: the root of max(d^2, r), too, differs between two patches
by no more than their distance.

*Rounding.* u = 2^-24. A float32 squared distance v of D values is made of differences (1 + u each), their squares and
a sum in any order: |v - |x - y|^2| <= γ_{D + 3} |x - y|^2 + D 2^-126, the last for products that underflow
(docs/search.md, section 1). `_sq_above` allows 2 (D + 16) u and twice the second term, and rounds up, so that it is no
less than `kernels.nearest`'s distance of the pair, which is within half a float32 step of the true one. `_below`
subtracts that step from d(p), does everything else in float64 with 1e-9 of slack, and rounds down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .. import kernels
from ..array_types import BoolArray, FloatArray, IndexArray

# Bank rows displaced by so many patches (down, right) from given ones in their training images, -1 if there is none;
# all int64 (m,).
Displaced = Callable[[IndexArray, IndexArray, IndexArray], IndexArray]

STRIDE = 3


@dataclass(frozen=True, eq=False)
class GridBounds:
    """Certified bounds on the squared distance of each of P patches to its nearest nominal patch."""

    index: IndexArray  # (P,), a near nominal patch; the nearest if the patch was searched
    sq_upper: FloatArray  # (P,), bounds of the distance that `kernels.nearest` gives; equal if searched
    sq_lower: FloatArray
    searched: BoolArray  # (P,)
    counts: kernels.SearchCounts


def grid_bounds(
    rows: FloatArray,
    grid: tuple[int, int],
    bank: kernels.Bank,
    *,
    places: IndexArray | None = None,
    displaced: Displaced | None = None,
    backend: str = "auto",
) -> GridBounds:
    """Bounds for an image's patches: ``rows``, (P, D) float32 descriptors at ``places`` of a ``grid`` (h, w).

    ``places``: int64 (P,), ascending; None: P = h * w, all of them.
    """
    cell = _cells(*grid) if places is None else _cells_of(places, *grid)
    place = np.arange(len(rows)) if places is None else places
    searched = cell == np.arange(len(rows))
    first, rest = np.flatnonzero(searched), np.flatnonzero(~searched)
    found = kernels.nearest(rows[first], bank, backend=backend)
    index = np.empty(len(rows), dtype=np.int64)
    upper, lower = np.empty(len(rows), dtype=np.float32), np.empty(len(rows), dtype=np.float32)
    index[first], upper[first], lower[first] = found.index, found.sq_distance, found.sq_distance
    distances = 0
    if len(rest):
        at, near = rows[rest], cell[rest]
        index[rest] = index[near]
        upper[rest] = _above(at, bank, index[near])
        lower[rest] = _below(upper[near], _sq_above(at, rows[near]))
        distances = len(rest)
        if displaced is not None:
            (down, right), (from_down, from_right) = np.divmod(place[rest], grid[1]), np.divmod(place[near], grid[1])
            shifted = displaced(index[near], down - from_down, right - from_right)
            have = np.flatnonzero(shifted >= 0)
            sq = _above(at[have], bank, shifted[have])
            better = sq < upper[rest[have]]
            index[rest[have[better]]], upper[rest[have[better]]] = shifted[have[better]], sq[better]
            distances += len(have)
        lower[rest] = np.minimum(lower[rest], upper[rest])
    counts = replace(found.counts, pairs=len(rows) * len(bank), refined=found.counts.refined + distances)
    return GridBounds(index, upper, lower, searched, counts)


@lru_cache(maxsize=32)
def _cells(h: int, w: int) -> IndexArray:
    """For each patch of the grid the searched one of its cell, near the middle."""

    def middle(n: int) -> IndexArray:
        return np.minimum(np.arange(n, dtype=np.int64) // STRIDE * STRIDE + STRIDE // 2, n - 1)

    cell = (middle(h)[:, None] * w + middle(w)[None, :]).ravel()
    cell.flags.writeable = False
    return cell


def _cells_of(places: IndexArray, h: int, w: int) -> IndexArray:
    """The same for the patches at some places: the searched one is in the middle, or the first that there is."""
    middle = _cells(h, w)[places]
    _, first, inverse = np.unique(middle, return_index=True, return_inverse=True)
    inverse, exact = inverse.ravel(), np.flatnonzero(middle == places)
    first[inverse[exact]] = exact
    return first[inverse].astype(np.int64)


def _rows(bank: kernels.Bank, numbers: IndexArray) -> FloatArray:
    return np.asarray(bank.rows[numbers if bank.index is None else bank.index[numbers]])


def _above(x: FloatArray, bank: kernels.Bank, numbers: IndexArray) -> FloatArray:
    """Upper bounds on what bank rows count as for matching rows, (m, D): float32 (m,)."""
    sq = _sq_above(x, _rows(bank, numbers))
    return sq if bank.floor is None else np.maximum(sq, bank.floor[numbers])


def _sq_above(x: FloatArray, y: FloatArray) -> FloatArray:
    """Upper bounds on the squared distances of matching rows, (m, D) each: float32 (m,)."""
    dim = x.shape[1]
    with np.errstate(over="ignore"):
        d = x - y
        sq = np.einsum("ij,ij->i", d, d).astype(np.float64)
        sq = sq * (1 + 2 * (dim + 16) * 2.0**-24) + dim * 2.0**-125
        above: FloatArray = np.nextafter(sq.astype(np.float32), np.float32(np.inf))
    return above


def _below(sq: FloatArray, sq_apart: FloatArray) -> FloatArray:
    """Lower bounds on the squared distances of patches at most ``sq_apart`` from patches at ``sq``: float32 (m,)."""
    least = np.maximum(np.nextafter(sq, np.float32(-np.inf)), np.float32(0)).astype(np.float64)
    distance = np.sqrt(least) * (1 - 1e-9) - np.sqrt(sq_apart.astype(np.float64)) * (1 + 1e-9)
    square = (np.maximum(distance, 0.0) ** 2 * (1 - 1e-9)).astype(np.float32)
    below: FloatArray = np.maximum(np.nextafter(square, np.float32(-np.inf)), np.float32(0))
    return below
