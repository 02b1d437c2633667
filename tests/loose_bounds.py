"""A stand-in for `kernels.nearest_bounds` whose bounds hold and are as loose as a test wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inreach_fast import kernels
from inreach_fast.kernels.distance import exact_sq_distance

# Taken before any test puts a stand-in in its place.
_NEAREST = kernels.nearest


class LooseBounds:
    """Bounds of a given looseness; with a clock that its searches move.

    Attributes:
        looseness: 0 to 1: which share of the queries gets any row instead of the nearest, and how far below the
            answer the lower bound may lie.
        glance, patch: seconds by which the clock moves for a glance, and for each patch searched.
        now: the clock, seconds.
        searched: patches of each search so far.
    """

    def __init__(self, looseness: float, seed: int = 0, *, glance: float = 1.0, patch: float = 0.01) -> None:
        self.looseness, self.glance, self.patch = looseness, glance, patch
        self.now = 0.0
        self.searched: list[int] = []
        self._random = np.random.default_rng(seed)

    def install(self, monkeypatch: Any) -> LooseBounds:
        """Puts itself in the place of the kernels."""
        monkeypatch.setattr(kernels, "nearest_bounds", self.nearest_bounds)
        monkeypatch.setattr(kernels, "nearest", self.nearest)
        return self

    def nearest_bounds(self, queries: NDArray[np.float32], bank: kernels.Bank, **_: Any) -> kernels.NearestBounds:
        self.now += self.glance
        found = _NEAREST(queries, bank)
        loose = self._random.random(len(queries)) < self.looseness
        index = np.where(loose, self._random.integers(0, len(bank), len(queries)), found.index)
        upper = exact_sq_distance(queries, bank.gathered()[index]).astype(np.float32)
        share = 1 - self.looseness * self._random.random(len(queries))
        lower = np.minimum((found.sq_distance * share).astype(np.float32), found.sq_distance)
        counts = kernels.SearchCounts(len(queries) * len(bank), len(queries) * len(bank), 0, len(queries))
        return kernels.NearestBounds(index, upper, lower, counts)

    def nearest(self, queries: NDArray[np.float32], bank: kernels.Bank, **options: Any) -> kernels.Nearest:
        self.now += self.patch * len(queries)
        self.searched.append(len(queries))
        return _NEAREST(queries, bank, **options)
