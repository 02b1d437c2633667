"""Searches that stop early: at a certain verdict for a threshold, or within a time budget.

Every patch has a certified interval for its distance to the nearest nominal patch: first from the search of every
ninth patch (`grid_bounds`); once a patch is searched, its interval is a point. An image's score lies between the
scores of the lower and of the upper ends, as floating-point numbers and without any slack:

*Theorem.* Let l <= s <= u, elementwise, be float32 patch scores. Then image_score(anomaly_map(l)) <=
image_score(anomaly_map(s)) <= image_score(anomaly_map(u)), as computed.
*Proof.* Rounding to nearest is monotone: a <= b implies fl(a) <= fl(b). The map consists of these steps, the same
for each image and in the same order: the conversion to float64 (exact), replacing infinity by the greatest float32
(monotone), products with the operators' weights, sums, the conversion to float32, a maximum. The weights are
sums of products of a Gaussian's values with zeros and ones, none of them negative, so that fl(w a) <= fl(w b)
for a <= b; and a <= b, c <= d imply fl(a + c) <= fl(b + d). A composition of monotone steps is monotone. ∎

The square root of ``distance="l2"`` is correctly rounded and thus monotone, so that intervals of squared distances
become intervals of scores. An image is certainly anomalous once the score of the lower ends exceeds the threshold, and
certainly good once the score of the upper ends does not. Either way the verdict is that of the complete search.

Search order: a pixel is open by as much as the map of the upper ends exceeds the threshold (without one, the greatest
value of the lower ends' map). The priority of a patch is the length of its interval times its weight on the open
pixels. Patches are searched in rounds, by priority. Rounds double in size, because the bounds are evaluated after
each; under a budget a round is no larger than the remaining time allows at the speed measured so far.

The score of a patch that was not searched is its upper end, the distance to a nominal patch that was found. Map,
scores and nearest patches are therefore consistent, and uncertainty errs towards an anomaly.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import kernels
from ..array_types import BoolArray, FloatArray, IndexArray
from ..errors import ParameterError
from ..kernels import SearchCounts
from ..method.nominal_model import NominalModel
from ..method.scoring import Scorer, anomaly_map, back_projection, image_score
from .grid_bounds import grid_bounds

FIRST_ROUND = 128
LEAST_ROUND = 32
# Share of the remaining time that a round is planned for: speeds vary from patch to patch.
_SHARE = 0.8


@dataclass(frozen=True)
class Limits:
    """Where a search may stop.

    Attributes:
        threshold: stop once it is certain whether the score exceeds it; None: no threshold.
        budget: seconds from the call on; None: no budget.
    """

    threshold: float | None = None
    budget: float | None = None

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

    @property
    def any(self) -> bool:
        """Whether there is a threshold or a budget."""
        return self.threshold is not None or self.budget is not None


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
    """Measured speed of the search on this machine, kept from image to image, so that budgets are met.

    Attributes:
        patch: seconds to search one patch, 0 while unknown.
        maps: seconds to evaluate the bounds once (two maps).
    """

    patch: float = 0.0
    maps: float = 0.0

    def searched(self, patches: int, seconds: float) -> None:
        """Record a round. The greater of the last and the mean time counts: a budget is a promise."""
        now = seconds / patches
        self.patch = max(now, (self.patch + now) / 2)

    def evaluated(self, seconds: float) -> None:
        """Record an evaluation of the bounds."""
        self.maps = max(seconds, (self.maps + seconds) / 2)

    def affordable(self, seconds: float) -> int:
        """Patches that can be searched and evaluated in that time."""
        return int(max(0.0, _SHARE * (seconds - self.maps)) / max(self.patch, 1e-9))


@dataclass(frozen=True)
class BoundedScores:
    """An image's patch scores with their bounds.

    Attributes:
        upper, lower: float32 (P,), ends of each patch's interval; equal for patches that were searched.
        nearest: int64 (P,), a nominal patch no farther than ``upper``; the nearest if the patch was searched.
        anomaly_map: float32 (H, W), the map of the upper ends.
        score_lower, score_upper: certified bounds of the image's score.
        complete: every patch was searched: upper, nearest and map are those of plain `predict`, to the bit.
        counts: of all searches.
    """

    upper: FloatArray
    lower: FloatArray
    nearest: IndexArray
    anomaly_map: FloatArray
    score_lower: float
    score_upper: float
    complete: bool
    counts: SearchCounts


@dataclass
class BoundedSearch:
    """The search of one image.

    Args:
        nominal: the nominal patches. scorer: theirs, with ``score="nearest"``: other scores are not monotone
            functions of the distance.
        rows: (P, D) float32, the image's descriptors.
        grid: (h, w), h * w = P.
        size, smoothing_sigma: of the map, as in `anomaly_map`.
        speed: of earlier images.
    """

    nominal: NominalModel
    scorer: Scorer
    rows: FloatArray
    grid: tuple[int, int]
    size: tuple[int, int]
    smoothing_sigma: float
    speed: SearchSpeed = field(default_factory=SearchSpeed)

    def run(self, threshold: float | None = None, deadline: float | None = None) -> BoundedScores:
        """Search until the verdict for ``threshold`` is certain, ``deadline`` (`time.perf_counter`) is near, or every
        patch was searched. The first search, of every ninth patch, is always done.
        """
        begun = time.perf_counter()
        scorer, bank, backend = self.scorer, self.scorer.bank, self.scorer.backend
        first = grid_bounds(self.rows, self.grid, bank, displaced=self._displaced, backend=backend)
        upper = scorer.of_squared(first.sq_upper).copy()
        lower = scorer.of_squared(first.sq_lower).copy()
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
            upper[chosen] = lower[chosen] = scorer.of_squared(found.sq_distance)
            nearest[chosen] = found.index
            unknown[chosen] = False
            counts = replace(counts + found.counts, pairs=counts.pairs)  # rounds look at the first search's pairs again
            self.speed.searched(len(chosen), time.perf_counter() - now)
            size *= 2
        return BoundedScores(upper, lower, nearest, upper_map, low, high, complete, counts)

    def _map(self, values: FloatArray) -> FloatArray:
        return anomaly_map(values.reshape(self.grid), self.size, self.smoothing_sigma)

    def _displaced(self, rows: IndexArray, down: IndexArray, right: IndexArray) -> IndexArray:
        return self.nominal.displaced(rows, down, right, self.grid)

    def _order(
        self, upper: FloatArray, lower: FloatArray, unknown: BoolArray, upper_map: FloatArray, decided: float
    ) -> IndexArray:
        """The unknown patches by descending priority, ties in the order of the grid."""
        excess = np.maximum(upper_map.astype(np.float64) - decided, 0.0)
        weight = back_projection(excess, self.grid, self.smoothing_sigma).ravel()
        with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity has no priority
            length = upper - lower
            priority = np.where(length > 0, weight * length, 0.0)
        numbers = np.flatnonzero(unknown)
        order = np.lexsort((-length[numbers], -np.nan_to_num(priority[numbers])))
        return np.asarray(numbers[order])
