"""Scores that stop being proven once enough is known: a verdict for a threshold, an answer within a time.

Every patch has a certified interval for its distance to the nearest nominal patch: from a glance, which searches
every ninth (`grid_bounds`), and shrunk to a point for those that were searched since. An image's score lies
between the scores of the lower and of the upper ends, as floating-point numbers and without any slack:

*Theorem.* Let l <= s <= u, elementwise, be float32 patch scores. Then image_score(anomaly_map(l)) <=
image_score(anomaly_map(s)) <= image_score(anomaly_map(u)), as computed.
*Proof.* Rounding to nearest is monotone: a <= b implies fl(a) <= fl(b). The map is made of these steps, always
the same ones in the same order: the conversion to float64 (exact), infinity put down to the greatest float32
(monotone), products with the operators' weights, sums, the conversion to float32, a maximum. The weights are
sums of products of a Gaussian's values with zeros and ones, none of them negative, so that fl(w a) <= fl(w b)
for a <= b; and a <= b, c <= d imply fl(a + c) <= fl(b + d). A composition of monotone steps is monotone. ∎

The square root of ``distance="l2"`` is correctly rounded, thus monotone as well: intervals of squared distances
become intervals of scores. So an image is anomalous for certain once the lower end's score exceeds the
threshold, and good for certain once the upper end's does not, and what plain `predict` would say is known
although it was not computed.

What is searched, and when. Pixels whose upper end exceeds what is to be decided (the threshold; without one,
the greatest lower end) are open, by as much as they exceed it. A patch matters by its interval's length times
its weight on the open pixels. Patches are searched in rounds, the ones that matter most first. Rounds grow
twofold, since bounds must be weighed anew after each; under a budget they are no larger than the time that is
left allows, at the speed measured so far.

Until then a patch's score is its upper end, about the distance to a nominal patch that was found, so that map,
scores and nearest patches agree with each other, and what is uncertain errs towards an anomaly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import kernels
from ..array_types import BoolArray, DoubleArray, FloatArray, IndexArray
from ..errors import ParameterError
from ..kernels import SearchCounts
from ..method.scoring import Scorer, back_projection, image_score
from .grid_bounds import Beside, grid_bounds

FIRST_ROUND = 128
LEAST_ROUND = 32
# Of the time that is left, what a round may be expected to take: speeds vary from patch to patch.
_SHARE = 0.8


@dataclass(frozen=True)
class Limits:
    """What ends the proving of a score early; checked.

    Attributes:
        threshold: stop once it is certain on which side of it the score lies; None: no such end.
        budget: seconds from the call that everything may take; None: no such end.

    Raises:
        ParameterError: a threshold that is no finite number; a budget of nothing, less, or no number.
    """

    threshold: float | None = None
    budget: float | None = None

    @classmethod
    def of(cls, threshold: Any, budget_ms: Any) -> Limits:
        """From the arguments of `InReaCh.predict`."""
        limit = None if threshold is None else _number(threshold, "threshold")
        if budget_ms is None:
            return cls(limit)
        budget = _number(budget_ms, "budget_ms")
        if budget <= 0:
            raise ParameterError(
                f"budget_ms: expected more than 0 milliseconds, got {budget_ms!r}; leave it out for the whole search"
            )
        return cls(limit, budget / 1e3)

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
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
class Pace:
    """How long searching takes on this machine; kept from image to image, so that budgets are met.

    Attributes:
        patch: seconds to search one patch, 0 while unknown.
        maps: seconds to weigh the bounds once (two maps).
    """

    patch: float = 0.0
    maps: float = 0.0

    def searched(self, patches: int, seconds: float) -> None:
        """Takes note of a round. The slower of the last and the usual counts: a budget is a promise."""
        now = seconds / patches
        self.patch = max(now, (self.patch + now) / 2)

    def weighed(self, seconds: float) -> None:
        """Takes note of a weighing."""
        self.maps = max(seconds, (self.maps + seconds) / 2)

    def affordable(self, seconds: float) -> int:
        """Patches that can be searched and weighed in that time."""
        return int(max(0.0, _SHARE * (seconds - self.maps)) / max(self.patch, 1e-9))


@dataclass(frozen=True)
class BoundedScores:
    """An image's patch scores as far as they were proven.

    Attributes:
        upper, lower: float32 (P,), ends of each patch's interval; equal where the score is known.
        nearest: int64 (P,), a nominal patch no farther than ``upper``; the nearest where that was searched.
        anomaly_map: float32 (H, W), the map of the upper ends.
        score_lower, score_upper: certified ends of the image's score.
        complete: every patch was searched: upper, nearest and map are plain `predict`'s, to the bit.
        counts: what the searches did in all; None where the backend does not count.
    """

    upper: FloatArray
    lower: FloatArray
    nearest: IndexArray
    anomaly_map: FloatArray
    score_lower: float
    score_upper: float
    complete: bool
    counts: SearchCounts | None

    def certain(self, threshold: float) -> bool:
        """Whether the side of ``threshold`` on which the score lies is proven."""
        return self.score_lower > threshold or self.score_upper <= threshold


@dataclass
class BoundedSearch:
    """One image's search, from a glance to the answer.

    Args:
        scorer: of `score="nearest"`: the other scores are no monotone function of the distance.
        rows: (P, D) float32, the image's descriptors.
        grid: (h, w), h * w = P.
        beside: see `grid_bounds`.
        to_map: (P,) float32 patch scores to the smoothed map, float32 (H, W).
        weigh: (H, W) float64 values of pixels to (P,): their sums under each patch's weights.
        pace: of earlier images.
    """

    scorer: Scorer
    rows: FloatArray
    grid: tuple[int, int]
    beside: Beside | None
    to_map: Callable[[FloatArray], FloatArray]
    weigh: Callable[[DoubleArray], DoubleArray]
    pace: Pace = field(default_factory=Pace)

    def run(self, threshold: float | None = None, deadline: float | None = None) -> BoundedScores:
        """Searches until the verdict on ``threshold`` is certain, ``deadline`` (`time.perf_counter`) is near, or
        all is known. The glance is always made.
        """
        begun = time.perf_counter()
        bank, backend = self.scorer.bank, self.scorer.backend
        glance = grid_bounds(self.rows, self.grid, bank, beside=self.beside, backend=backend)
        upper = self.scorer.of_squared(glance.sq_upper).copy()
        lower = self.scorer.of_squared(glance.sq_lower).copy()
        nearest, unknown, counts = glance.index, ~glance.searched, [glance.counts]
        self.pace.searched(int(glance.searched.sum()), time.perf_counter() - begun)
        size = FIRST_ROUND
        while True:
            begun = time.perf_counter()
            upper_map = self.to_map(upper)
            lower_map = self.to_map(lower) if unknown.any() else upper_map
            low, high = image_score(lower_map), image_score(upper_map)
            certain = threshold is not None and (low > threshold or high <= threshold)
            complete = not unknown.any()
            if certain or complete:
                break
            with np.errstate(invalid="ignore"):  # of infinity and infinity, which _order counts as nothing
                length = upper - lower
            order = self._order(length, unknown, upper_map, low if threshold is None else threshold)
            now = time.perf_counter()
            self.pace.weighed(now - begun)
            if deadline is not None:
                affordable = self.pace.affordable(deadline - now)
                if affordable < min(LEAST_ROUND, len(order)):
                    break
                if threshold is None and affordable >= len(order):
                    size = len(order)  # all of it will be needed: why stop in between
                size = min(size, affordable)
            chosen = order[:size]
            found = kernels.nearest(self.rows[chosen], bank, hint=nearest[chosen], backend=backend)
            upper[chosen] = lower[chosen] = self.scorer.of_squared(found.sq_distance)
            nearest[chosen] = found.index
            unknown[chosen] = False
            counts.append(found.counts)
            self.pace.searched(len(chosen), time.perf_counter() - now)
            size *= 2
        return BoundedScores(upper, lower, nearest, upper_map, low, high, complete, total_counts(counts))

    def _order(self, length: FloatArray, unknown: BoolArray, upper_map: FloatArray, decided: float) -> IndexArray:
        """The unknown patches, the one that matters most first; ties in the order of the grid."""
        excess = np.maximum(upper_map.astype(np.float64) - decided, 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            matters = np.where(length > 0, self.weigh(excess) * length, 0.0)
        numbers = np.flatnonzero(unknown)
        order = np.lexsort((-length[numbers], -np.nan_to_num(matters[numbers])))
        return np.asarray(numbers[order])


def bounded_scores(
    scorer: Scorer,
    rows: FloatArray,
    grid: tuple[int, int],
    size: tuple[int, int],
    smoothing_sigma: float,
    to_map: Callable[[FloatArray], FloatArray],
    *,
    beside: Beside | None = None,
    threshold: float | None,
    deadline: float | None,
    pace: Pace,
) -> BoundedScores:
    """Scores of one image's patches ((P, D) float32 in a (h, w) grid), proven as far as the limits ask."""
    return BoundedSearch(
        scorer,
        rows,
        grid,
        beside,
        lambda values: to_map(values.reshape(grid)),
        lambda pixels: back_projection(pixels, grid, smoothing_sigma).ravel(),
        pace,
    ).run(threshold, deadline)


def whole_scores(scorer: Scorer, rows: FloatArray, to_map: Callable[[FloatArray], FloatArray]) -> BoundedScores:
    """Scores of one image's patches, all of them searched at once; any kind of score."""
    found = kernels.nearest(rows, scorer.bank, backend=scorer.backend)
    values = scorer.scores_of(rows, found)
    smoothed = to_map(values)
    score = image_score(smoothed)
    return BoundedScores(values, values, found.index, smoothed, score, score, True, found.counts)


def total_counts(counts: list[SearchCounts | None]) -> SearchCounts | None:
    """Sums of the counts; None where any is not known."""
    known = [one for one in counts if one is not None]
    if len(known) < len(counts) or not known:
        return None
    return SearchCounts(
        pairs=max(one.pairs for one in known),  # the glance's: later rounds look at the same pairs again
        bounded=sum(one.bounded for one in known),
        refined=sum(one.refined for one in known),
        decided=sum(one.decided for one in known),
        brute_force=any(one.brute_force for one in known),
    )
