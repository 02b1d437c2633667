"""The backends behind the names of GPUs, one or several."""

from __future__ import annotations

import threading

from .backend import GpuBackend
from .device import Device
from .devices.opening import current_gpu, open_gpu, parse_name, shared_memory
from .several import SeveralGpus

_single: dict[tuple[str, int], GpuBackend] = {}
_several: dict[tuple[str, tuple[int, ...]], SeveralGpus] = {}
_lock = threading.RLock()


def gpu_backend(name: str) -> GpuBackend | SeveralGpus:
    """What is behind "cuda", "cupy", "cuda:1", "cuda:0,1" or "cuda:all"; its GPUs are opened, once in a process.

    Raises:
        BackendError, GpuUnavailableError, GpuMemoryError, GpuError: unknown name, or a GPU that cannot be used.
    """
    kind, numbers = parse_name(name)
    gpus = (current_gpu(),) if numbers is None else numbers
    if len(gpus) == 1:
        return one_gpu(kind, gpus[0])
    with _lock:
        if (kind, gpus) not in _several:
            _several[kind, gpus] = SeveralGpus(name, [one_gpu(kind, ordinal) for ordinal in gpus])
        return _several[kind, gpus]


def one_gpu(kind: str, ordinal: int) -> GpuBackend:
    """The backend of a single GPU.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: the GPU cannot be used.
    """
    gpu = open_gpu(kind, ordinal)
    with _lock:
        if (kind, ordinal) not in _single:
            _single[kind, ordinal] = GpuBackend(
                f"{kind}:{ordinal}", lambda: Device(gpu, memory=shared_memory(kind, ordinal))
            )
        return _single[kind, ordinal]
