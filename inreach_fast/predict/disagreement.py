"""How far predictions differ with a network in half precision, or by another runtime.

Kernels are exact in either case; the network's features differ. No bound tells how much a score changes: it is
measured, on given images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..images.source import open_images


@dataclass(frozen=True)
class Disagreement:
    """Predictions in another precision or by another runtime, compared with the model's own.

    Attributes:
        precision: of the network's products: "float32", "float16" or "bfloat16".
        images: number of images.
        verdicts: images whose ``is_anomalous`` differs.
        nearest: share of patches whose nearest nominal patch differs.
        largest_score_change: greatest |difference| of an image's score, relative to the model's own.
        largest_patch_change: greatest |difference| of a patch's score, relative to the image's greatest one.
        runtime: that computed the network. own_runtime: that it is compared with, the fit's.
        largest_feature_change: greatest |difference| of a descriptor's value, relative to the image's greatest one.
        auroc, own_auroc: of the images' scores, compared and the model's own; None without ``labels``.
    """

    precision: str
    images: int
    verdicts: int
    nearest: float
    largest_score_change: float
    largest_patch_change: float
    runtime: str = ""
    own_runtime: str = ""
    largest_feature_change: float = 0.0
    auroc: float | None = None
    own_auroc: float | None = None


def disagreement(
    model: Any,
    images: Iterable[Any],
    precision: str | None = None,
    *,
    runtime: str | None = None,
    labels: Sequence[bool] | None = None,
) -> Disagreement:
    """Scores images twice: as the model was fitted, and in another ``precision`` or by another ``runtime``.

    Args:
        model: a fitted `InReaCh`; its ``precision`` and ``backbone_runtime`` are restored afterwards.
        images: an iterable of single images, or what `InReaCh.predict` takes.
        precision: "float16" or "bfloat16"; "float32" with a ``runtime``. None: float32 with a ``runtime``, else
            float16.
        runtime: as the parameter ``backbone_runtime``; None: the fit's.
        labels: for each image whether it is anomalous, both kinds among them, for the AUROC.

    Raises:
        ParameterError: an unknown precision or runtime, or those of the fit; no image; other labels than images, or all
            alike. What `InReaCh.predict` raises.
    """
    precision = precision or ("float16" if runtime is None else "float32")
    before = model.precision, model.parameters
    as_fitted, changed = (before[1].with_changes(backbone_runtime=name) for name in ("auto", runtime or "auto"))
    own = model.fitted_runtime
    if precision == "float32" and runtime in (None, "auto", own):
        what = "precision: float32 is the reference; give 'float16' or 'bfloat16'"
        raise ParameterError(what if runtime is None else f"runtime: {own!r} is the fit's own; give another one")
    source = open_images(images, rule=model.pixel_rule)
    if labels is not None and (len(labels) != len(source) or len(set(map(bool, labels))) != 2):
        raise ParameterError(
            f"labels: expected one for each of the {len(source)} images, good and anomalous ones among them, got "
            f"{len(labels)} with {sum(map(bool, labels))} anomalous"
        )
    from sklearn.metrics import roc_auc_score

    verdicts = nearest = patches = 0
    score_change = patch_change = feature_change = 0.0
    scores: list[tuple[float, float]] = []
    try:
        for name, image in source:
            model.precision, model.parameters = "float32", as_fitted
            full, rows = _described(model, name, image)
            model.precision, model.parameters = precision, changed
            other, other_rows = _described(model, name, image)
            verdicts += int(full.is_anomalous != other.is_anomalous)
            nearest += int(np.count_nonzero(full.nearest != other.nearest))
            patches += int(np.count_nonzero(~np.isnan(full.patch_scores)))
            score_change = max(score_change, _relative(other.score - full.score, full.score))
            patch_change = max(patch_change, _largest(other.patch_scores, full.patch_scores))
            feature_change = max(feature_change, _largest(other_rows, rows))
            scores.append((full.score, other.score))
    finally:
        model.precision, model.parameters = before
    own_scores, other_scores = np.array(scores).T
    return Disagreement(
        precision,
        len(source),
        verdicts,
        nearest / patches,
        score_change,
        patch_change,
        str(own if runtime in (None, "auto") else runtime),
        str(own),
        feature_change,
        None if labels is None else float(roc_auc_score(labels, other_scores)),
        None if labels is None else float(roc_auc_score(labels, own_scores)),
    )


def _described(model: Any, name: str, image: Any) -> tuple[Any, Any]:
    """The prediction of an image, and its descriptors."""
    predictor = model._ready(images=True)
    (rows,) = predictor.describe(predictor.read(name, image).pixels[None])
    return model.predict(image), rows


def _largest(found: Any, expected: Any) -> float:
    # NaN: outside of the region of interest.
    return _relative(float(np.nanmax(np.abs(found - expected))), float(np.nanmax(np.abs(expected))))


def _relative(difference: float, whole: float) -> float:
    return abs(difference) / whole if whole > 0.0 else float(difference != 0.0)
