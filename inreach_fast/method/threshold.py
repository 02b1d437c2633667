"""A threshold without labels, from the training images' own leave-one-image-out scores.

The rule, on the logarithms of the scores, sorted:

1. The lowest 60 % are the core; m is its median, M its greatest score.
2. t = m + 3 * (1 + 1.5 / n) * s, where s is the lower half-deviation of the core's n scores: the root mean square of
   (m - x) over the x up to m (at least 0.1). No (m - x) counts for more than three times the median of |x - m| over the
   core (or 0.1), and t is M + log 10 at most.
3. Every score up to t joins the core; steps 2 and 3 are repeated until none joins. The threshold is exp(t).

Reasons. Defects in the training images raise scores, so that with at most 40 % of them the lowest 60 % are good
images; with fewer defects, step 3 adds the other good images and stops at the gap before the defects. Median and lower
half-deviation depend on the lower half of the core alone, hence never on a defect: in logarithms
t <= g + 3 * (1 + 1.5 / n) * (g - least), with g the greatest score of a good image, whatever the other 40 % are. A
mean, a standard deviation or a high quantile has no such bound. Scores are positive and skewed to the right, hence the
logarithms; they also make the decision the same for squared and plain distances, except where the minimum of 0.1 or the
maximum of log 10 applies (without the minimum a few nearly equal scores would give a threshold that every new image
exceeds). 1.5 / n allows for the uncertainty of s with few images. A single low score (one of two shots of a part, say)
would raise s without limit, hence the two limits of step 2.

**Bound.** Whatever the scores are, with zeros raised to the least positive score:
least <= median(core) <= threshold <= 10 * max(core) <= 10 * greatest. Proof: s > 0, so that
t = min(m + 3 (1 + 1.5 / n) s, M + log 10) is at least min(m, M) = m and at most M + log 10, and every core is a
non-empty part of the scores. The repetition ends, since n only grows and is at most the number of scores. If more than
half of a core are equal scores c, the median of |x - m| is 0, so that its t is at most log c + 0.3 * (1 + 1.5 / n).

In simulations (log-normal, Gumbel and gamma scores, 10 to 64 images, 0 to 40 % of defects) 0 to 9 % of new good images
exceed the threshold, 2 % or less from 64 images on.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from ..array_types import IndexArray, UInt8Array
from ..errors import ParameterError
from .arrangement import ranked_images

CORE_SHARE = 0.6
DEVIATIONS = 3.0
LEAST_DEVIATION = 0.1
SMALL_SAMPLE = 1.5
MOST_SPREADS = 3.0
MOST_ABOVE = math.log(10.0)
_GREATEST = math.log(sys.float_info.max)


def sample_images(digests: UInt8Array, count: int, random_state: int) -> IndexArray:
    """The training images to be scored, ascending: the first ``count`` (all if fewer) of `ranked_images`."""
    return np.sort(ranked_images(digests, random_state)[:count])


def robust_threshold(scores: Any) -> float:
    """The threshold for image scores, by the rule in the module's docstring.

    Args:
        scores: (n,) leave-one-image-out image scores, finite, not negative; up to 40 % may be defects'.

    Returns:
        The threshold, in the scores' unit: an image is anomalous if its score exceeds it. 0 if all scores are 0. It is
        between the least positive score and ten times the greatest (proof: the module's docstring).

    Raises:
        ParameterError: no score, or one that is negative or not finite.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not len(values) or not np.isfinite(values).all() or values[0] < 0:
        raise ParameterError("scores: expected at least one score, finite and not negative")
    if values[-1] == 0:
        return 0.0
    # A score of 0 has no logarithm: it takes the least positive score.
    logs = np.log(np.maximum(values, values[values > 0][0]))
    n = math.ceil(CORE_SHARE * len(logs) - 1e-9)
    while True:
        median = float(np.median(logs[:n]))
        spread = float(np.median(np.abs(logs[:n] - median)))
        below = np.minimum(median - logs[:n][logs[:n] <= median], max(MOST_SPREADS * spread, LEAST_DEVIATION))
        deviation = max(float(np.sqrt(np.mean(below * below))) * (1 + SMALL_SAMPLE / n), LEAST_DEVIATION)
        limit = min(median + DEVIATIONS * deviation, float(logs[n - 1]) + MOST_ABOVE)
        grown = max(n, int(np.searchsorted(logs, limit, side="right")))
        if grown == n:
            return math.exp(min(limit, _GREATEST))
        n = grown
