"""`FitResult`: what a fit and a change of a fitted model return."""

from __future__ import annotations

from dataclasses import dataclass

from ..array_types import FloatArray, IndexArray
from ..images.alignment import Alignment
from ..method.arrangement import Arrangement
from ..method.nominal_model import NominalModel
from ..method.projection import Projection
from ..storage.thumbnails import Thumbnails
from .growth_state import GrowthState
from .report import FitReport


@dataclass(frozen=True, eq=False, kw_only=True)
class FitResult:
    """All that a fit finds; `InReaCh` takes all of it, or nothing.

    Attributes are those of `InReaCh` without their underscore, and:
        arrangement: the places of the images, by which `growth` numbers them; everything else has their numbers.
        alignment: what the position test and the rotation search found; None for descriptors.
        projection: of descriptors to principal components, or None.
        thumbnails: small pictures of the images, and their sizes; None for descriptors, or with ``thumbnails=False``.
        growth: what adding and removing images needs.
    """

    nominal: NominalModel
    grid: tuple[int, int]
    image_names: list[str]
    arrangement: Arrangement
    seed_images: IndexArray
    positions: bool
    alignment: Alignment | None
    projection: Projection | None
    threshold_scores: FloatArray
    threshold_images: IndexArray
    report: FitReport
    thumbnails: Thumbnails | None
    growth: GrowthState
