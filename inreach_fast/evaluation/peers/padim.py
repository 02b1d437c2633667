"""PaDiM (Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
ICPR 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from ...array_types import FloatArray, UInt8Array
from ...system.progress import Progress, no_progress
from ...system.threads import before_torch
from .peer import Peer, PeerSettings, check_image, check_images, fitted, upsampled
from .stages import StageFeatures

DIMENSIONS: Final = 550
"""Values of a patch that are drawn for WideResNet50-2, of 1792 (its PaDiM-WR50-Rd550)."""
DIMENSIONS_SMALL: Final = 100
"""The same for ResNet18, of 448 (PaDiM-R18-Rd100), and here for every network with at most 1024."""
REGULARISATION: Final = 0.01
"""Added to each variance (section III-B, epsilon)."""
_BLOCK: Final = 64  # places whose covariances are computed at a time


class PaDiM(Peer):
    """A Gaussian at each place of the grid, and the Mahalanobis distance to it.

    A patch is the features of layer1, layer2 and layer3 at its place, on the grid of layer1 (section III-A), of which
    550 values are drawn by the seed (100 for small networks). The covariance is regularised by 0.01
    (section III-B). The map is smoothed with sigma 4, and its greatest value is the image's score (section III-C).

    Memory: of N images, P places and d values, with m the smaller one of N and d, P * m * (d + m) * 4 bytes stay; of
    219 images at 56 x 56 places and 550 values 2.1 GB. A covariance of d x d is never kept (see `GaussianGrid`).
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        self._features = StageFeatures(settings)
        (_, h, w), *_ = self._features.shapes
        self.grid = h, w
        channels = sum(shape[0] for shape in self._features.shapes)
        count = min(DIMENSIONS if channels > 1024 else DIMENSIONS_SMALL, channels)
        self.model: GaussianGrid | None = None
        self._drawn = np.sort(np.random.default_rng(settings.seed).permutation(channels)[:count])

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        rows = np.empty((self.grid[0] * self.grid[1], len(images), len(self._drawn)), dtype=np.float32)
        for number, image in enumerate(images):
            progress("describe", number, len(images))
            rows[:, number] = self._patches(image, f"images[{number}]")
        progress("describe", len(images), len(images))
        self.model = GaussianGrid(rows, progress)

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        check_image(image, self.settings)
        distances = fitted(self.model, self).distances(self._patches(image, "image"))
        smooth = upsampled(distances.reshape(self.grid), self.settings.image_size)
        return float(smooth.max()), smooth

    def parameters(self) -> dict[str, Any]:
        return {"dimensions": len(self._drawn), "regularisation": REGULARISATION}

    def _patches(self, image: UInt8Array, name: str) -> FloatArray:
        """The drawn values of each patch, float32 (P, d)."""
        h, w = self.grid
        parts, first = [], 0
        for rows, (channels, own_h, own_w) in zip(self._features(image, name), self._features.shapes, strict=True):
            mine = self._drawn[(self._drawn >= first) & (self._drawn < first + channels)] - first
            place = (np.arange(h) * own_h // h)[:, None] * own_w + np.arange(w) * own_w // w
            parts.append(rows[:, mine][place.ravel()])
            first += channels
        return np.concatenate(parts, axis=1)


class GaussianGrid:
    """A Gaussian with covariance S + 0.01 I at each of P places, and Mahalanobis distances to it.

    S = A'A, with A the centred rows over the root of N - 1, or their triangular factor where there are more images
    than values. So for a difference d to the mean

        d' (A'A + e I)^-1 d = min over w of |d - A'w|^2 / e + |w|^2,  at w = (A A' + e I)^-1 A d,

    and only A and the Cholesky factor of A A' + e I are kept, in float32: both terms are sums of squares, and an error
    of w counts squared.

    Args:
        rows: float32 (P, N, d); they are written to.
    """

    def __init__(self, rows: FloatArray, progress: Progress = no_progress) -> None:
        before_torch(torch.get_num_threads())
        places, n, d = rows.shape
        m = min(n, d)
        self._mean = np.empty((places, d), dtype=np.float32)
        root = rows if n <= d else np.empty((places, d, d), dtype=np.float32)
        factor = np.empty((places, m, m), dtype=np.float32)
        for first in range(0, places, _BLOCK):
            progress("covariances", first, places)
            part = slice(first, first + _BLOCK)
            x = torch.from_numpy(rows[part].astype(np.float64))
            mean = x.mean(dim=1, keepdim=True)
            self._mean[part] = mean[:, 0].numpy()
            x = (x - mean) / max(n - 1, 1) ** 0.5
            if n > d:
                x = torch.linalg.qr(x, mode="r").R
            root[part] = x.numpy()
            gram = x @ x.transpose(1, 2) + REGULARISATION * torch.eye(m, dtype=torch.float64)
            factor[part] = torch.linalg.cholesky(gram).numpy()
        progress("covariances", places, places)
        self._root, self._factor = root, torch.from_numpy(factor)

    def distances(self, patches: FloatArray) -> FloatArray:
        """Mahalanobis distance of the patch at each place, float32 (P,), for patches (P, d)."""
        before_torch(torch.get_num_threads())
        x = (patches - self._mean)[:, None]
        # Products of a matrix and a vector for each place: torch's are several times as slow.
        half = torch.linalg.solve_triangular(
            self._factor, torch.from_numpy(self._root @ x.transpose(0, 2, 1)), upper=False
        )
        w = torch.linalg.solve_triangular(self._factor.transpose(1, 2), half, upper=True).numpy().transpose(0, 2, 1)
        rest = x - w @ self._root
        squared = np.square(rest).sum(axis=(1, 2)) / REGULARISATION + np.square(w).sum(axis=(1, 2))
        return np.asarray(np.sqrt(squared))
