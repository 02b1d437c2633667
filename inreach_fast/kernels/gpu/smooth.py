"""Smoothed maps and their maxima (csrc/cuda/kernels/smooth.cuh): the bits of `inreach_fast.method.scoring`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...array_types import DoubleArray
from .device import Device, DeviceArray, blocks, fill, launch_each

# For each input: the first output that it adds to, the last one + 1, and the weights.
Band = Sequence[tuple[int, int, DoubleArray]]


class Smoother:
    """Smooths patch scores (B, h, w) to maps (B, H, W): two banded matrices on the GPU, and work space.

    ``rows`` and ``columns`` are the operators of both axes, from h to H values and from w to W; ``size`` is (H, W).
    """

    def __init__(self, device: Device, rows: Band, columns: Band, size: tuple[int, int], batch: int = 1) -> None:
        self._device, self._cells, self._size = device, (len(rows), len(columns)), size
        self._rows, self._columns = _banded(device, rows), _banded(device, columns)
        self._half = device.empty((batch, size[0], len(columns)), np.float64)
        self._order = device.empty(batch, np.uint32)

    def launch(self, scores: DeviceArray, smoothed: DeviceArray, greatest: DeviceArray) -> None:
        """Scores float32 (B, h, w) to maps float32 (B, H, W) and their maxima float32 (B,)."""
        device, (rows, columns), (height, width) = self._device, self._cells, self._size
        batch = len(self._order)
        fill(device, self._order, 0)
        sides = np.int32(rows), np.int32(columns), np.int32(height)
        grid = blocks(height * columns, 256), batch
        device.launch("smooth_columns", grid, 256, (scores, *sides, *self._rows, self._half))
        sides = np.int32(columns), np.int32(height), np.int32(width)
        grid = blocks(height * width, 256), batch
        device.launch("smooth_rows", grid, 256, (self._half, *sides, *self._columns, smoothed, self._order))
        launch_each(device, "greatest_value", batch, self._order, np.int32(batch), greatest)


def _banded(device: Device, operator: Band) -> tuple[DeviceArray, ...]:
    low, high = (np.array([column[i] for column in operator], np.int32) for i in (0, 1))
    begin = np.cumsum([0] + [len(column[2]) for column in operator])[:-1].astype(np.int32)
    band = np.concatenate([column[2] for column in operator])
    return tuple(device.upload(array) for array in (low, high, begin, band))
