"""Principal components of the training images' descriptors: shorter rows that keep nearly all distances.

The paper pools a patch's features to 1024 values. Those of one product vary in far fewer directions, so that the first
components of a sample hold nearly all of their variance. `Projection.__call__` has the same bits everywhere; the fit
runs on one thread of BLAS, so that it does not depend on the number of threads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .. import kernels
from ..array_types import FloatArray
from ..errors import ParameterError

_log = logging.getLogger("inreach_fast")

# Images from which the components are computed. Their descriptors are kept in memory until then.
SAMPLE_IMAGES = 32
# A component whose variance is below this share of the first one's is rounding.
_LEAST_VARIANCE = 1e-10
_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Projection:
    """Linear map of descriptors to their principal components.

    Attributes:
        mean: float32 (D,). matrix: float32 (D, d), a component in each column, the one of the largest variance first.
    """

    mean: FloatArray
    matrix: FloatArray

    @classmethod
    def fit(cls, rows: FloatArray, components: int) -> Projection:
        """The first components of (n, D) float32 rows.

        If the rows vary in fewer directions, there are fewer components, and the log says so.

        Raises:
            ParameterError: the rows are all the same.
        """
        with threadpool_limits(1, "blas"):
            mean = rows.mean(axis=0, dtype=np.float64)
            scatter = np.zeros((rows.shape[1], rows.shape[1]))
            # In blocks, since an interrupt is heard between two products and not within one.
            for start in range(0, len(rows), _BLOCK_ROWS):
                block = rows[start : start + _BLOCK_ROWS] - mean
                scatter += block.T @ block
            first = max(0, len(scatter) - components)
            variances, directions = eigh(scatter, subset_by_index=(first, len(scatter) - 1), overwrite_a=True)
        variances, directions = variances[::-1], directions[:, ::-1]
        rank = int(np.count_nonzero(variances > _LEAST_VARIANCE * max(variances[0], np.finfo(np.float64).tiny)))
        if rank == 0:
            raise ParameterError("pca_dim: all patches are the same and have no components; give pca_dim=None")
        if rank < components:
            _log.warning(
                "pca_dim: the descriptors vary in %d directions only, so that there are %d components, not %d",
                rank, rank, components,
            )  # fmt: skip
        chosen = directions[:, :rank]
        # An eigenvector's sign is arbitrary: its largest value is made positive.
        largest = chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])]
        return cls(mean.astype(np.float32), (chosen * np.sign(largest)).astype(np.float32))

    @property
    def dim(self) -> int:
        """Number of components."""
        return int(self.matrix.shape[1])

    def __call__(self, rows: Any) -> FloatArray:
        """The components of (m, D) descriptors, float32 (m, d), in the CPU's memory."""
        return kernels.linear_map(rows, self.mean, self.matrix)
