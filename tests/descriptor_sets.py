"""Synthetic descriptors in which channels form: patches shared by all images, blurred by an amount of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shared_patches(
    images: int = 8, patches: int = 16, dim: int = 12, seed: int = 0, spread: float = 1.0
) -> NDArray[np.float32]:
    """(images, patches, dim) float32; the blur differs from image to image, so that distances spread."""
    random = np.random.default_rng(seed)
    base = 4 * random.standard_normal((1, patches, dim))
    blur = spread * random.uniform(0.05, 1.0, (images, patches, 1))
    return (base + blur * random.standard_normal((images, patches, dim))).astype(np.float32)
