"""Any number of different pictures, cut from real ones: crops, flips, rotations, scales, brightness.

A map-style Dataset whose pictures are made when they are read, so that thousands of them take no space. Picture i
depends only on the seed and on i.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .workload import data_folder, texture_images

UInt8 = npt.NDArray[np.uint8]
CLASSES = ("bottle", "pill")
_TEXTURES = 64


class VariedImages:
    """A Dataset of uint8 (side, side, 3) pictures.

    Args:
        count: how many.
        folder: of each class, in MVTec AD's layout: "train/good" or "test".
        seed: of every random choice.
        originals: share of pictures that are originals, in a seeded order and each once, until all have been used.
        side: of a picture, in pixels.
    """

    def __init__(
        self, count: int, *, folder: str = "train/good", seed: int = 0, originals: float = 0.0, side: int = 256
    ) -> None:
        self._count, self._seed, self._side = count, seed, side
        self._files = [path for name in CLASSES for path in sorted((data_folder() / name / folder).rglob("*.png"))]
        self._textures: Sequence[UInt8] = () if self._files else list(texture_images(_TEXTURES, seed + len(folder)))
        random = np.random.default_rng([seed, 0])
        order = random.permutation(self.sources)
        shown = np.flatnonzero(random.random(count) < originals)[: self.sources]
        self._original = dict(zip(shown.tolist(), order.tolist(), strict=False))

    @property
    def sources(self) -> int:
        """The real pictures that all others are cut from."""
        return len(self._files) or len(self._textures)

    @property
    def words(self) -> str:
        """A description of the pictures."""
        what = f"MVTec {' and '.join(CLASSES)}" if self._files else "scikit-image textures"
        return f"{self._count} pictures ({len(self._original)} originals) of {self.sources} of {what}"

    def kind(self, i: int) -> str:
        """Class of picture ``i`` if it is an original; "" for a cut one and for textures."""
        number = self._original.get(i, -1)
        return self._files[number].parents[2].name if self._files and number >= 0 else ""

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> UInt8:
        if not 0 <= i < self._count:
            raise IndexError(i)
        if i in self._original:
            return _resized(self._source(self._original[i]), self._side)
        random = np.random.default_rng([self._seed, 1, i])
        return vary(self._source(int(random.integers(self.sources))), random, self._side)

    def _source(self, number: int) -> UInt8:
        if not self._files:
            return self._textures[number]
        from inreach_fast.images.reading import read_image

        return read_image(self._files[number])


def vary(image: UInt8, random: np.random.Generator, side: int) -> UInt8:
    """A square cut of 40 % to 100 % of the shorter side, flipped, rotated by quarter turns, brightness within 20 %."""
    height, width = image.shape[:2]
    cut = int(min(height, width) * random.uniform(0.4, 1.0))
    top, left = int(random.integers(height - cut + 1)), int(random.integers(width - cut + 1))
    out = image[top : top + cut, left : left + cut]
    if random.random() < 0.5:
        out = out[:, ::-1]
    out = np.rot90(out, int(random.integers(4)))
    brighter = np.clip(out.astype(np.float32) * random.uniform(0.8, 1.2), 0, 255)
    return _resized(np.rint(brighter).astype(np.uint8), side)


def _resized(image: UInt8, side: int) -> UInt8:
    from PIL import Image

    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR))
