"""Labelled, unsorted images cut from real photographs of surfaces: the demo's data, and small data for tests.

The photographs (brick, gravel, grass; 512x512, CC0) ship inside scikit-image: nothing is downloaded. Each
image is a crop at a random place, slightly turned, scaled, lit and noisy, as a camera over a moving surface
gives it. Training and test crops come from parts of the photograph that do not touch, so that no test pixel
was ever trained on. Then defects are put in: a patch of a foreign surface, a scratch, a stain, a region out
of focus, each with its exact mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError

TEXTURES = ("brick", "gravel", "grass")
DEFECTS = ("foreign", "scratch", "stain", "blur")

_PHOTO_SIDE = 512
_GAP = 8  # columns left out between the parts for training and for test
_LEAST_SIDE, _GREATEST_SIDE = 32, 240
_LEAST_CHANGE = 6.0  # 8-bit units a pixel must change by to count as defective

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Photo = NDArray[np.float32]


@dataclass(frozen=True)
class TextureSet:
    """Images uint8 (n,size,size,3) RGB and masks bool (n,size,size), True where defective; kinds name each
    defect.

    An image without a defect has an empty mask and the kind ``"good"``. The training set is unsorted:
    defective images lie anywhere in it.
    """

    texture: str
    train_images: Image
    train_masks: Mask
    train_kinds: tuple[str, ...]
    test_images: Image
    test_masks: Mask
    test_kinds: tuple[str, ...]

    @property
    def train_labels(self) -> Mask:
        """bool (n_train,): which training images hide a defect."""
        return np.asarray(self.train_masks.any(axis=(1, 2)))

    @property
    def test_labels(self) -> Mask:
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
    """Cut a training set with hidden defects, and a test set of which half is defective.

    texture: "brick", "gravel" or "grass". defect_share: share of the training images that hide a defect, 0 to
    1, rounded to whole images; the defect kinds take turns, so all occur. size: side of the square crops in
    pixels, 32 to 240. seed: the same arguments give the same set.

    Raises ParameterError naming the argument.
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
    # The test part is as narrow as it may be, since variety matters more in training.
    split = _PHOTO_SIDE - size - 2 * _GAP
    parts = photo[:, : split - _GAP], photo[:, split:]
    rng = np.random.default_rng([seed, TEXTURES.index(texture)])
    train = _cut(parts[0], foreign, n_train, round(n_train * defect_share), size, rng)
    test = _cut(parts[1], foreign, n_test, n_test // 2, size, rng)
    return TextureSet(texture, *train, *test)


def _photograph(name: str) -> Photo:
    from skimage import data

    pixels: Any = getattr(data, name)()
    return np.asarray(pixels, dtype=np.float32)


def _cut(
    part: Photo, foreign: list[Photo], count: int, defective: int, size: int, rng: np.random.Generator
) -> tuple[Image, Mask, tuple[str, ...]]:
    """``count`` crops of which ``defective``, at random places of the list, get a defect."""
    images = np.zeros((count, size, size, 3), dtype=np.uint8)
    masks = np.zeros((count, size, size), dtype=bool)
    kinds = ["good"] * count
    for turn, place in enumerate(rng.permutation(count)[:defective]):
        kinds[place] = DEFECTS[turn % len(DEFECTS)]
    for place in range(count):
        if kinds[place] == "good":
            crop = _crop(part, size, rng)
        else:
            _, crop, masks[place] = _defective_crop(kinds[place], part, foreign, size, rng)
        images[place] = _photographed(crop, rng)
    return images, masks, tuple(kinds)


def _crop(part: Photo, size: int, rng: np.random.Generator) -> Photo:
    """A size x size view at a random place, turned by up to 2 degrees and scaled by up to 3 %."""
    from scipy.ndimage import affine_transform

    angle, scale = np.deg2rad(rng.uniform(-2.0, 2.0)), rng.uniform(0.97, 1.03)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = (size - 1) / 2.0
    centre = np.array([rng.uniform(half, side - 1 - half) for side in part.shape])
    # The corners of a turned view may reach beyond the part by some pixels: mirrored, never the other part's.
    crop: Photo = affine_transform(
        part, turn, offset=centre - turn @ (half, half), output_shape=(size, size), order=1, mode="mirror"
    )
    return crop


def _photographed(crop: Photo, rng: np.random.Generator) -> Image:
    """Uneven light (gain and a gradient of some per cent), a slight tint, sensor noise; uint8
    (size,size,3).
    """
    size = crop.shape[0]
    down, right = np.meshgrid(np.linspace(-0.5, 0.5, size), np.linspace(-0.5, 0.5, size), indexing="ij")
    light = rng.uniform(0.95, 1.05) * (1.0 + rng.uniform(-0.04, 0.04) * down + rng.uniform(-0.04, 0.04) * right)
    tint = rng.uniform(0.98, 1.02, size=3)
    lit = (crop * light)[:, :, None] * tint + rng.normal(0.0, 1.5, size=(size, size, 3))
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _defective_crop(
    kind: str, part: Photo, foreign: list[Photo], size: int, rng: np.random.Generator
) -> tuple[Photo, Photo, Mask]:
    """A crop before and after one defect of its kind, and the mask of what that visibly changed (never
    empty).
    """
    while True:
        crop = _crop(part, size, rng)
        changed = _MAKERS[kind](crop, foreign, rng)
        visible = np.abs(changed - crop) >= _LEAST_CHANGE
        # On an even spot a defect may change next to nothing (a small blur within one brick): nobody would
        # see it, so another view and place are drawn. The photographs have texture all over, so this ends
        # soon.
        if visible.sum() >= 0.002 * visible.size:
            mask = _solid(visible)
            return crop, np.where(mask, changed, crop), mask


def _solid(mask: Mask) -> Mask:
    """Closed and filled: pixels inside a defect that chance to match what they cover belong to it too."""
    from scipy.ndimage import binary_closing, binary_fill_holes

    padded = np.pad(mask, 3)
    solid: Mask = binary_fill_holes(binary_closing(padded, structure=np.ones((5, 5), dtype=bool)))[3:-3, 3:-3]
    return solid


def _blob(size: int, radius: float, rng: np.random.Generator) -> Photo:
    """A soft-edged, irregular spot, 0..1: a circle whose radius wobbles with the angle."""
    row, column = np.mgrid[0:size, 0:size].astype(np.float32)
    y, x = rng.uniform(radius, size - 1 - radius, size=2)
    angle = np.arctan2(row - y, column - x)
    wobble = sum(rng.uniform(0.0, 0.18) * np.sin(k * angle + rng.uniform(0.0, 2 * np.pi)) for k in (2, 3, 5))
    inside = radius * (0.85 + wobble) - np.hypot(row - y, column - x)
    return np.asarray(np.clip(inside / 2.0 + 0.5, 0.0, 1.0), dtype=np.float32)


def _foreign(crop: Photo, foreign: list[Photo], rng: np.random.Generator) -> Photo:
    """A piece of another surface, brought to the crop's own brightness: texture alone gives it away."""
    size = crop.shape[0]
    other = foreign[int(rng.integers(len(foreign)))]
    top, left = rng.integers(0, _PHOTO_SIDE - size, size=2)
    piece = other[top : top + size, left : left + size]
    piece = (piece - piece.mean()) * (crop.std() / max(float(piece.std()), 1.0)) + crop.mean()
    spot = _blob(size, size * rng.uniform(0.07, 0.15), rng)
    return np.asarray(crop * (1 - spot) + piece * spot, dtype=np.float32)


def _scratch(crop: Photo, foreign: list[Photo], rng: np.random.Generator) -> Photo:
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


def _stain(crop: Photo, foreign: list[Photo], rng: np.random.Generator) -> Photo:
    """A wet or oily spot: darker, with less contrast, the texture still to be seen through it."""
    spot = _blob(crop.shape[0], crop.shape[0] * rng.uniform(0.07, 0.14), rng)
    wet = (crop - crop.mean()) * 0.6 + crop.mean() * rng.uniform(0.55, 0.75)
    return np.asarray(crop * (1 - spot) + wet * spot, dtype=np.float32)


def _blur(crop: Photo, foreign: list[Photo], rng: np.random.Generator) -> Photo:
    """A region worn smooth or out of focus."""
    from scipy.ndimage import gaussian_filter

    size = crop.shape[0]
    spot = _blob(size, size * rng.uniform(0.09, 0.16), rng)
    smooth: Photo = gaussian_filter(crop, sigma=size / 224 * rng.uniform(3.0, 5.0))
    return np.asarray(crop * (1 - spot) + smooth * spot, dtype=np.float32)


_MAKERS: dict[str, Callable[[Photo, list[Photo], np.random.Generator], Photo]] = {
    "foreign": _foreign,
    "scratch": _scratch,
    "stain": _stain,
    "blur": _blur,
}
