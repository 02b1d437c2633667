"""What a folder's own scores say about it: a threshold, the share of anomalous images, false alarms to be expected.

Everything starts from the image scores of the training images under leave-one-image-out, in which an image is scored
as a new one would be: neither its patches nor its testimony about others count. Then the good training images and a
good new image are exchangeable, and what holds for the ones holds for the other.

*Model.* With x the logarithm of a score, an image is good with probability 1 - p and x is normal(m, s); or anomalous,
with probability p, and x is normal(M, S). An anomaly raises scores and makes them more varied: M >= m + s, S >= s,
p <= 1/2. Scores are maxima of sums of positive terms, whence the logarithm, which also makes all answers independent
of the scores' unit. An image of a higher score is never the more likely to be good: where the wider normal would claim
the lowest scores again, the odds stay at their least.

*Prior*, worth a few images, which decides where a folder has few or no anomalous images to learn from: p as if 1 of 10
further images had been anomalous; M as if 2 had lain at m + 3 s; S as if 3 had had the deviation 1.5 s. Fit:
expectation maximisation of the posterior from several starts (Dempster, Laird, Rubin 1977; McLachlan and Peel 2000),
at most `_STEPS` deterministic steps each.

*Threshold.* Without a rate asked for: the score that is as probable for an anomalous as for a good image, which
minimises the mean of false-alarm and miss rate. Under the prior alone that is m + 1.4 s, at which 8 % of good images
are flagged; the further the folder's anomalous images stand apart, the fewer. Where they overlap the good ones, some 10
to 15 %. The prior's rate has a reason of its own: let the two groups be normal with equal deviations, d of them apart.
A rate of 8 % costs at most 0.045 over the best rate for every d from 1.5 on; no fixed rate has a bound under 0.04.

With a rate asked for: the conformal quantile (Vovk, Gammerman, Shafer 2005) of the training scores, each weighted by
its probability of being good, which assumes nothing of the scores' shape; where there are too few good images for that
rate (1 / rate - 1 are needed), the model's quantile. In simulations with 100 images the mean rate is kept with
anomalous images in the folder, and is a fifth to two fifths over the one asked for without (2.8 % for 2 %), since
the highest good scores then count as anomalous in part. A single folder's rate varies about that by the chance of its
few highest scores.

*What must fail.* Anomalous images whose scores lie among the good ones' cannot be told apart: the share comes out too
low. A good image like no other counts as anomalous. Scores of two products in one folder make two groups, the rarer or
more varied one of which looks anomalous. Above 40 % of anomalous images the two components can change places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import ndtr

from ..array_types import DoubleArray
from ..errors import ParameterError

PRIOR_ANOMALOUS, PRIOR_GOOD = 1.0, 9.0
PRIOR_GAP, GAP_IMAGES = 3.0, 2.0
PRIOR_RATIO, RATIO_IMAGES = 1.5, 3.0
LEAST_DEVIATION = 0.05
MOST_ANOMALOUS = 0.5
_STARTS = (0.02, 0.1, 0.2, 0.3, 0.4)
_STEPS, _ENOUGH = 200, 1e-6
_SHARES = tuple(i / 50 for i in range(26))
"""Shares over which the interval is formed."""


@dataclass(frozen=True, eq=False)
class ScoreMixture:
    """Two groups of image scores, in logarithms.

    Attributes:
        share: probability p that an image is anomalous, 0 to 0.5.
        centre, deviation: m and s, of the good images.
        anomalous_centre, anomalous_deviation: M and S.
        good: float64 (n,), for each score the probability that its image is good.
        log_posterior: of the fit, up to a constant.
    """

    share: float
    centre: float
    deviation: float
    anomalous_centre: float
    anomalous_deviation: float
    good: DoubleArray
    log_posterior: float

    def balanced_threshold(self) -> float:
        """The score, between the centres, that is equally probable in both groups."""
        # (x - m)^2 / s^2 - (x - M)^2 / S^2 = 2 log(S / s), with x = m + u s.
        gap = (self.anomalous_centre - self.centre) / self.deviation
        wide = self.anomalous_deviation / self.deviation
        a, b, c = wide * wide - 1.0, gap, gap * gap + 2.0 * wide * wide * math.log(wide)
        u = c / (b + math.sqrt(b * b + a * c))  # the larger root of a u^2 + 2 b u = c, whatever a
        return math.exp(self.centre + min(u, gap) * self.deviation)

    def quantile(self, level: float) -> float:
        """The score that a good image exceeds with probability ``1 - level``, by the model."""
        return math.exp(self.centre + NormalDist().inv_cdf(level) * self.deviation)


@dataclass(frozen=True)
class ShareEstimate:
    """Share of anomalous images in a folder: the estimate, and an interval that holds it with probability ``level``."""

    estimate: float
    low: float
    high: float
    level: float


def fit_mixture(scores: Any, *, share: float | None = None) -> ScoreMixture:
    """Fits the model of the module's docstring.

    Args:
        scores: (n,) leave-one-image-out image scores, finite, not negative, one of them positive.
        share: fixes p; None estimates it.

    Raises:
        ParameterError: no score, one that is negative or not finite, or only zeros.
    """
    values = _checked(scores)
    if values.max() == 0:
        raise ParameterError("scores: all are 0, the images are copies of each other; give more than one image")
    order = np.argsort(values, kind="stable")  # sums then do not depend on the order of the images
    x = _logarithms(values[order])
    fits = [_fit(x, start, share) for start in ((share,) if share is not None else _STARTS)]
    best = max(fits, key=lambda fit: fit.log_posterior)  # the first of equals
    good = np.empty(len(values))
    good[order] = best.good
    return replace(best, good=good)


def evidence_threshold(scores: Any, *, false_alarm_rate: float | None = None) -> float:
    """The threshold without labels: an image is anomalous if its score exceeds it.

    Args:
        scores: (n,) leave-one-image-out image scores, finite, not negative; up to 40 % may be of anomalous images.
        false_alarm_rate: share of good images that may be flagged, above 0 and below 1; None: the balanced threshold.

    Returns:
        The threshold, in the scores' unit. 0 if all scores are 0.

    Raises:
        ParameterError: no score, one that is negative or not finite; the rate.
    """
    values = _checked(scores)
    rate = None if false_alarm_rate is None else check_rate(false_alarm_rate)
    if values.max() == 0:
        return 0.0
    mixture = fit_mixture(values)
    if rate is None:
        return mixture.balanced_threshold()
    order = np.argsort(values, kind="stable")
    rates = _false_alarm_rates(mixture.good[order])
    # Of equal scores the last one counts: none of them exceeds itself.
    first = int(np.searchsorted(-rates, -rate * (1 + 1e-12)))
    if first < len(values):
        return max(float(values[order[first]]), float(values[values > 0].min()))
    return mixture.quantile(1.0 - rate)


def expected_false_alarms(scores: Any, threshold: float) -> float:
    """Share of good new images that will exceed ``threshold``: (1 + good ones above) / (1 + good ones), conformal.

    It is valid as an upper bound of the expected share if new images come from where the good training images do
    (exchangeability), and as far as the probabilities of being good are right.

    Args:
        scores: as for `evidence_threshold`. threshold: in the scores' unit.

    Returns:
        A rate from 1 / (1 + n) to 1: a folder of n images cannot promise less than 1 / (1 + n).
    """
    values = _checked(scores)
    good = fit_mixture(values).good if values.max() > 0 else np.ones(len(values))
    return float((1.0 + good[values > threshold].sum()) / (1.0 + good.sum()))


def anomalous_share(scores: Any, *, level: float = 0.9) -> ShareEstimate:
    """Share of anomalous images among those scored.

    The number of anomalous images has, for a given p, mean and variance of a sum of independent yes-or-no's, one for
    each image; p is weighted by its profile posterior. Well separated groups give a narrow interval (their number is
    seen), overlapping ones a wide one.

    Args:
        scores: as for `evidence_threshold`. level: of the interval, above 0 and below 1.
    """
    values = _checked(scores)
    level = check_rate(level, "level")
    if values.max() == 0:
        return ShareEstimate(0.0, 0.0, 0.0, level)
    fits = [fit_mixture(values, share=max(share, 1e-4)) for share in _SHARES]
    weight = np.exp([fit.log_posterior - max(fit.log_posterior for fit in fits) for fit in fits])
    weight /= weight.sum()
    bad = np.array([1.0 - fit.good for fit in fits])
    mean, variance = bad.sum(axis=1), (bad * (1.0 - bad)).sum(axis=1)
    n = len(values)
    below = _distribution(np.arange(n + 1, dtype=np.float64), mean, np.sqrt(variance), weight)
    low, high = (min(int(np.searchsorted(below, q)), n) for q in ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    # The mean is no whole number of images, and can lie beside an interval of one.
    return ShareEstimate(min(max(float(weight @ mean), low), high) / n, low / n, high / n, level)


def check_rate(value: Any, name: str = "false_alarm_rate") -> float:
    """A number above 0 and below 1; ParameterError otherwise."""
    try:
        rate = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0.0 < rate < 1.0:
        raise ParameterError(f"{name}: expected a number above 0 and below 1, got {value!r}; 0.02 means 2 %")
    return rate


def _checked(scores: Any) -> DoubleArray:
    values = np.asarray(scores, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all() or values.min() < 0:
        raise ParameterError("scores: expected at least one score, finite and not negative")
    return values


def _logarithms(values: DoubleArray) -> DoubleArray:
    # Copies of an image score 0, which has no logarithm: they take the least positive score.
    return np.asarray(np.log(np.maximum(values, values[values > 0].min())))


def _false_alarm_rates(good: DoubleArray) -> DoubleArray:
    """Conformal false-alarm rate at each of the ascending scores, whose probabilities of being good are given."""
    above = good.sum() - np.cumsum(good)
    return np.asarray((1.0 + np.maximum(above, 0.0)) / (1.0 + good.sum()))


def _distribution(at: DoubleArray, mean: DoubleArray, deviation: DoubleArray, weight: DoubleArray) -> DoubleArray:
    """P(count <= at) of a mixture of rounded normals."""
    z = (at[:, None] + 0.5 - mean) / np.maximum(deviation, 1e-3)
    return np.asarray(ndtr(z) @ weight)


def _fit(x: DoubleArray, start: float, fixed: float | None) -> ScoreMixture:
    """One ascent from the split that calls the highest ``start`` of the scores anomalous."""
    n = len(x)
    called = min(max(round(start * n), 1), n - 1)
    bad = np.zeros(n)
    bad[np.argsort(x, kind="stable")[n - called :]] = 1.0
    p, previous = start, -math.inf
    for _ in range(_STEPS):
        total = float(bad.sum())
        good_images = max(n - total, 1e-9)
        if fixed is None:
            p = min((total + PRIOR_ANOMALOUS) / (n + PRIOR_ANOMALOUS + PRIOR_GOOD), MOST_ANOMALOUS)
        m = float(((1.0 - bad) @ x) / good_images)
        s = max(math.sqrt(float((1.0 - bad) @ (x - m) ** 2) / good_images), LEAST_DEVIATION)
        expected = m + PRIOR_GAP * s
        big = max((float(bad @ x) + GAP_IMAGES * expected) / (total + GAP_IMAGES), m + s)
        squares = float(bad @ (x - big) ** 2) + GAP_IMAGES * (expected - big) ** 2
        squares += RATIO_IMAGES * (PRIOR_RATIO * s) ** 2
        wide = max(math.sqrt(squares / (total + GAP_IMAGES + RATIO_IMAGES)), s)
        # The odds of being anomalous rise from here on.
        least = m if wide == s else (m / s**2 - big / wide**2) / (1 / s**2 - 1 / wide**2)
        y = np.maximum(x, least) if wide > s else x
        odds = 0.5 * ((y - m) / s) ** 2 - 0.5 * ((y - big) / wide) ** 2 + math.log(p / (1 - p) * s / wide)
        bad = 1.0 / (1.0 + np.exp(-np.clip(odds, -500.0, 500.0)))
        fit = float((-0.5 * ((x - m) / s) ** 2 - math.log(s) + math.log1p(-p) + np.logaddexp(0.0, odds)).sum())
        fit += PRIOR_ANOMALOUS * math.log(p) + PRIOR_GOOD * math.log1p(-p)
        fit -= 0.5 * GAP_IMAGES * ((expected - big) / wide) ** 2 + 0.5 * RATIO_IMAGES * (PRIOR_RATIO * s / wide) ** 2
        fit -= (GAP_IMAGES + RATIO_IMAGES) * math.log(wide / s)
        if abs(fit - previous) < _ENOUGH:
            break
        previous = fit
    return ScoreMixture(p, m, s, big, wide, 1.0 - bad, fit)
