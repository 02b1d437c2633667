"""Small images of one repeating pattern under noise, with and without a defect that is plain to see."""

from __future__ import annotations

import numpy as np

from inreach_fast.array_types import UInt8Array


def patterned_images(count: int, side: int, seed: int = 0, *, defective: bool = False) -> list[UInt8Array]:
    """``count`` images (side, side, 3); a defect is a red square of 12 pixels at (10, 12)."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:side, :side] * (2 * np.pi / 16)
    pattern = np.stack([120 + 60 * np.sin(right), 120 + 60 * np.sin(down), np.full_like(down, 128)], axis=-1)
    images = [np.clip(pattern + rng.normal(0, 4, pattern.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    if defective:
        for image in images:
            image[10:22, 12:24] = 220, 30, 30
    return images
