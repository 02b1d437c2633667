"""How well a fit finds the defective images among those that it learnt from, and estimates their share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..array_types import BoolArray, FloatArray
from ..method.evidence import anomalous_share
from . import metrics


@dataclass(frozen=True)
class AuditFigures:
    """Figures over the training images; None where undefined, or where the images were not scored.

    Attributes:
        auroc: of the defective ones' scores against the good ones' (leave-one-image-out).
        precision: share of defective images among the highest scores, as many of them as there are defective images.
        share: of defective images. estimate, low, high: the share that `method.evidence` estimates from the scores
            alone, and its interval of 90 %. error: ``estimate - share``.
    """

    auroc: float | None = None
    precision: float | None = None
    share: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None


def audit_figures(labels: BoolArray, scores: FloatArray) -> AuditFigures:
    """The figures of training images: bool (n,), whether each is defective, and their scores, (n,).

    A score is infinite where an image alone has all nominal patches: it counts as the highest.
    """
    finite = scores[np.isfinite(scores)]
    ranked = np.where(np.isfinite(scores), scores, np.finfo(np.float32).max)
    count, share = int(labels.sum()), float(labels.mean())
    highest = np.argsort(-ranked, kind="stable")[:count]
    found = anomalous_share(finite) if len(finite) else None
    return AuditFigures(
        auroc=metrics.auroc(labels, ranked) if 0 < count < len(labels) else None,
        precision=float(labels[highest].mean()) if count else None,
        share=share,
        estimate=None if found is None else found.estimate,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        error=None if found is None else found.estimate - share,
    )
