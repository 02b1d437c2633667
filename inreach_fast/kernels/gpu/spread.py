"""Spread of channels (csrc/cuda/kernels/spread.cuh)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...array_types import DoubleArray, IndexArray
from .device import Device, DeviceArray, blocks, launch_each

_MAX_CHANNELS = 65535  # of a launch: the second extent of a grid
_MEAN_BYTES = 256 << 20


def channel_spread(
    device: Device, members: DeviceArray, rows: IndexArray, starts: IndexArray, mean_bytes: int
) -> tuple[DoubleArray, DoubleArray]:
    """See `Backend`; ``members`` are (N, D) float32 on the GPU, and the means of a run take at most ``mean_bytes``."""
    dim, channels = members.shape[1], len(starts) - 1
    step = max(1, min(_MAX_CHANNELS, min(mean_bytes, _MEAN_BYTES) // (8 * dim)))
    distance, sigma = (device.empty(count, np.float64) for count in (len(rows), channels))
    row_table, start_table = device.upload(rows), device.upload(starts)
    mean = device.empty((min(step, channels), dim), np.float64)
    for first in range(0, channels, step):
        stop = min(first + step, channels)
        begin, end = int(starts[first]), int(starts[stop])
        own = start_table.part(first, stop + 1)
        channel = device.upload(np.repeat(np.arange(stop - first, dtype=np.int32), np.diff(starts[first : stop + 1])))
        grid = blocks(dim, 256), stop - first
        device.launch("channel_mean", grid, 256, (members, row_table, own, np.int32(dim), mean))
        launch_each(
            device, "member_distance", end - begin, members, row_table.part(begin, end), channel, np.int64(0),
            np.int64(end - begin), np.int32(dim), mean, distance.part(begin, end), each=16,
        )  # fmt: skip
    launch_each(device, "channel_sigma", channels, distance, start_table, np.int64(channels), sigma)
    return device.download(distance), device.download(sigma)


def channel_pieces(starts: IndexArray, most: int) -> Iterator[tuple[int, int]]:
    """Runs of channels with at most ``most`` members together; a larger channel is a run of its own."""
    first = 0
    while first < len(starts) - 1:
        stop = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
        yield first, stop
        first = stop
