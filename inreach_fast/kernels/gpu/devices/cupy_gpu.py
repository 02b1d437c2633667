"""GPUs through CuPy: NVRTC compiles the kernels' own source at first use (`nvrtc`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .gpu import Grid
from .memory import CupyMemory
from .nvrtc import compiled_kernels

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2


class CupyGpu:
    """A `Gpu`; its methods are documented there."""

    def __init__(self, ordinal: int) -> None:
        import cupy

        self._cuda: Any = cupy.cuda
        self._runtime: Any = cupy.cuda.runtime
        self.ordinal = ordinal
        self._device = cupy.cuda.Device(ordinal)
        facts = self._runtime.getDeviceProperties(ordinal)
        name = facts["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.compute_capability = (int(facts["major"]), int(facts["minor"]))
        self.multiprocessors = int(facts["multiProcessorCount"])
        self._memory = CupyMemory(ordinal)
        self.free_bytes = self._memory.free_bytes
        self._held: dict[int, Any] = {}
        self._functions: dict[str, Any] = {}
        code = compiled_kernels(cupy.cuda.nvrtc, self.compute_capability)
        with self._device:
            self._module = cupy.cuda.function.Module()
            self._module.load(code)

    def allocate(self, nbytes: int) -> int:
        address, owner = self._memory.allocate(nbytes, 0)
        self._held[address] = owner
        return address

    def release(self, address: int) -> None:
        self._held.pop(address, None)

    def copy_in(self, to: int, source: Any, stream: int) -> None:
        host = np.frombuffer(source, dtype=np.uint8)
        with self._device:
            self._runtime.memcpyAsync(to, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE, stream)
            self._runtime.streamSynchronize(stream)  # the source may be page-locked, and is then read later

    def copy_out(self, to: Any, source: int, stream: int, wait: bool) -> None:
        host = np.frombuffer(to, dtype=np.uint8)
        with self._device:
            if host.nbytes:
                self._runtime.memcpyAsync(host.ctypes.data, source, host.nbytes, _DEVICE_TO_HOST, stream)
            if wait:
                self._runtime.streamSynchronize(stream)

    def launch(self, kernel: str, grid: Grid, block: int, arguments: Sequence[Any], stream: int) -> None:
        # CuPy passes a pointer and a 64-bit number alike.
        values = tuple(np.uint64(a) if isinstance(a, int) else a for a in arguments)
        current = self._cuda.Stream.null if stream == 0 else self._cuda.ExternalStream(stream)
        with self._device, current:
            if kernel not in self._functions:
                self._functions[kernel] = self._module.get_function(kernel)
            self._functions[kernel](grid, (block, 1, 1), values)

    def synchronize(self, stream: int) -> None:
        with self._device:
            self._runtime.streamSynchronize(stream)
