"""The operations that InReaCh is made of, each exact and each with several backends.

Backends (`available_backends`) differ in speed alone: the answer is the same to the bit, whatever the backend,
instruction set, number of threads or batch. Fastest first: ``native`` (compiled C++, `csrc/cpu`), ``numba``
(where no compiled extension is) and ``torch`` (any torch device); on NVIDIA's GPUs ``cuda`` (compiled) and ``cupy``
(compiled at first use), for arrays that are there already, and for any where they are named.
"""

from __future__ import annotations

from .bank import Bank
from .describing import describe
from .filtering import ChannelFilterResult, filter_channels
from .gpu.devices.limit import get_gpu_memory_limit, set_gpu_memory_limit
from .gpu.devices.opening import is_gpu_name
from .nearest import mutual_nearest, nearest, nearest_answered, nearest_bounds
from .registry import available_backends, backend_for
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
    "describe",
    "filter_channels",
    "get_gpu_memory_limit",
    "is_gpu_name",
    "mutual_nearest",
    "nearest",
    "nearest_answered",
    "nearest_bounds",
    "set_gpu_memory_limit",
]
