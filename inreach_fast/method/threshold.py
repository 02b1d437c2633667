"""A threshold without labels, from the training images' own leave-one-image-out scores.

The rule, on the logarithms of the scores, sorted:

1. The lowest 60 % are the core.
2. t = median(core) + 3 * (1 + 1.5 / n) * s, where s is the lower half-deviation of the core's n scores: the
   root mean square of (median - x) over the x up to the median (at least 0.1).
3. Every score up to t joins the core; steps 2 and 3 are repeated until none joins. The threshold is exp(t).

Reasons. Defects in the training images raise scores, so that with at most 40 % of them the lowest 60 % are good
images; with fewer defects, step 3 adds the other good images and stops at the gap before the defects. Median and lower
half-deviation depend on the lower half of the core alone, hence never on a defect: in logarithms
t <= m + 3 * (1 + 1.5 / n) * (m - least), with m the greatest score of a good image, whatever the other 40 % are. A
mean, a standard deviation or a high quantile has no such bound. Scores are positive and skewed to the right, hence the
logarithms; they also make the decision the same for squared and plain distances, except where the minimum of 0.1
applies (without it a few nearly equal scores would give a threshold that every new image exceeds). 1.5 / n allows for
the uncertainty of s with few images. In simulations (log-normal, Gumbel and gamma scores, 10 to 64 images, 0 to 40 % of
defects) 0 to 8 % of new good images exceed the threshold, 3 % or less from 64 images on.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from ..array_types import IndexArray, UInt8Array
from ..errors import ParameterError

CORE_SHARE = 0.6
DEVIATIONS = 3.0
LEAST_DEVIATION = 0.1
SMALL_SAMPLE = 1.5


def ranked_images(digests: UInt8Array, random_state: int) -> IndexArray:
    """All training images in the order in which they are drawn for scoring, int64 (N,).

    They are sorted by the sha256 of ``random_state`` and the image's digest, ties by image number. So the draw depends
    on what an image shows and not on its number, and one more image or one less changes the sample by one.

    Args:
        digests: uint8 (N, 32), sha256 of each image's bytes.
        random_state: the seed.
    """
    start = random_state.to_bytes(8, "little")
    keys = [hashlib.sha256(start + digest.tobytes()).digest() for digest in digests]
    return np.array(sorted(range(len(keys)), key=lambda i: (keys[i], i)), dtype=np.int64)


def sample_images(digests: UInt8Array, count: int, random_state: int) -> IndexArray:
    """The training images to be scored, ascending: the first ``count`` (all if fewer) of `ranked_images`."""
    return np.sort(ranked_images(digests, random_state)[:count])


def robust_threshold(scores: Any) -> float:
    """The threshold for image scores, by the rule in the module's docstring.

    Args:
        scores: (n,) leave-one-image-out image scores, finite, not negative; up to 40 % may be defects'.

    Returns:
        The threshold, in the scores' unit: an image is anomalous if its score exceeds it. 0 if all scores are 0.

    Raises:
        ParameterError: no score, or one that is negative or not finite.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not len(values) or not np.isfinite(values).all() or values[0] < 0:
        raise ParameterError("scores: expected at least one score, finite and not negative")
    if values[-1] == 0:
        return 0.0
    # Copies of an image score 0, which has no logarithm: they take the least positive score.
    logs = np.log(np.maximum(values, values[values > 0][0]))
    n = math.ceil(CORE_SHARE * len(logs) - 1e-9)
    while True:
        median = float(np.median(logs[:n]))
        below = median - logs[:n][logs[:n] <= median]
        deviation = max(float(np.sqrt(np.mean(below * below))) * (1 + SMALL_SAMPLE / n), LEAST_DEVIATION)
        limit = median + DEVIATIONS * deviation
        grown = max(n, int(np.searchsorted(logs, limit, side="right")))
        if grown == n:
            return math.exp(limit)
        n = grown
