"""From an image of any size to the network's input and back (ALGORITHM section 1).

Paper and reference: resize to 256x256, then crop the centre 224x224. The default preset resizes to 224x224, so that
the whole image is inspected. Sizes are (height, width) everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..array_types import BoolArray, FloatArray, IndexArray, UInt8Array
from ..errors import DataError, RegionError
from ..parameters import Parameters
from .roi import RegionOfInterest

Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Paint over what is outside of the region of interest, resize, then crop the centre; each may be None."""

    resize: Size | None = (224, 224)  # of the resized image, whatever its aspect ratio
    crop: Size | None = None  # of the centre that is kept
    roi: RegionOfInterest | None = None

    @property
    def own_size(self) -> Size:
        """A size of images that `apply` takes: the region's own, else that of the network's input before the crop."""
        return (None if self.roi is None else self.roi.size) or self.resize or self.crop or (224, 224)

    def apply(self, image: UInt8Array, name: str = "image") -> UInt8Array:
        """Bring an image, uint8 (H, W, 3), to the network's input size, uint8 (h, w, 3), C-contiguous.

        Resampling is Pillow's bilinear filter, widened when shrinking, as in torchvision's `Resize` of a PIL image.
        What is outside of the region of interest is painted over first, so that nothing there has any effect.

        Raises:
            DataError: the image is smaller than the crop. RegionError: as `RegionOfInterest.mask`; ``name`` is in it.
        """
        if self.roi is not None:
            image = self.roi.paint(image, name)
        if self.resize is not None and image.shape[:2] != self.resize:
            height, width = self.resize
            resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        if self.crop is not None:
            top, left = self.corner(image.shape[:2])
            image = image[top : top + self.crop[0], left : left + self.crop[1]]
        return np.ascontiguousarray(image)

    def map_to_original(self, values: npt.NDArray[np.floating], original_size: Size) -> FloatArray:
        """Bring a map of the network's input, (h, w), into the frame of the original image of (H, W) pixels.

        float32 (H, W), bilinear between the map's pixel centres; NaN outside the crop.
        """
        height, width = original_size
        frame = self.resize or (height, width)
        inside = self.crop or frame
        if values.shape != inside:
            raise DataError(f"values: expected the network's input size {inside}, got shape {values.shape}")
        top, left = self.corner(frame)
        rows, row_weight, rows_in = _linear_positions(height, frame[0], top, inside[0])
        cols, col_weight, cols_in = _linear_positions(width, frame[1], left, inside[1])
        source = values.astype(np.float32, copy=False)
        # a + (b - a) * w, so that a constant map stays constant to the bit.
        across = source[:, cols[0]] + (source[:, cols[1]] - source[:, cols[0]]) * col_weight
        above = across[rows[0]]
        out = np.asarray(above + (across[rows[1]] - above) * row_weight[:, None], np.float32)
        out[~rows_in] = np.nan
        out[:, ~cols_in] = np.nan
        return out

    def inspected_size(self, original_size: Size) -> tuple[float, float]:
        """(height, width), in pixels of an original image, of the part of it that the network sees."""
        height, width = original_size
        if self.crop is None:
            return float(height), float(width)
        frame = self.resize or original_size
        return self.crop[0] * height / frame[0], self.crop[1] * width / frame[1]

    def box_to_original(
        self, box: tuple[float, float, float, float], original_size: Size
    ) -> tuple[float, float, float, float]:
        """Brings a box of the network's input into the frame of the original image of (H, W) pixels.

        A box is (top, left, bottom, right) of the edges of pixels: one pixel in the corner is (0, 0, 1, 1).
        """
        height, width = original_size
        frame = self.resize or original_size
        top, left = self.corner(frame)
        down, across = height / frame[0], width / frame[1]
        return (box[0] + top) * down, (box[1] + left) * across, (box[2] + top) * down, (box[3] + left) * across

    def seen(self, mask: BoolArray) -> BoolArray:
        """A mask of an image, bool (H, W), in the frame of its network input (h, w): pixels of which it marks any part.

        False everywhere if what it marks was cropped away.
        """
        frame = self.resize or (int(mask.shape[0]), int(mask.shape[1]))
        (top, left), (height, width) = self.corner(frame), self.crop or frame
        for side, start, count in ((frame[0], top, height), (frame[1], left, width)):  # down, then across
            pixel, old = np.arange(start, start + count), len(mask)
            total = np.zeros((old + 1, mask.shape[1]), np.int64)
            np.cumsum(mask, axis=0, out=total[1:])
            mask = (total[-(-(pixel + 1) * old // side)] > total[pixel * old // side]).T
        return np.ascontiguousarray(mask)

    def corner(self, size: tuple[int, ...]) -> Size:
        """(top, left) of the crop in a resized image of ``size``; DataError if that is smaller than the crop."""
        if self.crop is None:
            return 0, 0
        if self.crop[0] > size[0] or self.crop[1] > size[1]:
            raise DataError(f"image: size {tuple(size)} is smaller than the crop {self.crop}; set resize")
        # rounded as in torchvision's CenterCrop
        return round((size[0] - self.crop[0]) / 2), round((size[1] - self.crop[1]) / 2)


def geometry_of(p: Parameters) -> Geometry:
    """The geometry of a model's images."""
    roi = None if p.roi is None else RegionOfInterest(p.roi)
    return Geometry(p.input_size, None, roi) if p.resize is None else Geometry(p.resize, p.image_size, roi)


def roi_cells(p: Parameters, grid: Size) -> IndexArray | None:
    """The patches of a grid (h, w) that lie in the region of interest by half of their pixels at least; None: all.

    int64 (n,), ascending. RegionError if there is none.
    """
    if p.roi is None:
        return None
    geometry = geometry_of(p)
    frame = geometry.resize or p.input_size
    (top, left), (height, width) = geometry.corner(frame), p.input_size
    inside = RegionOfInterest(p.roi).raster(frame)[top : top + height, left : left + width]
    place = (np.arange(height) * grid[0] // height)[:, None] * grid[1] + np.arange(width) * grid[1] // width
    count = grid[0] * grid[1]
    share = np.bincount(place[inside], minlength=count) * 2 >= np.bincount(place.ravel(), minlength=count)
    cells = np.flatnonzero(share)
    if not len(cells):
        raise RegionError(f"roi: covers no patch of the {grid[0]} x {grid[1]} of an image; give a larger region")
    return cells


def _linear_positions(
    n_out: int, n_frame: int, start: int, n_in: int
) -> tuple[tuple[IndexArray, IndexArray], FloatArray, BoolArray]:
    """For each output pixel on one axis: its two source cells, the weight of the second, and whether it is inside."""
    centre = (np.arange(n_out) + 0.5) * (n_frame / n_out) - start
    inside = (centre >= 0) & (centre < n_in)
    position = np.clip(centre - 0.5, 0, n_in - 1)
    first = np.minimum(position.astype(np.int64), max(n_in - 2, 0))
    second = np.minimum(first + 1, n_in - 1)
    return (first, second), (position - first).astype(np.float32), inside
