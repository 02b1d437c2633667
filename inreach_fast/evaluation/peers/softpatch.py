"""SoftPatch (Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ... import kernels
from ...array_types import DoubleArray, FloatArray, UInt8Array
from ...system.progress import Progress, no_progress
from .patchcore import CORESET, coreset
from .peer import Peer, PeerSettings, check_image, check_images, fitted, upsampled
from .stages import StageDescriptors

LOF_NEIGHBOURS: Final = 6
"""Neighbours of the local outlier factor (section 4)."""
OUTLIERS: Final = 0.15
"""Share of the patches that are left out as noise (section 4)."""


class SoftPatch(Peer):
    """PatchCore's memory without the patches that are outliers at their place, the others weighed by how much they are.

    At each place of the grid the local outlier factor of each image's patch is found among all images' patches
    (section 3), the 15 % of all patches with the greatest factors go, and a coreset of 10 % of the rest stays. A
    distance counts times the factor of the patch that it is measured to (section 3); an image's score is the
    greatest of its patches'. Descriptors, coreset and map are those of `PatchCore`.
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        self._describe = StageDescriptors(settings)
        self.memory: WeighedMemory | None = None

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        rows = self._describe.of_all(images, progress)
        self.memory = WeighedMemory.of(rows, self.settings.seed, self.settings.backend, progress)

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        check_image(image, self.settings)
        scores = fitted(self.memory, self).scores(self._describe(image))
        return float(scores.max()), upsampled(scores.reshape(self._describe.grid), self.settings.image_size)

    def parameters(self) -> dict[str, Any]:
        return {"coreset": CORESET, "lof_neighbours": LOF_NEIGHBOURS, "outliers": OUTLIERS}


class WeighedMemory:
    """The patches that stay, and the outlier factor of each.

    Args:
        rows: float32 (m, D). weight: float32 (m,). backend: of the kernels.
    """

    def __init__(self, rows: FloatArray, weight: FloatArray, backend: str = "auto") -> None:
        self.bank, self.weight, self.backend = kernels.Bank(rows), weight, backend

    @classmethod
    def of(
        cls, rows: FloatArray, seed: int = 0, backend: str = "auto", progress: Progress = no_progress
    ) -> WeighedMemory:
        """The memory of N images' patches at P places, float32 (N, P, D)."""
        factor = outlier_factors(rows, backend, progress).ravel()
        flat = rows.reshape(-1, rows.shape[2])
        kept = np.flatnonzero(factor <= np.quantile(factor, 1.0 - OUTLIERS))
        kept = kept[coreset(flat[kept], CORESET, seed=seed, progress=progress)]
        return cls(np.ascontiguousarray(flat[kept]), factor[kept].astype(np.float32), backend)

    def scores(self, rows: FloatArray) -> FloatArray:
        """The weighed distance, float32 (n,), of patches (n, D)."""
        found = kernels.nearest(rows, self.bank, backend=self.backend)
        return np.asarray(np.sqrt(found.sq_distance) * self.weight[found.index], dtype=np.float32)


def outlier_factors(rows: FloatArray, backend: str = "auto", progress: Progress = no_progress) -> DoubleArray:
    """Local outlier factor (Breunig et al. 2000) of each patch among those of its place, (N, P), for rows (N, P, D).

    With fewer than seven images all others are neighbours; a single image's factors are 1.
    """
    n, p, _ = rows.shape
    found = np.ones((n, p))
    if n == 1:
        return found
    image, k = np.arange(n), min(LOF_NEIGHBOURS, n - 1)
    for place in range(p):
        progress("outlier factors", place, p)
        bank = kernels.Bank(np.ascontiguousarray(rows[:, place]), image)
        others = kernels.nearest(bank, bank, k=k, query_group=image, backend=backend)
        near = others.index.reshape(n, k)
        at = np.sqrt(others.sq_distance.reshape(n, k).astype(np.float64))
        reachable = np.maximum(at, at[near, -1])
        density = 1.0 / np.maximum(reachable.mean(axis=1), 1e-12)
        found[:, place] = density[near].mean(axis=1) / density
    progress("outlier factors", p, p)
    return found
