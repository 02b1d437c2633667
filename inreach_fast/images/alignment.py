"""Position test and rotation alignment (ALGORITHM section 2; the paper's supplement, section D).

The transpose test asks whether things lie at the same place in every image: the mean image of such a set has
structure, so it differs from its own transpose. A set that fails may only be turned at random, so every image
is turned in 1-degree steps towards the first one; if the test then passes, the alignment stays.

All comparisons are made in integers: pixels are uint8, bilinear weights are multiples of 1/32 a axis (so
1/1024 a tap), and the sums stay below 2**53, where float64 is exact in any order of summation. The angle
found therefore does not depend on machine, threads or batch.

Angles are whole degrees, counter-clockwise, about the image's centre: `rotate(image, best_rotation(image,
reference))` looks like the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import sparse

from ..array_types import Array, DoubleArray, FloatArray, IndexArray, UInt8Array
from ..errors import DataError, MixedSizesError, ModelCorruptError, ParameterError, TooFewImagesError

SUPPLEMENT_THRESHOLD = 600.0
"""The supplement's threshold of the transpose test, in squared 8-bit intensity units."""

_STEPS = 32  # sub-pixel positions along an axis; a tap's weight is a multiple of 1/_STEPS**2
_ONE = _STEPS * _STEPS
_SEARCH_SIDE = 320  # the rotation search sees larger images reduced to this shorter side


# --- transpose test ----------------------------------------------------------------------------------------


class MeanImage:
    """Streaming mean of uint8 images, exact: sums are integers, so the order of images does not matter."""

    def __init__(self) -> None:
        self._sum: npt.NDArray[np.uint64] | None = None
        self.count = 0

    def add(self, images: UInt8Array) -> None:
        """Take in one image (h, w, 3) or a batch (B, h, w, 3), uint8.

        Raises:
            DataError: another dtype or shape. MixedSizesError: another size than the images before.
        """
        batch = images[None] if images.ndim == 3 else images
        if batch.ndim != 4 or batch.dtype != np.uint8:
            raise DataError(f"images: {images.dtype} {images.shape} given, uint8 (h, w, 3) or (B, h, w, 3) expected.")
        if self._sum is None:
            self._sum = np.zeros(batch.shape[1:], np.uint64)
        elif self._sum.shape != batch.shape[1:]:
            raise MixedSizesError(f"images: size {batch.shape[1:3]} after images of {self._sum.shape[:2]}.")
        self._sum += batch.sum(axis=0, dtype=np.uint64)
        self.count += len(batch)

    @property
    def mean(self) -> DoubleArray:
        """Mean so far, float64 (h, w, 3), in 0..255. Raises TooFewImagesError before the first image."""
        if self._sum is None or self.count == 0:
            raise TooFewImagesError("images: the mean of no image was asked for; add at least one.")
        return np.asarray(self._sum / self.count, np.float64)


def transpose_score(mean_image: npt.NDArray[np.floating]) -> float:
    """Mean over pixels and colours of (A - transpose(A))**2, in squared 8-bit intensity units.

    Args:
        mean_image: A, float (h, w, 3) or (h, w), in 0..255. A transpose needs a square: an oblong A is first
            resampled (Pillow's bilinear filter) to a square of its shorter side.

    Source: supplement D; its Table 3 gives the score of each MVTec AD class.
    """
    mean = np.asarray(mean_image, np.float64)
    if mean.ndim == 2:
        mean = mean[:, :, None]
    if mean.ndim != 3 or 0 in mean.shape:
        raise DataError(f"mean_image: shape {mean.shape} given, (h, w, 3) expected.")
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

    Nearest: least L2 distance over the centre quarter, which is the centred square whose side is half the
    image's shorter side (for a square image, the quarter of its area around its centre). Ties go to the
    lowest angle. Images whose shorter side is over 320 pixels are compared at that size (Pillow's bilinear
    filter): a degree is still more than a pixel, and the table of sampling positions stays below 80 MB.

    Args:
        image, reference: uint8 (h, w, 3), the same size, at least 4 pixels a side.

    Raises:
        DataError: not such images. MixedSizesError: they differ in size.
    """
    search = _search_of(image)
    _search_of(reference)
    if image.shape != reference.shape:
        raise MixedSizesError(f"image is {image.shape[:2]} and reference is {reference.shape[:2]}; give them one size.")
    return search.best(image, search.quarters(reference))


def _search_of(image: UInt8Array) -> _RotationSearch:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 4:
        raise DataError(f"image: {image.dtype} {image.shape} given, uint8 (h, w, 3) of at least 4x4 expected.")
    return _rotation_search(image.shape[0], image.shape[1])


@lru_cache(maxsize=2)
def _rotation_search(height: int, width: int) -> _RotationSearch:
    return _RotationSearch(height, width)


class _RotationSearch:
    """Samples an image's centre quarter at all 360 angles; built once for an image size (36 MB at 224x224).

    The quarter is a square grid centred on the axis of rotation, so a turn by 90 degrees maps the grid onto
    itself: the samples at angle t + 90k are those at t, turned. Only 90 angles are sampled, and each is
    compared with four turned copies of the reference.

    Sampling is linear in the pixels, so that all angles are one sparse matrix times the image. Pixels are
    shifted to -128..127, which changes no distance, so that a sample is a whole number of at most 2**17
    (exact in float32), its square at most 2**34, and the sums over at most 160 * 160 * 3 samples below 2**52
    (exact in float64).
    """

    def __init__(self, height: int, width: int) -> None:
        factor = min(1.0, _SEARCH_SIDE / min(height, width))
        self._full = (height, width)
        height, width = round(height * factor), round(width * factor)
        self._size = (height, width)
        self.side = min(height, width) // 2
        offset = np.arange(self.side) - (self.side - 1) / 2
        x, y = np.meshgrid(offset, offset)
        taps = [_taps(*_turned(x, y, degrees), height, width) for degrees in range(90)]
        columns = np.concatenate([index.reshape(-1, 4) for index, _ in taps])
        weights = np.concatenate([weight.reshape(-1, 4) for _, weight in taps])
        rows = len(columns)
        self._sampler = sparse.csr_matrix(
            (
                weights.astype(np.float32).ravel(),
                columns.astype(np.int32).ravel(),
                np.arange(0, 4 * rows + 1, 4),
            ),
            shape=(rows, height * width),
        )
        self._upright_rows = self.side * self.side

    def quarters(self, reference: UInt8Array) -> DoubleArray:
        """The reference's centre quarter in four turns: (side * side * 3, 4), in units of 1/1024."""
        quarter = self._sampler[: self._upright_rows] @ self._pixels(reference)
        quarter = quarter.astype(np.float64).reshape(self.side, self.side, 3)
        # ||turn(sample, k) - reference|| = ||sample - turn(reference, -k)||
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


def _turned(x: Any, y: Any, degrees: int) -> tuple[Any, Any]:
    """Where a rotation by `degrees` counter-clockwise takes its output at (x, y) from; y points down."""
    cos, sin = _cos_sin(degrees)
    return cos * x - sin * y, sin * x + cos * y


def _cos_sin(degrees: int) -> tuple[float, float]:
    # Exact, so that these turns lose nothing.
    quarter = {0: (1.0, 0.0), 90: (0.0, 1.0), 180: (-1.0, 0.0), 270: (0.0, -1.0)}
    angle = degrees % 360
    return quarter.get(angle) or (math.cos(math.radians(angle)), math.sin(math.radians(angle)))


def _taps(x: Any, y: Any, height: int, width: int) -> tuple[IndexArray, IndexArray]:
    """The four pixels that a bilinear sample at (x, y) from the centre takes, and their weights of sum 1024.

    Outside, the image continues as its mirror image (edge pixel repeated).

    Returns: flat pixel index and weight, each int64 (..., 4).
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
    """Turn a uint8 (h, w, 3) image counter-clockwise about its centre; the frame keeps its size.

    Bilinear, rounded half up, the same bits on any machine; lossless for 0 and 180 degrees and, where the
    image is square, 90 and 270. Corners that lie outside the input are filled with its mirror image: constant
    corners would look like defects that move with the angle.
    """
    height, width = image.shape[:2]
    if degrees % 360 == 0:
        return np.array(image)
    index, weight = _whole_frame_taps(height, width, degrees)
    flat = image.reshape(height * width, -1).astype(np.int32)
    total = np.full((height * width, flat.shape[1]), _ONE // 2, np.int32)
    for tap in range(4):
        total += flat[index[:, tap]] * weight[:, tap, None].astype(np.int32)
    turned: UInt8Array = (total // _ONE).astype(np.uint8).reshape(image.shape)
    return turned


def rotate_mask(mask: Array, degrees: int) -> Array:
    """Turn an (h, w) mask as `rotate` turns its image: nearest pixel, dtype kept, zero outside the input."""
    height, width = mask.shape
    if degrees % 360 == 0:
        return np.array(mask)
    x, y = _frame_offsets(height, width)
    x, y = _turned(x, y, degrees)
    # The centre is an exact tie between pixels at some sizes; floor(x + 0.5) decides it the same way
    # everywhere.
    col = np.floor(np.round(x + (width - 1) / 2, 9) + 0.5).astype(np.int64)
    row = np.floor(np.round(y + (height - 1) / 2, 9) + 0.5).astype(np.int64)
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    out: Array = mask[np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)]
    out[~inside] = 0
    return out


def rotate_map_back(values: npt.NDArray[np.floating], degrees: int) -> FloatArray:
    """Bring an (h, w) map over an image turned by `rotate(image, degrees)` back into the image's own frame.

    Returns:
        float32 (h, w), bilinear; NaN in the corners of the image that the turn had moved out of the frame,
        where nothing was inspected.
    """
    height, width = values.shape
    source: FloatArray = np.ascontiguousarray(values, np.float32)
    if degrees % 360 == 0:
        return np.array(source)
    x, y = _frame_offsets(height, width)
    x, y = _turned(x, y, -degrees)
    index, weight = _taps(x, y, height, width)
    flat = source.reshape(-1)
    total = np.zeros(height * width, np.float32)
    for tap in range(4):
        total += flat[index[:, :, tap].ravel()] * (weight[:, :, tap].ravel() / _ONE).astype(np.float32)
    out = total.reshape(height, width)
    half = 0.5 + 1e-9  # a pixel's own half width: its centre may lie that far beyond the outermost centres
    outside = (np.abs(x) > (width - 1) / 2 + half) | (np.abs(y) > (height - 1) / 2 + half)
    out[outside] = np.nan
    return out


def _frame_offsets(height: int, width: int) -> tuple[Any, Any]:
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    return x, y


def _whole_frame_taps(height: int, width: int, degrees: int) -> tuple[IndexArray, IndexArray]:
    index, weight = _taps(*_turned(*_frame_offsets(height, width), degrees), height, width)
    return index.reshape(-1, 4), weight.reshape(-1, 4)


# --- the decision ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alignment:
    """What the position test and the rotation search found, and what a fitted model has to remember of it.

    Attributes:
        score_before: transpose score of the training images as they are.
        score_after: the same after turning each to the first; None where the search was not needed.
        threshold: the score above which positions count as consistent.
        kept: the search was needed and helped; images are turned before anything else is done with them.
        angles: int64 (N,), degrees by training image; zeros unless kept.
        reference: uint8 (h, w, 3), the first training image, which test images are turned to; None unless
        kept.
        searched: int64 (N,), the angles that the search found, kept or not; None where it was not needed. No part of
        a saved alignment.
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
        """Whether the training images, turned if `kept`, pass the transpose test."""
        return self.kept or self.score_before > self.threshold

    def apply(self, image: UInt8Array) -> tuple[UInt8Array, int]:
        """A test image of the network's input size, turned if the alignment is kept, and the angle (0 if
        not).
        """
        if not self.kept or self.reference is None:
            return image, 0
        degrees = best_rotation(image, self.reference)
        return rotate(image, degrees), degrees

    def to_arrays(self) -> dict[str, Array]:
        """The array part, for a model file; `to_json` is the other."""
        arrays: dict[str, Array] = {"angles": self.angles}
        if self.reference is not None:
            arrays["reference"] = self.reference
        return arrays

    def to_json(self) -> dict[str, Any]:
        """The scalar part, of JSON types only."""
        return {
            "score_before": self.score_before,
            "score_after": self.score_after,
            "threshold": self.threshold,
            "kept": self.kept,
        }

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Array], scalars: Mapping[str, Any]) -> Alignment:
        """Inverse of `to_arrays` and `to_json`. Raises ModelCorruptError where they do not fit."""
        try:
            after = scalars["score_after"]
            kept = bool(scalars["kept"])
            reference = arrays["reference"] if kept else None
            alignment = cls(
                score_before=float(scalars["score_before"]),
                score_after=None if after is None else float(after),
                threshold=float(scalars["threshold"]),
                kept=kept,
                angles=np.asarray(arrays["angles"], np.int64),
                reference=reference,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorruptError(f"alignment: {error!r} is missing or malformed; fit the model again.") from error
        if reference is not None and (reference.dtype != np.uint8 or reference.ndim != 3 or reference.shape[2] != 3):
            raise ModelCorruptError("alignment: the reference is no uint8 (h, w, 3) image; fit the model again.")
        return alignment


def align_images(
    images: Iterable[UInt8Array],
    *,
    threshold: float = SUPPLEMENT_THRESHOLD,
    score_before: float | None = None,
    known: IndexArray | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Alignment:
    """Decide about positions and alignment for a training set (supplement D).

    Passed as it is: positions are used and nothing is turned. Failed: every image is turned to the first one
    and the test is run again; passed, the turns and the positions stay; failed, both are dropped.

    Args:
        images: uint8 (h, w, 3), one size, already of the network's input size. Gone over once if
            `score_before` is given, else up to twice (so then it must not be a one-time iterator); one image
            is held at a time.
        threshold: the transpose score to be exceeded.
        score_before: transpose score of the set, where the caller has it already.
        known: int64 (N,), the angle of each image where an earlier search with the same first image has found it, -1
            for the others.
        progress: called as progress("align", done, total); total is 0 where it is not known.

    Raises:
        ParameterError: a threshold that is not a number. TooFewImagesError: no image. MixedSizesError:
        several sizes.
    """
    if not math.isfinite(threshold):
        raise ParameterError(f"threshold={threshold!r}: give a finite number (the supplement's is 600).")
    if score_before is None:
        if iter(images) is images:
            raise ParameterError("images: an iterator can be gone over only once; give a list, or score_before.")
        plain = MeanImage()
        for image in images:
            plain.add(image)
        score_before = transpose_score(plain.mean)
    if score_before > threshold:
        total = len(images) if isinstance(images, Sized) else 0
        return Alignment(score_before, None, threshold, False, np.zeros(total, np.int64), None)

    total = len(images) if isinstance(images, Sized) else 0
    turned = MeanImage()
    angles: list[int] = []
    reference: UInt8Array | None = None
    quarters: DoubleArray | None = None
    for image in images:
        search = _search_of(image)
        if reference is None or quarters is None:
            reference, quarters = image.copy(), search.quarters(image)
        if image.shape != reference.shape:
            raise MixedSizesError(f"images: size {image.shape[:2]} after images of {reference.shape[:2]}.")
        place = len(angles)
        found_before = known is not None and known[place] >= 0
        angles.append(int(known[place]) if known is not None and found_before else search.best(image, quarters))
        turned.add(rotate(image, angles[-1]))
        if progress is not None:
            progress("align", len(angles), total)
    score_after = transpose_score(turned.mean)
    kept = score_after > threshold
    searched = np.asarray(angles, np.int64)
    found = searched if kept else np.zeros(len(angles), np.int64)
    return Alignment(score_before, score_after, threshold, kept, found, reference if kept else None, searched)
