"""Replaces the first bounds of a bounded search: they hold, and are as loose as a test wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inreach_fast import kernels
from inreach_fast.kernels.distance import exact_sq_distance
from inreach_fast.predict import bounded_search
from inreach_fast.predict.grid_bounds import GridBounds

# The real one, before a test replaces it.
_NEAREST = kernels.nearest


class LooseBounds:
    """Bounds of a given looseness, and a clock that its searches advance.

    Attributes:
        looseness: 0 to 1: which share of the queries gets any row instead of the nearest, and how far below the
            answer the lower bound may lie.
        first: patches that the first bounds search.
        patch: seconds by which the clock moves for each patch searched, those of the first bounds included.
        now: the clock, seconds.
        searched: patches of each search after the first bounds.
    """

    def __init__(self, looseness: float, seed: int = 0, *, first: int = 8, patch: float = 0.01) -> None:
        self.looseness, self.first, self.patch = looseness, first, patch
        self.now = 0.0
        self.searched: list[int] = []
        self._random = np.random.default_rng(seed)

    @property
    def first_seconds(self) -> float:
        """Seconds that the first bounds take."""
        return self.first * self.patch

    def install(self, monkeypatch: Any) -> LooseBounds:
        """Replaces the first bounds and the search."""
        monkeypatch.setattr(bounded_search, "grid_bounds", self.grid_bounds)
        monkeypatch.setattr(kernels, "nearest", self.nearest)
        return self

    def grid_bounds(self, rows: NDArray[np.float32], grid: tuple[int, int], bank: kernels.Bank, **_: Any) -> GridBounds:
        self.now += self.first_seconds
        found = _NEAREST(rows, bank)
        searched = np.zeros(len(rows), dtype=bool)
        searched[self._random.permutation(len(rows))[: self.first]] = True
        loose = (self._random.random(len(rows)) < self.looseness) & ~searched
        index = np.where(loose, self._random.integers(0, len(bank), len(rows)), found.index)
        upper = exact_sq_distance(rows, bank.gathered()[index]).astype(np.float32)
        share = 1 - self.looseness * self._random.random(len(rows))
        lower = np.minimum((found.sq_distance * share).astype(np.float32), found.sq_distance)
        lower[searched] = found.sq_distance[searched]
        counts = kernels.SearchCounts(len(rows) * len(bank), len(rows) * len(bank), 0, len(rows))
        return GridBounds(index, upper, lower, searched, counts)

    def nearest(self, queries: NDArray[np.float32], bank: kernels.Bank, **options: Any) -> kernels.Nearest:
        self.now += self.patch * len(queries)
        self.searched.append(len(queries))
        return _NEAREST(queries, bank, **options)
