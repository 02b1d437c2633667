"""The operator that makes an anomaly map of patch scores, along one axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..array_types import DoubleArray


@lru_cache(maxsize=32)
def axis_operator(n: int, cells: int, sigma: float) -> tuple[tuple[int, int, DoubleArray], ...]:
    """Column j of (Gaussian filter * nearest upsampling) for one axis: (first row, last row + 1, values)."""
    matrix = np.zeros((n, cells), dtype=np.float64)
    matrix[np.arange(n), np.arange(n) * cells // n] = 1.0
    if sigma > 0:
        matrix = gaussian_filter1d(matrix, sigma, axis=0, mode="reflect", truncate=4.0)
    columns = []
    for j in range(cells):
        used = np.flatnonzero(matrix[:, j])
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        columns.append((low, high, np.ascontiguousarray(matrix[low:high, j])))
    return tuple(columns)
