"""How far predictions of a network in half precision disagree with float32's.

Kernels are exact in any case; it is the network's features that differ. What that does to a score no bound tells: it
is measured, on the images at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..estimator import InReaCh


@dataclass(frozen=True)
class Disagreement:
    """Predictions in half precision against those in float32.

    Attributes:
        precision: "float16" or "bfloat16".
        images: how many were compared.
        verdicts: images of which ``is_anomalous`` differs.
        nearest: share of patches whose nearest nominal patch is another one.
        largest_score_change: the greatest |difference| of an image's score, relative to the float32 score.
        largest_patch_change: the greatest |difference| of a patch's score, relative to the image's greatest one.
    """

    precision: str
    images: int
    verdicts: int
    nearest: float
    largest_score_change: float
    largest_patch_change: float


def disagreement(model: InReaCh, images: Iterable[Any], precision: str = "float16") -> Disagreement:
    """Scores images twice, in float32 and in ``precision``.

    Args:
        model: fitted; its ``precision`` is as before afterwards.
        images: single images or what `InReaCh.predict` takes; read once, kept as they are given.

    Raises:
        ParameterError: unknown precision, no image. What `InReaCh.predict` raises.
    """
    from ..errors import ParameterError
    from ..images.source import open_images

    source = open_images(images if hasattr(images, "__getitem__") or isinstance(images, str) else list(images))
    before = model.precision
    verdicts = other_rows = patches = 0
    score_change = patch_change = 0.0
    if precision == "float32":
        raise ParameterError("precision: float32 is what the others are compared with; give 'float16' or 'bfloat16'")
    try:
        for i in range(len(source)):
            image = source.load(i)
            model.precision = "float32"
            full = model.predict(image)
            model.precision = precision
            half = model.predict(image)
            verdicts += int(full.is_anomalous != half.is_anomalous)
            other_rows += int(np.count_nonzero(full.nearest != half.nearest))
            patches += full.nearest.size
            score_change = max(score_change, _relative(half.score - full.score, full.score))
            change = float(np.max(np.abs(half.patch_scores - full.patch_scores)))
            patch_change = max(patch_change, _relative(change, float(np.max(full.patch_scores))))
    finally:
        model.precision = before
    return Disagreement(precision, len(source), verdicts, other_rows / patches, score_change, patch_change)


def _relative(difference: float, whole: float) -> float:
    return abs(difference) / whole if whole > 0.0 else float(difference != 0.0)
