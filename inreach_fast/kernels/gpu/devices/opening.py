"""The devices behind a backend's name: "cuda", "cupy", and with GPUs "cuda:1", "cuda:0,1", "cuda:all"."""

from __future__ import annotations

import os
import re
from typing import Any

from ....errors import BackendError, GpuError
from .gpu import Gpu, GpuDevice, Memory
from .probe import gpu_count

KINDS = ("cuda", "cupy")
_GPUS = re.compile(r"all|\d+(,\d+)*")
_pid = os.getpid()


def is_gpu_name(backend: str) -> bool:
    """Whether a backend's name means GPUs."""
    return backend.split(":")[0] in KINDS


def parse_name(backend: str) -> tuple[str, tuple[int, ...] | None]:
    """The kind, and the GPUs' numbers: None for the current one.

    Raises:
        BackendError: no such name, or a GPU named twice. GpuUnavailableError: a GPU that is not there.
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
        raise BackendError(f"backend: {backend!r} names a GPU twice")
    if max(numbers) >= count:
        raise BackendError(f"backend: {backend!r} names a GPU that is not there; the driver shows {count}")
    return kind, numbers


def current_gpu() -> int:
    """The GPU that torch calls current, where torch uses CUDA already; else the first."""
    import torch

    cuda: Any = torch.cuda
    return int(cuda.current_device()) if cuda.is_available() and cuda.is_initialized() else 0


def open_gpu(kind: str, ordinal: int) -> Gpu:
    """The GPU, opened once a process.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: it cannot be opened.
    """
    if os.getpid() != _pid:
        raise GpuError(
            "CUDA cannot be used in a forked process; start worker processes with the method 'spawn', or leave device "
            "and backend at the CPU's there"
        )
    if kind == "cuda":
        from .extension import extension_gpu

        return extension_gpu(ordinal)
    from .cupy_gpu import cupy_gpu

    return cupy_gpu(ordinal)


def open_device(kind: str, ordinal: int, *, stream: int = 0, memory: Memory | None = None) -> GpuDevice:
    """A device on a GPU; without ``memory``, that of `shared_memory`, else the GPU's own."""
    gpu = open_gpu(kind, ordinal)
    return GpuDevice(gpu, stream, memory=memory or shared_memory(kind, ordinal))


def shared_memory(kind: str, ordinal: int) -> Any:
    """torch's allocator where torch can use CUDA, so that the network and the bank share one pool; for CuPy its own."""
    import torch

    if kind == "cupy":
        from .memory import CupyMemory

        return CupyMemory(ordinal)
    if torch.cuda.is_available():
        from .memory import TorchMemory

        return TorchMemory(f"cuda:{ordinal}")
    return None
