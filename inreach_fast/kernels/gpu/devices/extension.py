"""GPUs through the extension `inreach_fast._cuda`, whose kernels nvcc compiled beforehand."""

from __future__ import annotations

import threading

from .driver_errors import typed_errors
from .gpu import Gpu
from .source import fatbin

_gpus: dict[int, Gpu] = {}
_lock = threading.Lock()


def extension_gpu(ordinal: int) -> Gpu:
    """The GPU of that number, opened once a process.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: it cannot be opened.
    """
    with _lock:
        if ordinal not in _gpus:
            from ...._cuda import Gpu as ExtensionGpu

            with typed_errors(f"cuda:{ordinal}"):
                _gpus[ordinal] = ExtensionGpu(ordinal, fatbin())
        return _gpus[ordinal]
