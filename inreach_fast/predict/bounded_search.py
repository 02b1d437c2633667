"""Searches that stop early: at a certain verdict for a threshold, or within a time budget.

Every patch has a certified interval for its distance to the nearest nominal patch: first from the search of every
ninth patch (`grid_bounds`); once a patch is searched, its interval is a point. An image's score lies between the
scores of the lower and of the upper ends, as computed and without any slack, because every step of the map is
monotone. docs/serving.md, section 2, contains the proof, the order of the search and what a budget includes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from .. import kernels
from ..array_types import BoolArray, FloatArray, IndexArray
from ..errors import ParameterError
from ..kernels import SearchCounts
from ..method.feedback import ImageFeedback
from ..method.nominal_model import NominalModel
from ..method.scoring import MapFrame, Scorer, image_score
from .grid_bounds import grid_bounds

FIRST_ROUND = 128
LEAST_ROUND = 32
# Share of the remaining time that a round is planned for: speeds vary from patch to patch.
_SHARE = 0.8


@dataclass(frozen=True)
class Limits:
    """Where a search may stop."""

    threshold: float | None = None  # once it is certain whether the score exceeds it
    budget: float | None = None  # seconds from the call on

    @classmethod
    def of(cls, threshold: Any, budget_ms: Any) -> Limits:
        """From the arguments of `InReaCh.predict`.

        Raises:
            ParameterError: a value that is not a finite number, or a budget that is not above 0.
        """
        limit = None if threshold is None else _number(threshold, "threshold")
        budget = None if budget_ms is None else _number(budget_ms, "budget_ms")
        if budget is not None and budget <= 0:
            raise ParameterError(
                f"budget_ms: expected more than 0 milliseconds, got {budget_ms!r}; leave it out for a complete search"
            )
        return cls(limit, None if budget is None else budget / 1e3)


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) or np.ndim(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ParameterError(f"{name}: expected a finite number, got {value!r}")
    return number


@dataclass
class SearchSpeed:
    """Measured speed of the search, kept from image to image, so that budgets are met.

    The greater of the last and the mean time counts: a budget is a promise.
    """

    patch: float = 0.0  # seconds to search one patch, 0 while unknown
    maps: float = 0.0  # seconds to evaluate the bounds once (two maps)

    def searched(self, patches: int, seconds: float) -> None:
        now = seconds / patches
        self.patch = max(now, (self.patch + now) / 2)

    def evaluated(self, seconds: float) -> None:
        self.maps = max(seconds, (self.maps + seconds) / 2)

    def affordable(self, seconds: float) -> int:
        """Patches that can be searched and evaluated in that time."""
        return int(max(0.0, _SHARE * (seconds - self.maps)) / max(self.patch, 1e-9))


@dataclass(frozen=True)
class BoundedScores:
    """An image's P patch scores with their bounds, and its map with the certified bounds of its score."""

    upper: FloatArray  # (P,), ends of each patch's interval; equal for patches that were searched
    lower: FloatArray
    nearest: IndexArray  # (P,), a nominal patch no farther than ``upper``; the nearest if the patch was searched
    anomaly_map: FloatArray  # (H, W), of the upper ends
    score_lower: float
    score_upper: float
    complete: bool  # every patch was searched: upper, nearest and map are those of plain `predict`, to the bit
    counts: SearchCounts | None
    feedback: IndexArray | None = None  # (P,), the feedback that each score is due to, 0 for none; None without any


@dataclass
class BoundedSearch:
    """The search of one image."""

    nominal: NominalModel
    scorer: Scorer  # whose score ``is_distance``
    rows: FloatArray  # (P, D), the image's descriptors
    frame: MapFrame  # of the P patches
    feedback: ImageFeedback | None = None
    speed: SearchSpeed = field(default_factory=SearchSpeed)  # of earlier images

    def run(self, threshold: float | None = None, deadline: float | None = None) -> BoundedScores:
        """Search until the verdict for ``threshold`` is certain, ``deadline`` (`time.perf_counter`) is near, or every
        patch was searched. The first search, of every ninth patch, is always done.
        """
        begun = time.perf_counter()
        bank, backend = self.scorer.bank, self.scorer.backend
        displaced = partial(self.nominal.displaced, grid=self.frame.grid)
        places = self.frame.cells
        first = grid_bounds(self.rows, self.frame.grid, bank, places=places, displaced=displaced, backend=backend)
        every = np.arange(len(self.rows))
        upper, by = self._scores(first.sq_upper, every)
        lower, _ = self._scores(first.sq_lower, every)
        nearest, unknown, counts = first.index, ~first.searched, first.counts
        self.speed.searched(int(first.searched.sum()), time.perf_counter() - begun)
        size = FIRST_ROUND
        while True:
            begun = time.perf_counter()
            complete = not unknown.any()
            upper_map = self._map(upper)
            low, high = image_score(upper_map if complete else self._map(lower)), image_score(upper_map)
            if complete or (threshold is not None and (low > threshold or high <= threshold)):
                break
            order = self._order(upper, lower, unknown, upper_map, low if threshold is None else threshold)
            now = time.perf_counter()
            self.speed.evaluated(now - begun)
            if deadline is not None:
                affordable = self.speed.affordable(deadline - now)
                if affordable < min(LEAST_ROUND, len(order)):
                    break
                if threshold is None and affordable >= len(order):
                    size = len(order)  # there is time for all, and without a threshold nothing stops earlier
                size = min(size, affordable)
            chosen = order[:size]
            found = kernels.nearest(self.rows[chosen], bank, hint=nearest[chosen], backend=backend)
            upper[chosen], by[chosen] = self._scores(found.sq_distance, chosen)
            lower[chosen] = upper[chosen]
            nearest[chosen] = found.index
            unknown[chosen] = False
            counts = replace(counts + found.counts, pairs=counts.pairs)  # rounds look at the first search's pairs again
            self.speed.searched(len(chosen), time.perf_counter() - now)
            size *= 2
        due_to = None if self.feedback is None else by
        return BoundedScores(upper, lower, nearest, upper_map, low, high, complete, counts, due_to)

    def _scores(self, squared: FloatArray, at: IndexArray) -> tuple[FloatArray, IndexArray]:
        """Scores of the patches ``at`` from (bounds of) their squared distances, and what feedback they are due to."""
        if self.feedback is None:
            return np.array(self.scorer.of_squared(squared)), np.zeros(len(at), np.int64)
        return self.feedback.scores(squared, self.scorer.of_squared, at)

    def _map(self, values: FloatArray) -> FloatArray:
        return self.frame.map(values)

    def _order(
        self, upper: FloatArray, lower: FloatArray, unknown: BoolArray, upper_map: FloatArray, decided: float
    ) -> IndexArray:
        """The unknown patches by descending priority, ties in the order of the grid."""
        excess = np.maximum(np.nan_to_num(upper_map.astype(np.float64), nan=-np.inf) - decided, 0.0)
        weight = self.frame.back_projection(excess)
        with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity has no priority
            length = upper - lower
            priority = np.where(length > 0, weight * length, 0.0)
        numbers = np.flatnonzero(unknown)
        order = np.lexsort((-length[numbers], -np.nan_to_num(priority[numbers])))
        return np.asarray(numbers[order])
