"""Channel spread by the compiled CPU engine (csrc/cpu/engine/filter_channels.cpp)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .. import _core
from .results import FloatArray, IndexArray


def channel_spread(
    members: FloatArray, rows: IndexArray, starts: IndexArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """See `inreach_fast.kernels.filtering.SpreadBackend`."""
    return _core.channel_spread(members, rows, starts)
