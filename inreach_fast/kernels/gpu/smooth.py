"""Smoothed maps and their maxima on a device (csrc/cuda/kernels/smooth.cuh); the bits of `scoring.anomaly_map`."""

from __future__ import annotations

import numpy as np

from ...array_types import DoubleArray
from ..smoothing import axis_operator
from .device import Device, DeviceArray, blocks, fill


class SmoothTables:
    """The two banded matrices of one shape of map, on the device."""

    def __init__(self, device: Device, cells: tuple[int, int], size: tuple[int, int], sigma: float) -> None:
        self.cells, self.size = cells, size
        self.rows, self.columns = (
            _banded(device, axis_operator(n, c, sigma)) for n, c in zip(size, cells, strict=True)
        )


def _banded(
    device: Device, operator: tuple[tuple[int, int, DoubleArray], ...]
) -> tuple[DeviceArray, DeviceArray, DeviceArray, DeviceArray]:
    low, high = (np.array([column[i] for column in operator], np.int32) for i in (0, 1))
    begin = np.cumsum([0] + [len(column[2]) for column in operator])[:-1].astype(np.int32)
    band = np.concatenate([column[2] for column in operator])
    return device.upload(low), device.upload(high), device.upload(begin), device.upload(band)


def launch_smooth(
    device: Device,
    tables: SmoothTables,
    scores: DeviceArray,
    half: DeviceArray,
    smoothed: DeviceArray,
    order: DeviceArray,
    greatest: DeviceArray,
) -> None:
    """Patch scores float32 (B, h, w) to maps float32 (B, H, W) and their maxima float32 (B,).

    ``half`` float64 (B, H, w) and ``order`` uint32 (B,) are work space.
    """
    (rows, columns), (height, width) = tables.cells, tables.size
    batch = scores.shape[0]
    device.launch(
        "smooth_columns",
        (blocks(height * columns, 256), batch),
        256,
        (scores, np.int32(rows), np.int32(columns), np.int32(height), *tables.rows, half),
    )
    fill(device, order, 0)
    device.launch(
        "smooth_rows",
        (blocks(height * width, 256), batch),
        256,
        (half, np.int32(columns), np.int32(height), np.int32(width), *tables.columns, smoothed, order),
    )
    device.launch("greatest_value", (blocks(batch, 256),), 256, (order, np.int32(batch), greatest))


def anomaly_maps(device: Device, tables: SmoothTables, scores: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
    """Maps float32 (B, H, W) and image scores float32 (B,) of patch scores float32 (B, h, w)."""
    batch = scores.shape[0]
    smoothed = device.empty((batch, *tables.size), np.float32)
    greatest = device.empty(batch, np.float32)
    half = device.empty((batch, tables.size[0], tables.cells[1]), np.float64)
    launch_smooth(device, tables, scores, half, smoothed, device.empty(batch, np.uint32), greatest)
    return smoothed, greatest
