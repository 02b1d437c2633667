"""Maps of patch scores: a banded linear map along each axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..array_types import FloatArray
from .band import Band
from .registry import cpu_backend


def smooth(scores: Any, rows: Band, columns: Band, size: tuple[int, int], *, backend: str = "auto") -> FloatArray:
    """The map, float32 (H, W), of finite scores (h, w): ``rows`` along the first axis, ``columns`` along the second.

    Sums are float64, over the cells in ascending order, each product and sum rounded by itself: every backend gives the
    same bits. It runs on the CPU.
    """
    return cpu_backend(backend).smooth(np.ascontiguousarray(scores, dtype=np.float64), rows, columns, size)
