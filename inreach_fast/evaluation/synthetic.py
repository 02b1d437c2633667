"""Labelled, unsorted images cut from real photographs of surfaces: the demo's data, and small data for tests.

The photographs (brick, gravel, grass; 512 x 512, CC0) are part of scikit-image. Each image is a crop at a random place,
slightly rotated, scaled, lit and noisy. Training and test crops are drawn in the same way from the whole photograph, as
one surface that is photographed again and again: a threshold chosen on training images holds for new images only where
both come from one distribution. (Training crops overlap each other. Test crops of a part of their own would overlap
none, and every one of them would score higher than the training crops do.) Then defects are added, with their masks: a
patch of another surface, a scratch, a stain, a blurred region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, binary_closing, binary_fill_holes, gaussian_filter

from ..array_types import BoolArray, FloatArray, UInt8Array
from ..errors import ParameterError

TEXTURES = ("brick", "gravel", "grass")
DEFECTS = ("foreign", "scratch", "stain", "blur")

_PHOTO_SIDE = 512
_LEAST_SIDE, _GREATEST_SIDE = 32, 240
_LEAST_CHANGE = 6.0  # 8-bit units a pixel must change by to count as defective


@dataclass(frozen=True)
class TextureSet:
    """Images uint8 (n, size, size, 3) RGB; masks bool (n, size, size), True is defective; kinds name the defects.

    An image without a defect has an empty mask and the kind ``"good"``. Defective images are anywhere in the sets.
    """

    texture: str
    train_images: UInt8Array
    train_masks: BoolArray
    train_kinds: tuple[str, ...]
    test_images: UInt8Array
    test_masks: BoolArray
    test_kinds: tuple[str, ...]

    @property
    def train_labels(self) -> BoolArray:
        """bool (n_train,): which training images hide a defect."""
        return np.asarray(self.train_masks.any(axis=(1, 2)))

    @property
    def test_labels(self) -> BoolArray:
        """bool (n_test,): which test images hold a defect."""
        return np.asarray(self.test_masks.any(axis=(1, 2)))


def make_texture_set(
    texture: str = "brick",
    n_train: int = 40,
    n_test: int = 20,
    defect_share: float = 0.25,
    size: int = 224,
    seed: int = 0,
) -> TextureSet:
    """Makes a training set with hidden defects, and a test set of which half is defective.

    Args:
        texture: "brick", "gravel" or "grass".
        n_train, n_test: numbers of images.
        defect_share: share of defective training images, 0 to 1; the kinds of defects take turns.
        size: side of the images, 32 to 240 pixels.
        seed: the same arguments give the same set.

    Raises:
        ParameterError: names the argument.
    """
    if texture not in TEXTURES:
        raise ParameterError(f"texture: must be one of {', '.join(TEXTURES)}, got {texture!r}")
    for name, value, least in (("n_train", n_train, 1), ("n_test", n_test, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ParameterError(f"{name}: must be an integer of at least {least}, got {value!r}")
    if isinstance(size, bool) or not isinstance(size, int) or not _LEAST_SIDE <= size <= _GREATEST_SIDE:
        raise ParameterError(f"size: must be an integer from {_LEAST_SIDE} to {_GREATEST_SIDE}, got {size!r}")
    if not 0.0 <= defect_share <= 1.0:
        raise ParameterError(f"defect_share: must be from 0 to 1, got {defect_share!r}")

    photo = _photograph(texture)
    foreign = [_photograph(other) for other in TEXTURES if other != texture]
    rng = np.random.default_rng([seed, TEXTURES.index(texture)])
    train = _cut(photo, foreign, n_train, round(n_train * defect_share), size, rng)
    test = _cut(photo, foreign, n_test, n_test // 2, size, rng)
    return TextureSet(texture, *train, *test)


def _photograph(name: str) -> FloatArray:
    from skimage import data

    pixels: Any = getattr(data, name)()
    return np.asarray(pixels, dtype=np.float32)


def _cut(
    photo: FloatArray, foreign: list[FloatArray], count: int, defective: int, size: int, rng: np.random.Generator
) -> tuple[UInt8Array, BoolArray, tuple[str, ...]]:
    images = np.zeros((count, size, size, 3), dtype=np.uint8)
    masks = np.zeros((count, size, size), dtype=bool)
    kinds = ["good"] * count
    for turn, place in enumerate(rng.permutation(count)[:defective]):
        kinds[place] = DEFECTS[turn % len(DEFECTS)]
    for place in range(count):
        if kinds[place] == "good":
            crop = _crop(photo, size, rng)
        else:
            _, crop, masks[place] = _defective_crop(kinds[place], photo, foreign, size, rng)
        images[place] = _photographed(crop, rng)
    return images, masks, tuple(kinds)


def _crop(photo: FloatArray, size: int, rng: np.random.Generator) -> FloatArray:
    """A view at a random place, rotated by up to 2 degrees and scaled by up to 3 %."""
    angle, scale = np.deg2rad(rng.uniform(-2.0, 2.0)), rng.uniform(0.97, 1.03)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = (size - 1) / 2.0
    centre = np.array([rng.uniform(half, side - 1 - half) for side in photo.shape])
    # The corners of a rotated view can reach beyond the photograph: they are mirrored.
    crop: FloatArray = affine_transform(
        photo, turn, offset=centre - turn @ (half, half), output_shape=(size, size), order=1, mode="mirror"
    )
    return crop


def _photographed(crop: FloatArray, rng: np.random.Generator) -> UInt8Array:
    """Adds uneven light (gain and gradient of some per cent), a slight tint and sensor noise; uint8 RGB."""
    size = crop.shape[0]
    down, right = np.meshgrid(np.linspace(-0.5, 0.5, size), np.linspace(-0.5, 0.5, size), indexing="ij")
    light = rng.uniform(0.95, 1.05) * (1.0 + rng.uniform(-0.04, 0.04) * down + rng.uniform(-0.04, 0.04) * right)
    tint = rng.uniform(0.98, 1.02, size=3)
    lit = (crop * light)[:, :, None] * tint + rng.normal(0.0, 1.5, size=(size, size, 3))
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _defective_crop(
    kind: str, photo: FloatArray, foreign: list[FloatArray], size: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """A crop before and after one defect, and the mask of what it visibly changed (never empty)."""
    while True:
        crop = _crop(photo, size, rng)
        changed = _MAKERS[kind](crop, foreign, rng)
        visible = np.abs(changed - crop) >= _LEAST_CHANGE
        # A defect can be invisible (a small blur within one brick): then another view and place are drawn.
        if visible.sum() >= 0.002 * visible.size:
            # Closed and filled: pixels in a defect that happen to match what they cover belong to it too.
            closed = binary_closing(np.pad(visible, 3), structure=np.ones((5, 5), dtype=bool))
            mask: BoolArray = binary_fill_holes(closed)[3:-3, 3:-3]
            return crop, np.where(mask, changed, crop), mask


def _blob(size: int, radius: float, rng: np.random.Generator) -> FloatArray:
    """A soft-edged, irregular spot, 0..1: a circle whose radius wobbles with the angle."""
    row, column = np.mgrid[0:size, 0:size].astype(np.float32)
    y, x = rng.uniform(radius, size - 1 - radius, size=2)
    angle = np.arctan2(row - y, column - x)
    wobble = sum(rng.uniform(0.0, 0.18) * np.sin(k * angle + rng.uniform(0.0, 2 * np.pi)) for k in (2, 3, 5))
    inside = radius * (0.85 + wobble) - np.hypot(row - y, column - x)
    return np.asarray(np.clip(inside / 2.0 + 0.5, 0.0, 1.0), dtype=np.float32)


def _foreign(crop: FloatArray, foreign: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """A piece of another surface, with the crop's brightness and contrast."""
    size = crop.shape[0]
    other = foreign[int(rng.integers(len(foreign)))]
    top, left = rng.integers(0, _PHOTO_SIDE - size, size=2)
    piece = other[top : top + size, left : left + size]
    piece = (piece - piece.mean()) * (crop.std() / max(float(piece.std()), 1.0)) + crop.mean()
    spot = _blob(size, size * rng.uniform(0.07, 0.15), rng)
    return np.asarray(crop * (1 - spot) + piece * spot, dtype=np.float32)


def _scratch(crop: FloatArray, foreign: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """A thin, slightly bent, bright or dark line."""
    size = crop.shape[0]
    row, column = np.mgrid[0:size, 0:size].astype(np.float32)
    length, angle = size * rng.uniform(0.3, 0.6), rng.uniform(0.0, np.pi)
    reach = 0.5 * length + 2
    y, x = rng.uniform(min(reach, size / 2), max(size - reach, size / 2), size=2)
    along = (column - x) * np.cos(angle) + (row - y) * np.sin(angle)
    across = (row - y) * np.cos(angle) - (column - x) * np.sin(angle)
    across = across - rng.uniform(-0.15, 0.15) * along**2 / length * 2
    width = max(size / 224 * rng.uniform(1.2, 2.2), 0.8)
    line = np.clip(width + 0.5 - np.abs(across), 0, 1) * np.clip(length / 2 - np.abs(along) + 0.5, 0, 1)
    tone = float(rng.choice([crop.mean() + 70, crop.mean() - 70]))
    strength = rng.uniform(0.6, 0.9)
    return np.asarray(crop * (1 - strength * line) + tone * strength * line, dtype=np.float32)


def _stain(crop: FloatArray, foreign: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """A wet or oily spot: darker, with less contrast, the texture still visible."""
    spot = _blob(crop.shape[0], crop.shape[0] * rng.uniform(0.07, 0.14), rng)
    wet = (crop - crop.mean()) * 0.6 + crop.mean() * rng.uniform(0.55, 0.75)
    return np.asarray(crop * (1 - spot) + wet * spot, dtype=np.float32)


def _blur(crop: FloatArray, foreign: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """A region that is worn smooth or out of focus."""
    size = crop.shape[0]
    spot = _blob(size, size * rng.uniform(0.09, 0.16), rng)
    smooth: FloatArray = gaussian_filter(crop, sigma=size / 224 * rng.uniform(3.0, 5.0))
    return np.asarray(crop * (1 - spot) + smooth * spot, dtype=np.float32)


_MAKERS: dict[str, Callable[[FloatArray, list[FloatArray], np.random.Generator], FloatArray]] = {
    "foreign": _foreign,
    "scratch": _scratch,
    "stain": _stain,
    "blur": _blur,
}
