"""A Gaussian density of embeddings, as CutPaste scores images (section 2.3; Rippel et al., ICPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.covariance import ledoit_wolf

from ...array_types import Array, DoubleArray

_FLOOR: Final = 1e-6


@dataclass(frozen=True)
class GaussianDensity:
    """Mean and covariance of embeddings. A score is the Mahalanobis distance, which orders as the negative log density.

    Attributes:
        mean: float64 (D,).
        root: float64 (D, D), lower Cholesky factor of the covariance.
    """

    mean: DoubleArray
    root: DoubleArray

    @classmethod
    def fit(cls, embeddings: Array) -> GaussianDensity:
        """The density of embeddings (n, D), n at least 1.

        The covariance is Ledoit and Wolf's, since there are usually fewer images than values, with 1e-6 of the mean
        variance added to each. Where all embeddings are equal it is the identity, and a score the Euclidean distance.
        """
        rows = np.asarray(embeddings, dtype=np.float64)
        size = rows.shape[1]
        covariance = np.zeros((size, size)) if len(rows) == 1 else ledoit_wolf(rows)[0]
        mean_variance = np.trace(covariance) / size
        covariance = covariance + _FLOOR * mean_variance * np.eye(size) if mean_variance > 0 else np.eye(size)
        return cls(rows.mean(axis=0), np.linalg.cholesky(covariance))

    def distances(self, embeddings: Array) -> DoubleArray:
        """Mahalanobis distances (n,), float64, of embeddings (n, D)."""
        rows = np.asarray(embeddings, dtype=np.float64) - self.mean
        return np.asarray(np.linalg.norm(solve_triangular(self.root, rows.T, lower=True), axis=0))

    def gradient(self, embedding: Array) -> DoubleArray:
        """Derivative (D,), float64, of the squared distance by the values of an embedding (D,)."""
        row = np.asarray(embedding, dtype=np.float64) - self.mean
        half = solve_triangular(self.root, row, lower=True)
        return np.asarray(2 * solve_triangular(self.root, half, lower=True, trans="T"))
