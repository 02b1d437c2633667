"""What a fit says about itself: which training images lie above the threshold, and signs that the model is useless."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from ..array_types import DoubleArray, FloatArray, IndexArray
from ..method.arrangement import copies
from ..method.evidence import anomalous_share, evidence_threshold, expected_false_alarms
from ..method.nominal_model import NominalModel
from ..method.scoring import frame_of
from ..method.threshold import robust_threshold
from ..parameters import Parameters
from .reading import FitData

LOG = logging.getLogger(__name__)

LEAST_NOMINAL: Final = 0.02
"""Share of the patches that should be nominal at least."""
LEAST_COVERED: Final = 0.5
"""Share of the grid's places at which some image should have a nominal patch."""
MOST_UNEXPLAINED: Final = 0.5
"""Greatest share of the patches' variance that distances to the nominal patches should leave."""
MOST_ABOVE: Final = 0.4
"""Share of the training images that the threshold's rule takes for defective at most."""
_NAMED = 10
_MOST_COMPARED = 256  # images that are compared with all others; places are in random order
_FEW = 5  # scored images, of which no share says anything


def threshold_of(scores: FloatArray, p: Parameters) -> float:
    """The rule's threshold; scores of infinity, of images that alone have all nominal patches, do not count."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return 0.0
    if p.threshold_rule == "evidence":
        return evidence_threshold(finite, false_alarm_rate=p.false_alarm_rate)
    return robust_threshold(finite)


def judge(
    training: FitData,
    nominal: NominalModel,
    grid: tuple[int, int],
    sampled: IndexArray,
    scores: FloatArray,
    unexplained: DoubleArray,
    p: Parameters,
    counts: Mapping[str, Any],
) -> dict[str, Any]:
    """Counts and warnings for a fit's report; the warnings are logged.

    Args:
        sampled: int64 (n,), places of the scored images. scores: float32 (n,), their leave-one-image-out scores.
        unexplained: float64 (n,), squared distances of an image's patches to the other images' nominal patches, as a
            share of their squared distances to their own mean; NaN if the score is no distance.
        p: the fit's parameters. counts: the filters'.

    Returns:
        JSON-able: copies, near_copies, above_threshold (names, the highest score first), covered_places, unexplained
        (the median, or None) and warnings; with threshold_rule="evidence" also anomalous_share (estimate, low, high,
        level) and expected_false_alarms.
    """
    patches = frame_of(p, grid).count
    threshold = threshold_of(scores, p)
    above = sampled[np.argsort(-scores, kind="stable")][: int(np.count_nonzero(scores.astype(np.float64) > threshold))]
    copied, near = copies(training.arrangement, training.names), training.near_copies(sampled[:_MOST_COMPARED])
    covered = len(np.unique(nominal.patch_index))
    share = len(nominal) / (patches * len(training.arrangement))
    middle = float(np.median(unexplained))
    useless = "the model can hardly tell parts from defects"
    remedy = "give images that show the same kind of part in the same way, or more of them"
    if p.spread_filter and p.spread_rule == "literal" and counts["channels_spread_out"] > counts["channels_living"]:
        remedy = (
            f"the literal spread filter removed {counts['channels_spread_out']:,} of the "
            f"{counts['channels_spread_out'] + counts['channels_living']:,} channels that are long enough: "
            'spread_rule="about_mean" (--spread-rule about_mean) keeps even channels'
        )
    warnings = []
    if share < LEAST_NOMINAL:
        warnings.append(f"only {len(nominal):,} patches ({share:.1%}) are nominal, so that {useless}; {remedy}")
    if covered < LEAST_COVERED * patches:
        warnings.append(
            f"only {covered:,} of the {patches:,} places of the grid have a nominal patch in any image, so that "
            f"{useless}; {remedy}"
        )
    if middle > MOST_UNEXPLAINED or not np.isfinite(scores).all():
        what = f"{middle:.0%} of their variance" if np.isfinite(middle) else "all"
        warnings.append(
            f"the training images' patches are far from the other images' nominal patches ({what} is left), so that "
            f"{useless}; {remedy}"
        )
    if len(above) > MOST_ABOVE * len(sampled) and len(sampled) >= _FEW:
        warnings.append(
            f"{len(above)} of {len(sampled)} scored training images lie above the threshold, which withstands "
            f"{MOST_ABOVE:.0%} of defects; inspect them with `inreach audit`, and set threshold_ if they are good"
        )
    if copied:
        warnings.append(
            f"images that show exactly what another one shows: {len(copied)} ({copied[0][0]} is {copied[0][1]}"
            f"{', ...' if len(copied) > 1 else ''}); each content counts once"
        )
    if near:
        warnings.append(
            f"scored training images that look nearly the same as another: {len(near)} of "
            f"{min(len(sampled), _MOST_COMPARED)} ({near[0][0]} and {near[0][1]}{', ...' if len(near) > 2 else ''});"
            " if they are shots of one part, the threshold is too low: keep one image of each part"
        )
    for warning in warnings:
        LOG.warning("warning: %s", warning)
    return {
        **_signals(scores, threshold, p),
        "copies": len(copied),
        "copied_names": [list(pair) for pair in copied],
        "near_copies": [list(pair) for pair in near],
        "above_threshold": [
            training.names[i] for place in above.tolist() for i in np.flatnonzero(training.arrangement.place == place)
        ],
        "covered_places": covered,
        "unexplained": middle if np.isfinite(middle) else None,
        "warnings": warnings,
    }


def _signals(scores: FloatArray, threshold: float, p: Parameters) -> dict[str, Any]:
    finite = scores[np.isfinite(scores)]
    if p.threshold_rule != "evidence" or not len(finite):
        return {}
    share, expected = anomalous_share(finite), expected_false_alarms(finite, threshold)
    return {"anomalous_share": asdict(share), "expected_false_alarms": expected}


def named(names: Sequence[str]) -> str:
    """``3 (a.png, b.png, c.png)``; of many the first ten."""
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{more})"
