"""SPADE (Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ... import kernels
from ...array_types import FloatArray, IndexArray, UInt8Array
from ...system.progress import Progress, no_progress
from .peer import Peer, PeerSettings, check_image, check_images, fitted, upsampled
from .stages import StageFeatures

NEIGHBOURS: Final = 50
"""Training images that an image is compared with (section 4, K)."""


class SPADE(Peer):
    """The nearest training images by pooled features, and the nearest patch among theirs, on three levels.

    The image's score is the mean squared distance of its pooled features to those of the K = 50 nearest training images
    (section 3.2; all of them if there are fewer). The paper pools the last convolution of WideResNet50-2; here it is
    the end of the third stage, the last that our backbones compute.

    A patch's score is the squared distance to the nearest patch of these images (section 3.3, one neighbour) on each of
    layer1, layer2 and layer3, the mean of the three (the pyramid, section 3.4), smoothed with sigma 4.

    Memory: the features of all training images, 1.4 GB for 250 images of 224 x 224 by WideResNet50-2.
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        self._features = StageFeatures(settings)
        self._patches: list[kernels.Bank] = []  # of all training images, for each level
        self._images: kernels.Bank | None = None

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        levels = [np.empty((len(images), h * w, c), dtype=np.float32) for c, h, w in self._features.shapes]
        for number, image in enumerate(images):
            progress("describe", number, len(images))
            for rows, own in zip(levels, self._features(image, f"images[{number}]"), strict=True):
                rows[number] = own
        progress("describe", len(images), len(images))
        self._images = kernels.Bank(np.stack([_pooled(rows) for rows in levels[-1]]))
        self._patches = [kernels.Bank(rows.reshape(-1, rows.shape[2])) for rows in levels]

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        check_image(image, self.settings)
        trained = fitted(self._images, self)
        levels = self._features(image)
        score, images = self._nearest_images(trained, levels[-1])
        size = self.settings.image_size
        total = np.zeros(size, dtype=np.float64)
        for bank, own, (_, h, w) in zip(self._patches, levels, self._features.shapes, strict=True):
            # A bank that is prepared once, with the other images out of reach, is faster than one of these images.
            floor = np.full((len(trained), h * w), np.inf, dtype=np.float32)
            floor[images] = 0
            found = kernels.nearest(own, bank, bank_floor=floor.ravel(), backend=self.settings.backend)
            total += upsampled(found.sq_distance.reshape(h, w), size)
        return score, (total / len(levels)).astype(np.float32)

    def parameters(self) -> dict[str, Any]:
        return {"neighbours": NEIGHBOURS}

    def _nearest_images(self, trained: kernels.Bank, rows: FloatArray) -> tuple[float, IndexArray]:
        """The image's score, and the numbers of the nearest training images, ascending."""
        k = min(NEIGHBOURS, len(trained))
        found = kernels.nearest(_pooled(rows)[None], trained, k=k, backend=self.settings.backend)
        return float(found.sq_distance.mean(dtype=np.float64)), np.sort(found.index.ravel())


def _pooled(rows: FloatArray) -> FloatArray:
    """The mean of an image's patches, float32 (C,)."""
    return np.asarray(rows.mean(axis=0, dtype=np.float64), dtype=np.float32)
