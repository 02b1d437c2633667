"""GPUs by a backend's name: "cuda", "cupy", and with numbers "cuda:1", "cuda:0,1", "cuda:all"."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

from ....errors import BackendError, GpuError, GpuUnavailableError
from .cupy_gpu import CupyGpu
from .driver_errors import typed_errors
from .gpu import Gpu, Memory
from .memory import CupyMemory, TorchMemory
from .probe import gpu_count

KINDS = ("cuda", "cupy")
_GPUS = re.compile(r"all|\d+(,\d+)*")
# The kernels as nvcc compiled them for the extension.
_FATBIN = Path(__file__).resolve().parents[3] / "_cuda.fatbin"
_pid = os.getpid()
_opened: dict[tuple[str, int], Gpu] = {}
_lock = threading.Lock()


def is_gpu_name(backend: str) -> bool:
    """Whether a backend's name means GPUs."""
    return backend.split(":")[0] in KINDS


def parse_name(backend: str) -> tuple[str, tuple[int, ...] | None]:
    """The kind, and the GPUs' numbers: None for the current one.

    Raises:
        BackendError: no such name, or a GPU named twice. GpuUnavailableError: there is no such GPU.
    """
    kind, colon, gpus = backend.partition(":")
    if kind not in KINDS or (colon and not _GPUS.fullmatch(gpus)):
        raise BackendError(
            f"backend: {backend!r} is not a backend; GPUs are named 'cuda', 'cuda:1', 'cuda:0,1', 'cuda:all'"
        )
    if not colon:
        return kind, None
    count = gpu_count()
    numbers = tuple(range(count)) if gpus == "all" else tuple(int(n) for n in gpus.split(","))
    if len(set(numbers)) != len(numbers):
        raise BackendError(f"backend: {backend!r} names a GPU twice; name each once")
    if max(numbers) >= count:
        raise BackendError(f"backend: {backend!r} names a GPU that does not exist; the driver lists {count}")
    return kind, numbers


def current_gpu() -> int:
    """torch's current GPU, where torch uses CUDA already; else the first."""
    import torch

    cuda: Any = torch.cuda
    return int(cuda.current_device()) if cuda.is_available() and cuda.is_initialized() else 0


def open_gpu(kind: str, ordinal: int) -> Gpu:
    """The GPU, opened once in a process; GpuUnavailableError, GpuMemoryError or GpuError if that fails."""
    if os.getpid() != _pid:
        raise GpuError(
            "CUDA: cannot be used in a forked process; start worker processes with the method 'spawn', or use the CPU "
            "for device and backend there"
        )
    with _lock:
        if (kind, ordinal) not in _opened:
            with typed_errors(f"cuda:{ordinal}"):
                _opened[kind, ordinal] = _extension_gpu(ordinal) if kind == "cuda" else CupyGpu(ordinal)
        return _opened[kind, ordinal]


def _extension_gpu(ordinal: int) -> Gpu:
    from ...._cuda import Gpu as ExtensionGpu

    try:
        return ExtensionGpu(ordinal, _FATBIN.read_bytes())
    except OSError as error:
        raise GpuUnavailableError(
            f"_cuda.fatbin: cannot be read ({error.strerror}); build the package where nvcc is found, or use "
            "backend='cupy'"
        ) from error


def shared_memory(kind: str, ordinal: int) -> Memory | None:
    """torch's allocator where torch can use CUDA, so that network and bank share one pool; CuPy's own for "cupy"."""
    import torch

    if kind == "cupy":
        return CupyMemory(ordinal)
    return TorchMemory(f"cuda:{ordinal}") if torch.cuda.is_available() else None
