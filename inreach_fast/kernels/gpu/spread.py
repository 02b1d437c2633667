"""Spread of channels on a device (csrc/cuda/kernels/spread.cuh)."""

from __future__ import annotations

import numpy as np

from ...array_types import DoubleArray, IndexArray
from .device import Device, DeviceArray, blocks

_MAX_CHANNELS = 65535  # of a launch: the second extent of a grid
_MEAN_BYTES = 256 << 20


def channel_spread(
    device: Device, members: DeviceArray, rows: IndexArray, starts: IndexArray, mean_bytes: int = _MEAN_BYTES
) -> tuple[DoubleArray, DoubleArray]:
    """See `Backend`; ``members`` (N, D) float32 on the device.

    ``mean_bytes``: memory for means of channels at a time.
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
        of = np.repeat(np.arange(stop - first, dtype=np.int32), np.diff(starts[first : stop + 1]))
        channel = device.upload(of)
        device.launch(
            "channel_mean", (blocks(dim, 256), stop - first), 256, (members, row_table, own, np.int32(dim), mean)
        )
        device.launch(
            "member_distance",
            (blocks(end - begin, 16),),
            256,
            (members, row_table.part(begin, end), channel, np.int64(0), np.int64(end - begin), np.int32(dim), mean,
             distance.part(begin, end)),
        )  # fmt: skip
    device.launch("channel_sigma", (blocks(channels, 256),), 256, (distance, start_table, np.int64(channels), sigma))
    return device.download(distance), device.download(sigma)


def channel_pieces(starts: IndexArray, most: int) -> list[tuple[int, int]]:
    """Runs of channels of ``most`` members together; a channel of more is a run of its own."""
    pieces, first = [], 0
    while first < len(starts) - 1:
        stop = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        stop = max(stop, first + 1)
        pieces.append((first, stop))
        first = stop
    return pieces
