"""The exact distance of given pairs of rows."""

from __future__ import annotations

import numpy as np

from ..array_types import Array, DoubleArray


def exact_sq_distance(x: Array, y: Array) -> DoubleArray:
    """Squared L2 distance of matching rows, (m, D) and (m, D) -> float64 (m,), in the kernels' order of summation.

    Sixteen virtual lanes, each product rounded before it is added, folded in a fixed tree (csrc/README.md).
    """
    d = x.astype(np.float64) - y.astype(np.float64)
    d *= d
    d = np.pad(d, ((0, 0), (0, -d.shape[1] % 16)))
    lanes = np.zeros((len(d), 16))
    for start in range(0, d.shape[1], 16):
        lanes += d[:, start : start + 16]
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
    return np.asarray(lanes[:, 0])
