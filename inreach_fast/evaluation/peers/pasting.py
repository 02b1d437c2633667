"""The augmentations of CutPaste (sections 2.1 and 2.2, and its appendix), on PIL images, from given generators.

Sizes in pixels are the paper's, for inputs of 256 x 256.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image
from torchvision.transforms import functional

from ...array_types import UInt8Array

JITTER: Final = 0.1
"""Greatest change of brightness, contrast, saturation (as a factor) and hue (as a share of the circle)."""
AREA: Final = (0.02, 0.15)
"""Share of the image that a pasted rectangle covers."""
ASPECTS: Final = ((0.3, 1.0), (1.0, 3.3))
"""Height by width of a pasted rectangle: one of the two ranges, each as likely."""
SCAR_WIDTH: Final = (2, 16)
SCAR_HEIGHT: Final = (10, 25)
SCAR_DEGREES: Final = 45.0
SHIFT: Final = 1 / 64
"""Greatest translation, as a share of the side. The paper gives no number."""


def varied(image: UInt8Array, rng: np.random.Generator) -> Image.Image:
    """A training image (H, W, 3), moved by a few pixels (what enters is reflected) and jittered in colour."""
    height, width = image.shape[:2]
    down, right = (max(1, int(side * SHIFT)) for side in (height, width))
    y, x = rng.integers(0, 2 * down + 1), rng.integers(0, 2 * right + 1)
    padded = np.pad(image, ((down, down), (right, right), (0, 0)), mode="reflect")
    return jittered(Image.fromarray(padded[y : y + height, x : x + width]), rng)


def jittered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image with other brightness, contrast, saturation and hue, in this order."""
    change = rng.uniform(-JITTER, JITTER, size=4).tolist()
    image = functional.adjust_brightness(image, 1 + change[0])
    image = functional.adjust_contrast(image, 1 + change[1])
    image = functional.adjust_saturation(image, 1 + change[2])
    made: Image.Image = functional.adjust_hue(image, change[3])
    return made


def cut_paste(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A copy in which a rectangle of the image, jittered, covers another place."""
    area = rng.uniform(*AREA) * image.width * image.height
    aspect = rng.uniform(*ASPECTS[rng.integers(2)])
    return _pasted(image, _cut(image, round((area / aspect) ** 0.5), round((area * aspect) ** 0.5), rng), rng)


def cut_paste_scar(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A copy in which a thin rectangle of the image, jittered and rotated by up to 45 degrees, covers another place."""
    width, height = (int(rng.integers(low, high + 1)) for low, high in (SCAR_WIDTH, SCAR_HEIGHT))
    scar = _cut(image, width, height, rng).convert("RGBA")
    return _pasted(image, scar.rotate(rng.uniform(-SCAR_DEGREES, SCAR_DEGREES), expand=True), rng)


def _cut(image: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    width, height = (min(max(size, 1), side) for size, side in ((width, image.width), (height, image.height)))
    x, y = _place(image, width, height, rng)
    return jittered(image.crop((x, y, x + width, y + height)), rng)


def _pasted(image: Image.Image, patch: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image under a patch, as far as that is opaque."""
    made = image.copy()
    mask = patch.getchannel("A") if patch.mode == "RGBA" else None
    made.paste(patch.convert("RGB"), _place(image, patch.width, patch.height, rng), mask)
    return made


def _place(image: Image.Image, width: int, height: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random corner (x, y) of a rectangle inside the image."""
    x, y = (int(rng.integers(0, side + 1)) for side in (max(image.width - width, 0), max(image.height - height, 0)))
    return x, y
