"""Why an image was scored as it was: its worst regions, and what is nearest to them among the training images.

A region is an 8-connected component of the anomaly map above the threshold, so that an anomalous image has at least
one. Of an image below the threshold the worst region is shown: the part around the map's maximum where the map is above
the middle between its median and its maximum.

The patch of a region that speaks for it is the one of the highest score. Its score says how far it is from the nearest
nominal patch; what is usual there tells whether that is far (`TrainingEvidence.usual`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import label

from .. import kernels
from ..array_types import DoubleArray, FloatArray, IndexArray, UInt8Array
from ..errors import ParameterError
from ..images.alignment import rotate_box_back, rotate_mask
from ..images.preprocess import Geometry
from ..method.nominal_model import NominalModel
from ..method.scoring import Scorer
from ..storage.thumbnails import Thumbnails

_AROUND: Final = 1
"""Patches in each direction that count as the same place."""


class Box(NamedTuple):
    """A rectangle of pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, eq=False)
class TrainingPatch:
    """A patch of a training image.

    Attributes:
        image: the image's number. name: its name. place: (row, column) of the patch in the grid of the network's input
            (aligned: of the rotated input).
        box: what the patch covers, in pixels of the training image; of the network's input if ``size_known`` is False.
        size: (height, width) of the frame that ``box`` is in.
        size_known: whether that frame is the training image's own: models that were saved by earlier versions do not
            know how large the images were.
    """

    image: int
    name: str
    place: tuple[int, int]
    box: Box
    size: tuple[int, int]
    size_known: bool
    _thumbnails: Thumbnails | None = field(default=None, repr=False)
    _inspected: tuple[float, float, float, float] = field(default=(0.0, 0.0, 1.0, 1.0), repr=False)

    @property
    def thumbnail(self) -> UInt8Array | None:
        """A small picture of what the network sees of the training image, uint8 (h, w, 3); None if there is none."""
        return None if self._thumbnails is None else self._thumbnails.picture(self.image)

    @property
    def box_in_thumbnail(self) -> tuple[float, float, float, float]:
        """The box as shares of the thumbnail's height and width: (top, left, bottom, right), 0 to 1."""
        return self._inspected

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        names = ("image", "name", "place", "box", "size", "size_known")
        return {name: _plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, eq=False)
class Region:
    """A region of an inspected image, in the frame of the original image.

    Attributes:
        score: the map's maximum in it. is_above: whether that is above the threshold.
        box: `Box` around it. area: its pixels. centroid: (row, column), 0 being the centre of the first pixel.
        place: (row, column) in the grid of its patch of the highest score. patch_box: `Box` of that patch.
        distance: that patch's score: its distance to ``nearest``, or with score="reachability" ``confirmation``, if
            that is greater. Squared unless distance="l2".
        feedback: number of the feedback (`InReaCh.accept`, `InReaCh.reject`) that the score is due to instead; 0: none.
        nearest: the nearest nominal patch; None if there is none (leave-one-image-out of an only image).
        confirmation: the confirmation distance of ``nearest``, in the same unit; None for a model of channels.
        confirmed_by: the patches of other images that confirm ``nearest``: with association="all" its witness,
            otherwise a patch of each other image of its channel.
        usual: median of what is usual there, in the same unit, and quantile: the share of it that is not greater than
            ``distance``. With association="all" it is the confirmation distances of the training images' patches at
            this place and the places beside it; otherwise, how far each member of the channel is from the nearest
            member of another image. None if the score is no distance or due to feedback, or if there is nothing to
            compare with.
    """

    score: float
    is_above: bool
    box: Box
    area: float
    centroid: tuple[float, float]
    place: tuple[int, int]
    patch_box: Box
    distance: float
    feedback: int
    nearest: TrainingPatch | None
    confirmation: float | None
    confirmed_by: tuple[TrainingPatch, ...]
    usual: float | None
    quantile: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = {name: _plain(value) for name, value in vars(self).items() if name not in ("nearest", "confirmed_by")}
        nearest = None if self.nearest is None else self.nearest.as_dict()
        return {**values, "nearest": nearest, "confirmed_by": [patch.as_dict() for patch in self.confirmed_by]}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an image was scored as it was.

    Attributes:
        score, threshold, is_anomalous, complete: of the prediction.
        size: (height, width) of the frame of all boxes: the original image, or the map if descriptors were scored.
        regions: `Region`s, the worst first. found: how many there are, of which ``regions`` may be the first few.
        quantile: share of the scored training images whose own score (leave-one-image-out) is not greater than this
            image's; None if none was scored.
    """

    score: float
    threshold: float
    is_anomalous: bool
    complete: bool
    size: tuple[int, int]
    regions: tuple[Region, ...]
    found: int
    quantile: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = {name: _plain(value) for name, value in vars(self).items() if name != "regions"}
        return {**values, "regions": [region.as_dict() for region in self.regions]}


@dataclass(frozen=True, eq=False)
class TrainingEvidence:
    """What explanations need of a fitted model.

    Attributes:
        nominal, scorer, grid, geometry: as predictions use them.
        names: of the training images. angles: float64 (N,) degrees by which alignment rotated each, or None.
        thumbnails: pictures and sizes of the training images, or None.
        scores: float32 (n,), the training images' own scores.
    """

    nominal: NominalModel
    scorer: Scorer
    grid: tuple[int, int]
    geometry: Geometry
    names: Sequence[str]
    angles: DoubleArray | None
    thumbnails: Thumbnails | None
    scores: FloatArray

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the network's input."""
        size = self.geometry.crop or self.geometry.resize
        assert size is not None
        return size

    def patch(self, image: int, number: int) -> TrainingPatch:
        """A patch of a training image by its number in the grid."""
        degrees = 0 if self.angles is None else int(self.angles[image])
        inside = rotate_box_back(self.cell(number), self.input_size, degrees)
        size = None if self.thumbnails is None else self.thumbnails.size(image)
        box = inside if size is None else self.geometry.box_to_original(inside, size)
        frame = self.input_size if size is None else size
        height, width = self.input_size
        return TrainingPatch(
            image=image,
            name=self.names[image],
            place=divmod(number, self.grid[1]),
            box=whole_box(box, frame),
            size=frame,
            size_known=size is not None,
            _thumbnails=self.thumbnails,
            _inspected=(inside[0] / height, inside[1] / width, inside[2] / height, inside[3] / width),
        )

    def cell(self, number: int) -> tuple[float, float, float, float]:
        """What a patch covers of the network's (rotated) input: (top, left, bottom, right), edges of pixels."""
        (height, width), (h, w) = self.input_size, self.grid
        row, column = divmod(number, w)
        return row * height / h, column * width / w, (row + 1) * height / h, (column + 1) * width / w

    def confirmed_by(self, row: int) -> tuple[TrainingPatch, ...]:
        """The patches of other images that confirm a nominal patch."""
        nominal = self.nominal
        if nominal.confirmation is not None:
            return (self.patch(int(nominal.channel_seed_image[row]), int(nominal.channel_seed_patch[row])),)
        members = self._channel(row)
        members = members[nominal.image_index[members] != nominal.image_index[row]]
        _, first = np.unique(nominal.image_index[members], return_index=True)
        return tuple(self.patch(int(nominal.image_index[i]), int(nominal.patch_index[i])) for i in members[first])

    def usual(self, row: int, place: tuple[int, int]) -> FloatArray:
        """The distances that are usual where a patch at ``place`` meets the nominal patch ``row``; see `Region`."""
        nominal, scorer = self.nominal, self.scorer
        if not scorer.is_distance:
            return np.empty(0, np.float32)
        if nominal.confirmation is None:
            members = self._channel(row)
            rows, images = np.asarray(nominal.patches[members]), nominal.image_index[members]
            bank = kernels.Bank(rows, images)
            squared = kernels.nearest(rows, bank, query_group=images, backend=scorer.backend).sq_distance
        else:
            at_row, at_column = np.divmod(nominal.patch_index, self.grid[1])
            near = (abs(at_row - place[0]) <= _AROUND) & (abs(at_column - place[1]) <= _AROUND)
            squared = nominal.confirmation[near] if near.any() else nominal.confirmation
        return scorer.of_squared(squared[np.isfinite(squared)])

    def _channel(self, row: int) -> IndexArray:
        """The nominal patches of a nominal patch's channel."""
        nominal = self.nominal
        same_image = nominal.channel_seed_image == nominal.channel_seed_image[row]
        return np.flatnonzero(same_image & (nominal.channel_seed_patch == nominal.channel_seed_patch[row]))


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explains the predictions of a model that were made with one threshold."""

    evidence: TrainingEvidence
    threshold: float

    def explain(
        self,
        *,
        score: float,
        complete: bool,
        anomaly_map: FloatArray,
        patch_scores: FloatArray,
        nearest: IndexArray,
        rotation: float,
        original_size: tuple[int, int] | None,
        feedback: IndexArray | None,
        most: int,
    ) -> Explanation:
        """The explanation of one image; the arguments are those of `Prediction`, ``most``: as for its `explain`."""
        if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
            raise ParameterError(f"most: expected a whole number of at least 1, got {most!r}")
        degrees = int(rotation)
        found, above = worst_regions(anomaly_map, self.threshold)
        cells = self._cells(degrees)
        regions = []
        for rows, columns in found[:most]:
            values = np.where(np.isnan(patch_scores), -np.inf, patch_scores).ravel()
            inside = np.unique(cells[rows, columns])
            inside = inside[inside >= 0] if (inside >= 0).any() else np.arange(values.size)
            patch = int(inside[np.argmax(values[inside])])
            regions.append(
                self._region(
                    rows,
                    columns,
                    float(anomaly_map[rows, columns].max()),
                    above,
                    patch,
                    float(values[patch]),
                    0 if feedback is None else int(feedback.ravel()[patch]),
                    int(nearest.ravel()[patch]),
                    degrees,
                    original_size,
                )
            )
        scores = self.evidence.scores[np.isfinite(self.evidence.scores)]
        return Explanation(
            score=float(score),
            threshold=self.threshold,
            is_anomalous=bool(score > self.threshold),
            complete=bool(complete),
            size=original_size or (anomaly_map.shape[0], anomaly_map.shape[1]),
            regions=tuple(regions),
            found=len(found),
            quantile=float((scores <= score).mean()) if len(scores) else None,
        )

    def _region(
        self,
        rows: IndexArray,
        columns: IndexArray,
        score: float,
        above: bool,
        patch: int,
        distance: float,
        feedback: int,
        row: int,
        degrees: int,
        original_size: tuple[int, int] | None,
    ) -> Region:
        evidence = self.evidence
        place = divmod(patch, evidence.grid[1])
        outer = (float(rows.min()), float(columns.min()), float(rows.max() + 1), float(columns.max() + 1))
        own = rotate_box_back(evidence.cell(patch), evidence.input_size, degrees)
        middle = (rows.mean() + 0.5, columns.mean() + 0.5)
        box, area, size = outer, float(len(rows)), evidence.input_size
        if original_size is not None:
            size = original_size
            box, own = (evidence.geometry.box_to_original(one, size) for one in (outer, own))
            middle = evidence.geometry.box_to_original((*middle, *middle), size)[:2]
            inspected = evidence.geometry.inspected_size(size)
            area *= inspected[0] * inspected[1] / math.prod(evidence.input_size)
        region = Region(
            score=score,
            is_above=above,
            box=whole_box(box, size),
            area=area,
            centroid=(float(middle[0]) - 0.5, float(middle[1]) - 0.5),
            place=place,
            patch_box=whole_box(own, size),
            distance=distance,
            feedback=feedback,
            nearest=None,
            confirmation=None,
            confirmed_by=(),
            usual=None,
            quantile=None,
        )
        if row < 0:
            return region
        nominal = evidence.nominal
        usual = np.empty(0, np.float32) if feedback else evidence.usual(row, place)
        confirmation = None
        if nominal.confirmation is not None:
            confirmation = float(evidence.scorer.of_squared(nominal.confirmation[row : row + 1])[0])
        return replace(
            region,
            nearest=evidence.patch(int(nominal.image_index[row]), int(nominal.patch_index[row])),
            confirmation=confirmation,
            confirmed_by=evidence.confirmed_by(row),
            usual=float(np.median(usual)) if len(usual) else None,
            quantile=float((usual <= np.float32(distance)).mean()) if len(usual) else None,
        )

    def _cells(self, degrees: int) -> IndexArray:
        """The patch that each pixel of the map belongs to, int64 (H, W); -1 where the rotated input has none."""
        (height, width), (h, w) = self.evidence.input_size, self.evidence.grid
        row, column = np.arange(height) * h // height, np.arange(width) * w // width
        cells = row[:, None] * w + column + 1
        return np.asarray(rotate_mask(cells, -degrees) - 1)


def worst_regions(values: FloatArray, threshold: float) -> tuple[list[tuple[IndexArray, IndexArray]], bool]:
    """The regions of a map, (H, W), as (rows, columns) of their pixels, the highest maximum first.

    Returns:
        The regions, and whether they are above the threshold; if nothing is, the one around the maximum.
    """
    known = np.where(np.isnan(values), -np.inf, values)
    mask = known > threshold
    above = bool(mask.any())
    if not above:
        finite = known[np.isfinite(known)]
        mask = known >= (float(np.median(finite)) + float(finite.max())) / 2.0
    labels, count = label(mask, structure=np.ones((3, 3)))
    where = np.flatnonzero(labels)
    where = where[np.argsort(labels.ravel()[where], kind="stable")]
    sizes = np.bincount(labels.ravel()[where], minlength=count + 1)[1:]
    parts = np.split(where, np.cumsum(sizes)[:-1])
    parts.sort(key=lambda part: -known.ravel()[part].max())  # stable: of equal ones the upper first
    regions = [np.unravel_index(part, values.shape) for part in parts]
    return [(rows, columns) for rows, columns in (regions if above else regions[:1])], above


def whole_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """The pixels that a box of edges touches, within (height, width)."""
    slack = 1e-6  # an edge that is a pixel's but for rounding

    def low(value: float, end: int) -> int:
        return min(max(math.floor(value + slack), 0), end - 1)

    def high(value: float, end: int) -> int:
        return max(min(math.ceil(value - slack), end), 1)

    (height, width), (top, left, bottom, right) = size, box
    return Box(low(top, height), low(left, width), high(bottom, height), high(right, width))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
