"""GPUs through CuPy: NVRTC compiles the kernels' own source at first use (`nvrtc`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .driver_errors import typed_errors
from .gpu import Gpu
from .nvrtc import compiled_kernels

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_gpus: dict[int, Gpu] = {}
_lock = threading.Lock()


class CupyGpu:
    """See `GPU`."""

    def __init__(self, ordinal: int) -> None:
        import cupy

        self._cupy: Any = cupy
        self.ordinal = ordinal
        self._device = cupy.cuda.Device(ordinal)
        facts = cupy.cuda.runtime.getDeviceProperties(ordinal)
        name = facts["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.compute_capability = (int(facts["major"]), int(facts["minor"]))
        self.multiprocessors = int(facts["multiProcessorCount"])
        self._held: dict[int, Any] = {}
        self._functions: dict[str, Any] = {}
        code = compiled_kernels(cupy.cuda.nvrtc, self.compute_capability)
        with self._device:
            self._module = cupy.cuda.function.Module()
            self._module.load(code)

    def allocate(self, nbytes: int) -> int:
        """See `GPU`; from CuPy's current allocator."""
        with self._device:
            held = self._cupy.cuda.alloc(max(nbytes, 1))
        self._held[int(held.ptr)] = held
        return int(held.ptr)

    def release(self, address: int) -> None:
        """See `GPU`."""
        self._held.pop(address, None)

    def free_bytes(self) -> int:
        """See `GPU`; what CuPy's pool holds unused counts as free."""
        with self._device:
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def copy_in(self, to: int, source: Any, stream: int) -> None:
        """See `GPU`."""
        host = np.frombuffer(source, dtype=np.uint8)
        with self._device:
            runtime = self._cupy.cuda.runtime
            runtime.memcpyAsync(to, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE, stream)
            runtime.streamSynchronize(stream)  # the source may be page-locked, and then is read later

    def copy_out(self, to: Any, source: int, stream: int, wait: bool) -> None:
        """See `GPU`."""
        host = np.frombuffer(to, dtype=np.uint8)
        with self._device:
            runtime = self._cupy.cuda.runtime
            if host.nbytes:
                runtime.memcpyAsync(host.ctypes.data, source, host.nbytes, _DEVICE_TO_HOST, stream)
            if wait:
                runtime.streamSynchronize(stream)

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any], stream: int
    ) -> None:
        """See `GPU`."""
        # A pointer and a 64-bit number are handed over alike.
        values = tuple(np.uint64(a) if isinstance(a, int) else a for a in arguments)
        with self._device, self._stream(stream):
            if kernel not in self._functions:
                self._functions[kernel] = self._module.get_function(kernel)
            self._functions[kernel](grid, (block, 1, 1), values)

    def synchronize(self, stream: int) -> None:
        """See `GPU`."""
        with self._device:
            self._cupy.cuda.runtime.streamSynchronize(stream)

    def _stream(self, stream: int) -> Any:
        return self._cupy.cuda.Stream.null if stream == 0 else self._cupy.cuda.ExternalStream(stream)


def cupy_gpu(ordinal: int) -> Gpu:
    """The GPU of that number, opened once a process.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: it cannot be opened.
    """
    with _lock:
        if ordinal not in _gpus:
            with typed_errors(f"cuda:{ordinal}"):
                _gpus[ordinal] = CupyGpu(ordinal)
        return _gpus[ordinal]
