"""The parts of the spread filter for members that are met image by image and never stand in memory together.

`filter_channels` wants all members at once. A fit whose members lie on disk adds each image's members to float64 sums
of their channels, and goes over them a second time for their distances to the means. An image has at most one member
in a channel, so that a channel's sums are in the order of its members either way: the same bits.
"""

from __future__ import annotations

import numpy as np

from ..array_types import DoubleArray, FloatArray, IndexArray
from .distance import exact_sq_distance
from .gpu.devices.opening import is_gpu_name
from .registry import available_backends


def add_rows(rows: FloatArray, slots: IndexArray, sums: DoubleArray, *, backend: str = "auto") -> None:
    """``sums[slots[i]] += rows[i]`` in float64.

    Args:
        rows: (m, D) float32. slots: int64 (m,), negative for none, none named twice. sums: float64 (S, D) in C order.
    """
    if _is_native(backend):
        from .. import _core

        _core.channel_add(rows, slots, sums)
        return
    used = np.flatnonzero(slots >= 0)
    sums[slots[used]] += rows[used]


def distances(rows: FloatArray, slots: IndexArray, means: DoubleArray, *, backend: str = "auto") -> DoubleArray:
    """Distance of ``rows[i]`` to ``means[slots[i]]``, float64 (m,), NaN where the slot is negative; args as above."""
    if _is_native(backend):
        from .. import _core

        return _core.channel_distances(rows, slots, means)
    out = np.full(len(rows), np.nan)
    used = np.flatnonzero(slots >= 0)
    out[used] = np.sqrt(exact_sq_distance(rows[used], means[slots[used]]))
    return out


def _is_native(backend: str) -> bool:
    # Members pass by once: what a GPU would do to them is less than bringing them there.
    on_cpu = backend == "auto" or is_gpu_name(backend)
    return (available_backends()[0] if on_cpu else backend) == "native"
