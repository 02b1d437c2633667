"""The operations that InReaCh is made of, each exact and with several backends.

Backends (`available_backends`) differ only in speed: results are bit-identical for every backend,
instruction set, number of threads and batch. Fastest first: ``native`` (compiled C++, `csrc/cpu`), ``numba``
(where there is no compiled extension) and ``torch``; on NVIDIA GPUs ``cuda`` (compiled) and ``cupy``
(compiled at first use), for arrays that are on the GPU already, and for any where they are named.
"""

from __future__ import annotations

from .bank import Bank
from .describing import describe
from .filtering import ChannelFilterResult, filter_channels
from .gpu.devices.limit import get_gpu_memory_limit, set_gpu_memory_limit
from .gpu.devices.opening import is_gpu_name
from .linear import linear_map
from .nearest import mutual_nearest, nearest, nearest_answered, nearest_bounds
from .registry import available_backends, backend_for, backend_of
from .results import AnsweredNearest, MutualNearest, Nearest, NearestBounds, SearchCounts

__all__ = [
    "AnsweredNearest",
    "Bank",
    "ChannelFilterResult",
    "MutualNearest",
    "Nearest",
    "NearestBounds",
    "SearchCounts",
    "available_backends",
    "backend_for",
    "backend_of",
    "describe",
    "filter_channels",
    "get_gpu_memory_limit",
    "is_gpu_name",
    "linear_map",
    "mutual_nearest",
    "nearest",
    "nearest_answered",
    "nearest_bounds",
    "set_gpu_memory_limit",
]
