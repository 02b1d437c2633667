"""A banded linear map of one axis: what upsampling and a Gaussian filter are together."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..array_types import DoubleArray, Int32Array


class Band(tuple[tuple[int, int, DoubleArray], ...]):
    """For each cell of an axis the first output that it adds to, the last one + 1, and the weights, float64."""

    @cached_property
    def packed(self) -> tuple[Int32Array, Int32Array, DoubleArray]:
        """First outputs, ends and all weights one after the other."""
        low, high = (np.array([cell[i] for cell in self], dtype=np.int32) for i in (0, 1))
        return low, high, np.concatenate([cell[2] for cell in self])
