"""How far predictions with a network in half precision differ from those in float32.

Kernels are exact in either case; the network's features differ. No bound tells how much a score changes: it is
measured, on given images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..images.source import open_images


@dataclass(frozen=True)
class Disagreement:
    """Predictions in half precision compared with float32.

    Attributes:
        precision: "float16" or "bfloat16".
        images: number of images.
        verdicts: images whose ``is_anomalous`` differs.
        nearest: share of patches whose nearest nominal patch differs.
        largest_score_change: greatest |difference| of an image's score, relative to the float32 score.
        largest_patch_change: greatest |difference| of a patch's score, relative to the image's greatest one.
    """

    precision: str
    images: int
    verdicts: int
    nearest: float
    largest_score_change: float
    largest_patch_change: float


def disagreement(model: Any, images: Iterable[Any], precision: str = "float16") -> Disagreement:
    """Scores images twice, in float32 and in ``precision``.

    Args:
        model: a fitted `InReaCh`; its ``precision`` is restored afterwards.
        images: an iterable of single images, or what `InReaCh.predict` takes.

    Raises:
        ParameterError: unknown precision, no image. What `InReaCh.predict` raises.
    """
    if precision == "float32":
        raise ParameterError("precision: float32 is the reference; give 'float16' or 'bfloat16'")
    source = open_images(images, rule=model.pixel_rule)
    before = model.precision
    verdicts = nearest = patches = 0
    score_change = patch_change = 0.0
    try:
        for _, image in source:
            model.precision = "float32"
            full = model.predict(image)
            model.precision = precision
            half = model.predict(image)
            verdicts += int(full.is_anomalous != half.is_anomalous)
            nearest += int(np.count_nonzero(full.nearest != half.nearest))
            patches += full.nearest.size
            score_change = max(score_change, _relative(half.score - full.score, full.score))
            change = float(np.max(np.abs(half.patch_scores - full.patch_scores)))
            patch_change = max(patch_change, _relative(change, float(np.max(full.patch_scores))))
    finally:
        model.precision = before
    return Disagreement(precision, len(source), verdicts, nearest / patches, score_change, patch_change)


def _relative(difference: float, whole: float) -> float:
    return abs(difference) / whole if whole > 0.0 else float(difference != 0.0)
