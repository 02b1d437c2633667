"""Maps of patch scores: a banded linear map along each axis."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..array_types import DoubleArray, FloatArray, Int32Array
from .registry import cpu_backend


class Band(tuple[tuple[int, int, DoubleArray], ...]):
    """For each cell of an axis the first output that it adds to, the last one + 1, and the weights, float64."""

    @cached_property
    def packed(self) -> tuple[Int32Array, Int32Array, DoubleArray]:
        """First outputs, ends and all weights one after the other."""
        low, high = (np.array([cell[i] for cell in self], dtype=np.int32) for i in (0, 1))
        return low, high, np.concatenate([cell[2] for cell in self])


def smooth(scores: Any, rows: Band, columns: Band, size: tuple[int, int], *, backend: str = "auto") -> FloatArray:
    """The map, float32 (H, W), of finite scores (h, w): ``rows`` along the first axis, ``columns`` along the second.

    Sums are float64, over the cells in ascending order, each product and sum rounded by itself: every backend gives the
    same bits. It runs on the CPU.
    """
    return cpu_backend(backend).smooth(np.ascontiguousarray(scores, dtype=np.float64), rows, columns, size)
