"""Thumbnails of the training images: small pictures that explanations show, and the size of each image.

They are made of the network's inputs, so that a fit and every change of a model give the same bytes, and show what the
network sees of an image, in the image's own proportions and not rotated.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image

from ..array_types import Array, IndexArray, UInt8Array
from ..errors import ModelCorruptError
from ..images.preprocess import Geometry
from ..system.memory import mapped_runs

MOST_SIDE: Final = 96
"""Pixels of a thumbnail's longer side, at most."""
_QUALITY: Final = 80


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Of N training images, by their numbers.

    Attributes:
        sizes: int64 (N, 2), (height, width) of each image as it was given; 0 where that is not known.
        jpeg: uint8 (bytes,), the pictures, one JPEG after the other; None if only the sizes are kept.
        ends: int64 (N,), where each picture ends in ``jpeg``.
    """

    sizes: IndexArray
    jpeg: UInt8Array | None = None
    ends: IndexArray | None = None

    @classmethod
    def of_inputs(cls, inputs: UInt8Array, sizes: IndexArray, geometry: Geometry) -> Thumbnails:
        """The thumbnails of network inputs, (N, H, W, 3), of images of these sizes, (N, 2)."""
        files = [
            thumbnail(inputs[i], geometry, (int(sizes[i, 0]), int(sizes[i, 1])))
            for run in mapped_runs(len(inputs), (inputs,))
            for i in range(run.start, run.stop)
        ]
        jpeg = np.frombuffer(b"".join(files), dtype=np.uint8)
        return cls(np.array(sizes, dtype=np.int64), jpeg, np.cumsum([len(file) for file in files], dtype=np.int64))

    def without_pictures(self) -> Thumbnails:
        """The sizes alone."""
        return replace(self, jpeg=None, ends=None)

    def size(self, image: int) -> tuple[int, int] | None:
        """(height, width) of an image as it was given, or None."""
        height, width = self.sizes[image].tolist()
        return (height, width) if height > 0 and width > 0 else None

    def file(self, image: int) -> bytes | None:
        """The picture of an image as a JPEG file, or None."""
        if self.jpeg is None or self.ends is None:
            return None
        start = int(self.ends[image - 1]) if image else 0
        return self.jpeg[start : int(self.ends[image])].tobytes()

    def picture(self, image: int) -> UInt8Array | None:
        """The picture of an image, uint8 (h, w, 3), or None. ModelCorruptError if it cannot be decoded."""
        file = self.file(image)
        if file is None:
            return None
        try:
            with Image.open(io.BytesIO(file), formats=["JPEG"]) as picture:
                if max(picture.size) > MOST_SIDE:
                    raise ValueError(f"{picture.size} pixels")
                return np.array(picture.convert("RGB"))
        except (OSError, ValueError) as error:
            raise ModelCorruptError(
                f"the thumbnail of training image {image} cannot be read ({error}); copy the model again, or fit again"
            ) from error

    def to_arrays(self) -> dict[str, Array]:
        """For a model file."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], images: int) -> Thumbnails:
        """Inverse of `to_arrays`; KeyError or ValueError: a part is missing, or parts do not fit ``images`` images."""
        jpeg, ends = arrays.get("jpeg"), arrays.get("ends")
        sizes = np.array(arrays["sizes"], dtype=np.int64)
        if sizes.shape != (images, 2) or (jpeg is None) != (ends is None):
            raise ValueError("the thumbnails do not fit the training images")
        if jpeg is not None and ends is not None:
            ends = np.array(ends, dtype=np.int64)
            increasing = bool((np.diff(ends, prepend=0) > 0).all())
            if jpeg.dtype != np.uint8 or ends.shape != (images,) or not increasing or jpeg.shape != (ends[-1],):
                raise ValueError("the thumbnails do not fit the training images")
        return cls(sizes, jpeg, ends)


def thumbnail(image: UInt8Array, geometry: Geometry, size: tuple[int, int]) -> bytes:
    """A network input, (H, W, 3), as a small JPEG file, in the proportions of the image of ``size`` that it shows."""
    height, width = geometry.inspected_size(size) if min(size) > 0 else image.shape[:2]
    factor = min(MOST_SIDE, max(image.shape[:2])) / max(height, width)
    small = Image.fromarray(image).resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BILINEAR
    )
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=_QUALITY)
    return out.getvalue()
