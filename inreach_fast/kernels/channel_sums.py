"""The parts of the spread filter for members that are read image by image and never in memory together.

`filter_channels` needs all members at once. A fit whose members lie on disk adds each image's members to float64 sums
of their channels, and reads them a second time for their distances to the means. An image has at most one member
in a channel, so a channel's sums are in the order of its members either way: the same bits.
"""

from __future__ import annotations

from ..array_types import DoubleArray, FloatArray, IndexArray
from .registry import cpu_backend


def add_rows(rows: FloatArray, slots: IndexArray, sums: DoubleArray, *, backend: str = "auto") -> None:
    """``sums[slots[i]] += rows[i]`` in float64, on the CPU: copying rows to a GPU would take longer.

    Args:
        rows: (m, D) float32. slots: int64 (m,), negative for none, none named twice. sums: float64 (S, D) in C order.
    """
    cpu_backend(backend).add_rows(rows, slots, sums)


def distances(rows: FloatArray, slots: IndexArray, means: DoubleArray, *, backend: str = "auto") -> DoubleArray:
    """Distance of ``rows[i]`` to ``means[slots[i]]``, float64 (m,), NaN where the slot is negative; args as above."""
    return cpu_backend(backend).distances(rows, slots, means)
