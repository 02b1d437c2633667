"""What the report of an evaluation shows besides its figures: curves, figures of each kind of defect, single cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..array_types import BoolArray, DoubleArray, FloatArray, IndexArray, UInt8Array
from . import metrics
from .mvtec import Sample

_CASES: Final = 3
"""Images of each sort that are shown."""
PRO_LIMIT: Final = 0.3
"""False-positive rate up to which PRO is integrated, as for MVTec AD."""
Curve = tuple[DoubleArray, DoubleArray]


@dataclass(frozen=True)
class KindFigures:
    """Figures of one kind of defect, against all good test images; None where undefined.

    ``found``: its images that score above the threshold of `ClassDetails`; of good images ("good") these are the false
    alarms.
    """

    kind: str
    images: int
    found: int
    image_auroc: float | None
    pixel_auroc: float | None
    pro: float | None


@dataclass(frozen=True, eq=False)
class Case:
    """A test image as the network sees it, uint8 (H, W, 3), with its map and mask (H, W); the mask may be missing."""

    name: str
    score: float
    defective: bool
    image: UInt8Array
    anomaly_map: FloatArray
    mask: BoolArray | None


@dataclass(frozen=True, eq=False)
class ClassDetails:
    """Of one evaluated class.

    Attributes:
        threshold: the model's own, chosen without labels; with ``threshold_from_labels`` that of the best F1 on the
            test images, for methods that choose none.
        roc, pro: (false-positive rate, true-positive rate or overlap), or None where undefined.
        kinds: figures of each kind of defect, and of the good images.
        cases: by what they show, at most three of each: "missed most" (defective, lowest scores), "nearest to a false
            alarm" (good, highest scores), "clearest defects" and "clearest good images".
        predict_seconds: float64 (n,), of each test image, reading included.
    """

    threshold: float
    roc: Curve | None
    pro: Curve | None
    kinds: tuple[KindFigures, ...]
    cases: dict[str, tuple[Case, ...]]
    predict_seconds: DoubleArray
    threshold_from_labels: bool = False


def class_details(
    samples: Sequence[Sample],
    scores: FloatArray,
    maps: Sequence[FloatArray],
    masks: Sequence[BoolArray | None],
    *,
    threshold: float | None,
    seconds: Sequence[float],
    image_of: Callable[[int], UInt8Array],
    figures: Callable[[BoolArray], Any],
) -> ClassDetails:
    """The details of test images that were scored.

    Args:
        threshold: the model's; None: the one of the best F1.
        image_of: returns what the network sees of image i, (H, W, 3). figures: of the images that a bool (n,) selects.
    """
    labels = np.array([sample.defective for sample in samples])
    from_labels = threshold is None
    if threshold is None:
        threshold = _best_threshold(labels, scores)
    known = [mask for mask in masks if mask is not None]
    inspected = [~np.isnan(one) for one in maps]
    seen = [mask[where] for mask, where in zip(known, inspected, strict=False)]
    has_pixels = len(known) == len(masks) and any(mask.any() for mask in seen) and not all(m.all() for m in seen)
    kinds = [kind_of(sample) for sample in samples]

    def of_kind(kind: str) -> KindFigures:
        mine = np.array([other == kind for other in kinds])
        found = figures(mine | ~labels) if (mine & labels).any() else None
        values = [getattr(found, name, None) for name in ("image_auroc", "pixel_auroc", "pro")]
        return KindFigures(kind, int(mine.sum()), int((mine & (scores > threshold)).sum()), *values)

    def chosen(order: IndexArray, defective: bool) -> tuple[Case, ...]:
        numbers = [int(i) for i in order if labels[i] == defective][:_CASES]
        return tuple(
            Case(samples[i].name, float(scores[i]), defective, image_of(i), maps[i], masks[i]) for i in numbers
        )

    rising = np.argsort(scores, kind="stable")
    return ClassDetails(
        threshold=threshold,
        roc=metrics.roc_curve(labels, scores) if labels.any() and not labels.all() else None,
        pro=metrics.pro_curve(known, maps, inspected=inspected) if has_pixels else None,
        kinds=tuple(of_kind(kind) for kind in sorted(dict.fromkeys(kinds))),
        cases={
            "missed most": chosen(rising, True),
            "nearest to a false alarm": chosen(rising[::-1], False),
            "clearest defects": chosen(rising[::-1], True),
            "clearest good images": chosen(rising, False),
        },
        predict_seconds=np.asarray(seconds, dtype=np.float64),
        threshold_from_labels=from_labels,
    )


def _best_threshold(labels: BoolArray, scores: FloatArray) -> float:
    """The greatest float32 below the scores that the best F1 flags; the greatest score if the labels are all alike."""
    if not labels.any() or labels.all():
        return float(scores.max())
    return float(np.nextafter(np.float32(metrics.best_f1(labels, scores).threshold), np.float32(-np.inf)))


def kind_of(sample: Sample) -> str:
    """The kind of a test image: its folder, or whether it is defective where there are none."""
    folder, slash, _ = sample.name.rpartition("/")
    return folder if slash else "defective" if sample.defective else "good"
