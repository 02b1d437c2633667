"""The backend "cupy" on the current card; kernels compiled at first use, by CuPy's NVRTC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .bank import Bank
from .describe_plan import Plan
from .gpu_backends import gpu_backend
from .results import FloatArray, IndexArray, MutualNearest, Nearest


def nearest(queries: Bank, bank: Bank, k: int, query_group: IndexArray | None) -> Nearest:
    """See `inreach_fast.kernels.nearest`."""
    return gpu_backend("cupy").nearest(queries, bank, k, query_group)


def mutual_nearest(a: Bank, b: Bank) -> MutualNearest:
    """See `inreach_fast.kernels.mutual_nearest`."""
    return gpu_backend("cupy").mutual_nearest(a, b)


def describe(levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
    """Execute ``plan`` on (B, C, h, w) levels into ``out`` (B, P, dim)."""
    gpu_backend("cupy").describe(levels, plan, out)


def channel_spread(
    members: FloatArray, rows: IndexArray, starts: IndexArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """See `inreach_fast.kernels.filtering.SpreadBackend`."""
    return gpu_backend("cupy").channel_spread(members, rows, starts)
