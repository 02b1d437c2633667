"""From an image of any size to the network's input, and from the network's frame back (ALGORITHM section 1).

Paper and reference: resize to 256x256, then centre-crop to 224x224. The default preset resizes straight to
224x224, so that no border goes uninspected. Sizes are (height, width) everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..array_types import BoolArray, FloatArray, IndexArray, UInt8Array
from ..errors import DataError, MixedSizesError, ParameterError

Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Resize, then centre crop; either may be None.

    Attributes:
        resize: (height, width) that the whole image is brought to, its aspect ratio not kept; None: its own
        size. crop: (height, width) of the centre that is kept; None: everything.
    """

    resize: Size | None = (224, 224)
    crop: Size | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is None:
                continue
            ok = len(size) == 2 and all(isinstance(v, (int, np.integer)) and v > 0 for v in size)
            if not ok:
                raise ParameterError(f"{name}={size!r}: give (height, width), two whole numbers above zero, or None.")
            object.__setattr__(self, name, (int(size[0]), int(size[1])))
        if self.resize and self.crop and (self.crop[0] > self.resize[0] or self.crop[1] > self.resize[1]):
            raise ParameterError(f"crop={self.crop} does not fit into resize={self.resize}; make resize larger.")

    @classmethod
    def paper(cls) -> Geometry:
        """256x256, then the centre 224x224."""
        return cls(resize=(256, 256), crop=(224, 224))

    @property
    def input_size(self) -> Size | None:
        """(height, width) after `apply`; None where it is each image's own."""
        return self.crop or self.resize

    def apply(self, image: UInt8Array) -> UInt8Array:
        """Bring an image to the network's input size.

        Args:
            image: uint8 (H, W, 3).

        Returns:
            uint8 (h, w, 3), C-contiguous. Resampling is Pillow's bilinear filter with its support widened
            when shrinking, which is what torchvision's `Resize` does with a PIL image.

        Raises:
            DataError: not a uint8 (H, W, 3) array, or smaller than the crop.
        """
        _check_image(image)
        if self.resize is not None and image.shape[:2] != self.resize:
            height, width = self.resize
            resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        if self.crop is not None:
            top, left = self._crop_corner(image.shape[:2])
            image = image[top : top + self.crop[0], left : left + self.crop[1]]
        return np.ascontiguousarray(image)

    def apply_batch(self, images: Iterable[UInt8Array]) -> UInt8Array:
        """`apply` to several images; uint8 (B, h, w, 3).

        Raises:
            MixedSizesError: without `resize` and `crop`, the images differ in size.
            DataError: no image, or one that `apply` refuses.
        """
        done = [self.apply(image) for image in images]
        if not done:
            raise DataError("images: an empty batch; give at least one image.")
        for number, image in enumerate(done):
            if image.shape != done[0].shape:
                raise MixedSizesError(
                    f"images: number {number} is {image.shape[:2]} and number 0 is {done[0].shape[:2]}; "
                    "give them one size, or a Geometry with resize."
                )
        return np.stack(done)

    def map_to_original(self, values: npt.NDArray[np.floating], original_size: Size) -> FloatArray:
        """Bring a map over the network's input back into the frame of the original image.

        Args:
            values: (h, w) map over the network's input, any floating dtype.
            original_size: (H, W) of the image before `apply`.

        Returns:
            float32 (H, W), bilinear between the map's pixel centres; NaN where the crop cut the image away.
        """
        height, width = original_size
        frame = self.resize or (height, width)
        inside = self.crop or frame
        if values.shape != inside:
            raise DataError(f"values: shape {values.shape} is not the network's input size {inside}.")
        top, left = self._crop_corner(frame) if self.crop else (0, 0)
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

    def _crop_corner(self, size: tuple[int, ...]) -> Size:
        assert self.crop is not None
        if self.crop[0] > size[0] or self.crop[1] > size[1]:
            raise DataError(f"image: size {tuple(size)} is smaller than the crop {self.crop}; set resize.")
        # torchvision's CenterCrop rounds so.
        return round((size[0] - self.crop[0]) / 2), round((size[1] - self.crop[1]) / 2)


def _linear_positions(
    n_out: int, n_frame: int, start: int, n_in: int
) -> tuple[tuple[IndexArray, IndexArray], FloatArray, BoolArray]:
    """Along one axis: the two source cells of each output pixel, the weight of the second, and whether
    inside.
    """
    centre = (np.arange(n_out) + 0.5) * (n_frame / n_out) - start
    inside = (centre >= 0) & (centre < n_in)
    position = np.clip(centre - 0.5, 0, n_in - 1)
    first = np.minimum(position.astype(np.int64), max(n_in - 2, 0))
    second = np.minimum(first + 1, n_in - 1)
    return (first, second), (position - first).astype(np.float32), inside


def _check_image(image: UInt8Array) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"image: {what} given, uint8 (H, W, 3) expected; inreach_fast.images.reading.to_rgb8 converts.")
    if 0 in image.shape:
        raise DataError(f"image: shape {image.shape} has no pixels.")
