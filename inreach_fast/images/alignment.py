"""Position test and rotation alignment (ALGORITHM section 2; the paper's supplement, section D).

The transpose test asks whether parts appear at the same position in every image. If they do, the mean image has
structure and differs from its own transpose. `align_images` decides what happens to images that fail.

Comparisons are exact. Pixels are uint8, bilinear weights are multiples of 1/32 on each axis (1/1024 for each tap),
and sums stay below 2**53, so that float64 is exact in any order of summation. The angle found does not depend on
machine, threads or batch.

Angles are whole degrees, counter-clockwise, about the image's centre: `rotate(image, best_rotation(image,
reference))` looks like the reference.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import sparse

from ..array_types import Array, DoubleArray, FloatArray, IndexArray, UInt8Array
from ..errors import TooFewImagesError
from ..system.progress import Progress, no_progress

_STEPS = 32  # sub-pixel positions on an axis; a tap's weight is a multiple of 1/_STEPS**2
_ONE = _STEPS * _STEPS
_SEARCH_SIDE = 320  # larger images are reduced to this shorter side for the search


# --- transpose test ----------------------------------------------------------------------------------------


def mean_image(images: Iterable[UInt8Array]) -> DoubleArray:
    """Mean of uint8 images (h, w, 3), float64 (h, w, 3), independent of their order; TooFewImagesError without one."""
    count, total = 0, np.zeros((), np.uint64)
    for image in images:
        total = total + image
        count += 1
    if not count:
        raise TooFewImagesError("images: no image to average; give at least one")
    return np.asarray(total / count, np.float64)


def transpose_score(mean_image: npt.NDArray[np.floating]) -> float:
    """Mean over pixels and colours of (A - transpose(A))**2, in squared 8-bit intensity units.

    A is float (h, w, 3), in 0..255. If it is not square, it is first resampled to a square of its shorter side
    (Pillow's bilinear filter). Source: supplement D; its Table 3 gives the score of each MVTec AD class.
    """
    mean = np.asarray(mean_image, np.float64)
    height, width, channels = mean.shape
    if height != width:
        side = min(height, width)
        planes = [Image.fromarray(mean[:, :, c].astype(np.float32)) for c in range(channels)]
        squares = [np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR)) for plane in planes]
        mean = np.stack(squares, axis=2).astype(np.float64)
    return float(np.mean((mean - mean.transpose(1, 0, 2)) ** 2))


# --- rotation search ---------------------------------------------------------------------------------------


def best_rotation(image: UInt8Array, reference: UInt8Array) -> int:
    """The angle, 0 to 359 degrees counter-clockwise, that brings `image` nearest to `reference`.

    Nearest means the least L2 distance over the centre: a square whose side is half of the image's shorter side. Ties
    go to the lowest angle. Images, uint8 (h, w, 3) of one size, at least 4 pixels a side, are first reduced to a
    shorter side of at most 320 pixels (Pillow's bilinear filter): a degree is still more than a pixel, and the sampling
    table stays below 80 MB.
    """
    search = _rotation_search(*image.shape[:2])
    return search.best(image, search.quarters(reference))


class _RotationSearch:
    """Samples an image's centre at all 360 angles; built once for an image size (36 MB at 224x224).

    The samples form a square grid around the axis of rotation, so that a rotation by 90 degrees maps the grid onto
    itself: the samples at angle t + 90k are those at t, rotated. Only 90 angles are sampled, and each is compared with
    four rotated copies of the reference.

    All angles are one sparse matrix times the image. Pixels are shifted to -128..127, which changes no distance: a
    sample is then a whole number of at most 2**17 (exact in float32), and a sum of at most 160 * 160 * 3 squares is
    below 2**52 (exact in float64).
    """

    def __init__(self, height: int, width: int) -> None:
        factor = min(1.0, _SEARCH_SIDE / min(height, width))
        self._full = (height, width)
        height, width = round(height * factor), round(width * factor)
        self._size = (height, width)
        self.side = min(height, width) // 2
        offset = np.arange(self.side) - (self.side - 1) / 2
        x, y = np.meshgrid(offset, offset)
        taps = [_taps(*_rotated(x, y, degrees), height, width) for degrees in range(90)]
        columns = np.concatenate([index.reshape(-1, 4) for index, _ in taps])
        weights = np.concatenate([weight.reshape(-1, 4) for _, weight in taps])
        values, starts = weights.astype(np.float32).ravel(), np.arange(0, columns.size + 1, 4)
        self._sampler = sparse.csr_matrix(
            (values, columns.astype(np.int32).ravel(), starts), shape=(len(columns), height * width)
        )

    def quarters(self, reference: UInt8Array) -> DoubleArray:
        """The reference's centre at four rotations, (side * side * 3, 4), in units of 1/1024."""
        quarter = self._sampler[: self.side * self.side] @ self._pixels(reference)
        quarter = quarter.astype(np.float64).reshape(self.side, self.side, 3)
        # ||rot(sample, k) - reference|| = ||sample - rot(reference, -k)||
        return np.stack([np.rot90(quarter, -k).ravel() for k in range(4)], axis=1)

    def best(self, image: UInt8Array, quarters: DoubleArray) -> int:
        samples = (self._sampler @ self._pixels(image)).astype(np.float64).reshape(90, -1)
        own = np.einsum("ij,ij->i", samples, samples)
        # |s - r|^2 - |r|^2 has the same order as |s - r|.
        distance = own[:, None] - 2 * (samples @ quarters)
        # C order of (turn, degree) is ascending angle, and argmin takes the first.
        return int(np.argmin(distance.T))

    def _pixels(self, image: UInt8Array) -> FloatArray:
        if self._size != self._full:
            height, width = self._size
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        shifted: FloatArray = image.reshape(-1, 3).astype(np.float32) - np.float32(128)
        return shifted


_rotation_search = lru_cache(maxsize=2)(_RotationSearch)


def _rotated(x: Any, y: Any, degrees: int) -> tuple[Any, Any]:
    """Where a rotation by `degrees` counter-clockwise takes its output at (x, y) from; y points down."""
    # Multiples of 90 degrees are exact.
    exact = {0: (1.0, 0.0), 90: (0.0, 1.0), 180: (-1.0, 0.0), 270: (0.0, -1.0)}
    angle = degrees % 360
    cos, sin = exact.get(angle) or (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    return cos * x - sin * y, sin * x + cos * y


def _frame(height: int, width: int, degrees: int) -> tuple[Any, Any]:
    """`_rotated` for all pixels of an image, offsets from its centre, (h, w) each."""
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    return _rotated(x, y, degrees)


def _taps(x: Any, y: Any, height: int, width: int) -> tuple[IndexArray, IndexArray]:
    """Flat indices of the four pixels of a bilinear sample at (x, y) from the centre, and their weights (sum 1024).

    Each int64 (..., 4). Beyond its border the image continues as its mirror image (the edge pixel repeated).
    """
    row, row_fraction = _fixed_point(y + (height - 1) / 2)
    col, col_fraction = _fixed_point(x + (width - 1) / 2)
    top, bottom = _mirror(row, height), _mirror(row + 1, height)
    left, right = _mirror(col, width), _mirror(col + 1, width)
    upper, lower = top * width, bottom * width
    index = np.stack([upper + left, upper + right, lower + left, lower + right], -1)
    below, after = row_fraction, col_fraction
    above, before = _STEPS - below, _STEPS - after
    weight = np.stack([above * before, above * after, below * before, below * after], -1)
    return index, weight


def _fixed_point(position: DoubleArray) -> tuple[IndexArray, IndexArray]:
    steps = np.floor(position * _STEPS + 0.5).astype(np.int64)
    return steps // _STEPS, steps % _STEPS


def _mirror(index: IndexArray, size: int) -> IndexArray:
    index = index % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


# --- rotating images, masks and maps -----------------------------------------------------------------------


def rotate(image: UInt8Array, degrees: int) -> UInt8Array:
    """Rotate a uint8 (h, w, 3) image counter-clockwise about its centre; its size stays.

    Bilinear, rounded half up, the same bits on any machine; lossless for 0 and 180 degrees and, for square images, 90
    and 270. Corners outside the input are filled with its mirror image: constant corners would look like defects that
    move with the angle.
    """
    height, width = image.shape[:2]
    if degrees % 360 == 0:
        return np.array(image)
    index, weight = _taps(*_frame(height, width, degrees), height, width)
    flat = image.reshape(height * width, -1).astype(np.int32)
    total = np.full((height * width, flat.shape[1]), _ONE // 2, np.int32)
    for tap in range(4):
        total += flat[index[..., tap].ravel()] * weight[..., tap].reshape(-1, 1).astype(np.int32)
    rotated: UInt8Array = (total // _ONE).astype(np.uint8).reshape(image.shape)
    return rotated


def rotate_mask(mask: Array, degrees: int) -> Array:
    """Rotate an (h, w) mask as `rotate` does its image: nearest pixel, dtype kept, zero outside the input."""
    height, width = mask.shape
    if degrees % 360 == 0:
        return np.array(mask)
    x, y = _frame(height, width, degrees)
    # At some sizes the centre is an exact tie between pixels; floor(x + 0.5) decides it the same way everywhere.
    col = np.floor(np.round(x + (width - 1) / 2, 9) + 0.5).astype(np.int64)
    row = np.floor(np.round(y + (height - 1) / 2, 9) + 0.5).astype(np.int64)
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    out: Array = mask[np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)]
    out[~inside] = 0
    return out


def rotate_map_back(values: npt.NDArray[np.floating], degrees: int) -> FloatArray:
    """Bring an (h, w) map over `rotate(image, degrees)` back into the frame of ``image``.

    float32 (h, w), bilinear; NaN in those corners that the rotation had moved out of the frame.
    """
    height, width = values.shape
    source: FloatArray = np.ascontiguousarray(values, np.float32)
    if degrees % 360 == 0:
        return np.array(source)
    x, y = _frame(height, width, -degrees)
    index, weight = _taps(x, y, height, width)
    flat = source.reshape(-1)
    out = np.zeros((height, width), np.float32)
    for tap in range(4):
        out += flat[index[:, :, tap]] * (weight[:, :, tap] / _ONE).astype(np.float32)
    half = 0.5 + 1e-9  # a pixel reaches half its width beyond the outermost centres
    out[(np.abs(x) > (width - 1) / 2 + half) | (np.abs(y) > (height - 1) / 2 + half)] = np.nan
    return out


def rotate_box_back(
    box: tuple[float, float, float, float], size: tuple[int, int], degrees: int
) -> tuple[float, float, float, float]:
    """The box, within an image of (h, w) pixels, around what a box of ``rotate(image, degrees)`` shows of it.

    Boxes are (top, left, bottom, right) of the edges of pixels.
    """
    if degrees % 360 == 0:
        return box
    height, width = size
    top, left, bottom, right = box
    y = np.array([top, top, bottom, bottom]) - height / 2
    x, y = _rotated(np.array([left, right, left, right]) - width / 2, y, degrees)
    rows, columns = np.clip(y + height / 2, 0, height), np.clip(x + width / 2, 0, width)
    return float(rows.min()), float(columns.min()), float(rows.max()), float(columns.max())


# --- the decision ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alignment:
    """The result of position test and rotation search.

    Attributes:
        score_before: transpose score of the training images.
        score_after: the same after rotating each to the first; None if the search was not needed.
        threshold: the score above which positions count as consistent.
        kept: the search was needed and helped; every image is rotated before it is described.
        angles: int64 (N,), degrees of each training image; zeros unless kept.
        reference: uint8 (h, w, 3), the training image to which all other images are rotated; None unless kept.
        searched: int64 (N,), the angles found by the search, kept or not; None if it was not needed. Not saved.
    """

    score_before: float
    score_after: float | None
    threshold: float
    kept: bool
    angles: IndexArray
    reference: UInt8Array | None
    searched: IndexArray | None = None

    @property
    def positions_consistent(self) -> bool:
        """Whether the training images (rotated, if `kept`) pass the transpose test."""
        return self.kept or self.score_before > self.threshold

    def apply(self, image: UInt8Array) -> tuple[UInt8Array, int]:
        """A test image of the network's input size, rotated if `kept`, and the angle (0 if not)."""
        if not self.kept or self.reference is None:
            return image, 0
        degrees = best_rotation(image, self.reference)
        return rotate(image, degrees), degrees

    def at(self, places: IndexArray) -> Alignment:
        """The same for other numbers of the training images: image i is the one that had the number ``places[i]``."""
        return replace(self, angles=self.angles[places], searched=None)

    def to_arrays(self) -> dict[str, Array]:
        """The array part, for a model file; `to_json` gives the other part."""
        return {"angles": self.angles} | ({} if self.reference is None else {"reference": self.reference})

    def to_json(self) -> dict[str, Any]:
        """The scalar part, of JSON types only."""
        return {name: getattr(self, name) for name in ("score_before", "score_after", "threshold", "kept")}

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Array], scalars: Mapping[str, Any]) -> Alignment:
        """Inverse of `to_arrays` and `to_json`. Raises KeyError, TypeError or ValueError for malformed parts."""
        after, kept = scalars["score_after"], bool(scalars["kept"])
        # Copies: what is mapped from a file could be overwritten.
        reference = np.array(arrays["reference"]) if kept else None
        if reference is not None and (reference.dtype != np.uint8 or reference.shape[2:] != (3,)):
            raise ValueError("alignment: the reference is not a uint8 (h, w, 3) image")
        return cls(
            score_before=float(scalars["score_before"]),
            score_after=None if after is None else float(after),
            threshold=float(scalars["threshold"]),
            kept=kept,
            angles=np.array(arrays["angles"], np.int64),
            reference=reference,
        )


def align_images(
    images: Collection[UInt8Array],
    *,
    threshold: float = 600.0,
    search: bool = True,
    reference: UInt8Array | None = None,
    known: IndexArray | None = None,
    progress: Progress = no_progress,
) -> Alignment:
    """Run the transpose test on a training set and, if it fails, try to align the images (supplement D).

    Images that fail may only be rotated against each other: each is rotated in steps of 1 degree to match one of them,
    and the test is run again. If it passes now, rotations and positions are used; otherwise neither.

    Args:
        images: uint8 (h, w, 3) of one size, the network's inputs. Gone over once, and once more for a search; one
            image is held at a time.
        threshold: the transpose score that must be exceeded, in squared 8-bit intensity units (supplement D).
        search: whether to align images that fail.
        reference: the image that the others are rotated to; None: the first.
        known: int64 (N,), angles that an earlier search with the same reference has found, -1 if unknown.
        progress: called as progress("align", done, total).
    """
    score_before, count = transpose_score(mean_image(images)), len(images)
    if score_before > threshold or not search:
        return Alignment(score_before, None, threshold, False, np.zeros(count, np.int64), None)

    searched = np.full(count, -1, np.int64) if known is None else np.array(known, np.int64)
    reference = np.array(next(iter(images)) if reference is None else reference)
    matcher = _rotation_search(*reference.shape[:2])
    quarters = matcher.quarters(reference)

    def rotated() -> Iterator[UInt8Array]:
        for place, image in enumerate(images):
            if searched[place] < 0:
                searched[place] = matcher.best(image, quarters)
            yield rotate(image, int(searched[place]))
            progress("align", place + 1, count)

    score_after = transpose_score(mean_image(rotated()))
    kept = score_after > threshold
    angles = searched if kept else np.zeros(count, np.int64)
    return Alignment(score_before, score_after, threshold, kept, angles, reference if kept else None, searched)
