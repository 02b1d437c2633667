"""Spread of channels (csrc/cuda/kernels/spread.cuh)."""

from __future__ import annotations

import numpy as np

from ...array_types import DoubleArray, IndexArray
from .device import Device, DeviceArray, blocks, launch_each

_MAX_CHANNELS = 65535  # of a launch: the second extent of a grid
_MEAN_BYTES = 256 << 20


def channel_spread(
    device: Device, members: DeviceArray, rows: IndexArray, starts: IndexArray, mean_bytes: int = _MEAN_BYTES
) -> tuple[DoubleArray, DoubleArray]:
    """See `Backend`; ``members`` are (N, D) float32 on the GPU.

    ``mean_bytes``: memory for the means of channels that are processed together.
    """
    dim = members.shape[1]
    channels = len(starts) - 1
    step = max(1, min(_MAX_CHANNELS, min(mean_bytes, _MEAN_BYTES) // (8 * dim)))
    distance = device.empty(len(rows), np.float64)
    sigma = device.empty(channels, np.float64)
    row_table, start_table = device.upload(rows), device.upload(starts)
    mean = device.empty((min(step, channels), dim), np.float64)
    for first in range(0, channels, step):
        stop = min(first + step, channels)
        begin, end = int(starts[first]), int(starts[stop])
        own = start_table.part(first, stop + 1)
        lengths = np.diff(starts[first : stop + 1])
        channel = device.upload(np.repeat(np.arange(stop - first, dtype=np.int32), lengths))
        grid = blocks(dim, 256), stop - first
        device.launch("channel_mean", grid, 256, (members, row_table, own, np.int32(dim), mean))
        launch_each(
            device, "member_distance", end - begin, members, row_table.part(begin, end), channel, np.int64(0),
            np.int64(end - begin), np.int32(dim), mean, distance.part(begin, end), each=16,
        )  # fmt: skip
    launch_each(device, "channel_sigma", channels, distance, start_table, np.int64(channels), sigma)
    return device.download(distance), device.download(sigma)


def channel_pieces(starts: IndexArray, most: int) -> list[tuple[int, int]]:
    """Runs of channels with at most ``most`` members together; a larger channel is a run of its own."""
    pieces, first = [], 0
    while first < len(starts) - 1:
        stop = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        stop = max(stop, first + 1)
        pieces.append((first, stop))
        first = stop
    return pieces
