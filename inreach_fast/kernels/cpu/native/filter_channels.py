"""Channel spread by the compiled CPU engine (csrc/cpu/engine/filter_channels.cpp)."""

from __future__ import annotations

from .... import _core
from ....array_types import DoubleArray, FloatArray, IndexArray


def channel_spread(members: FloatArray, rows: IndexArray, starts: IndexArray) -> tuple[DoubleArray, DoubleArray]:
    """See `inreach_fast.kernels.filtering.SpreadBackend`."""
    return _core.channel_spread(members, rows, starts)
