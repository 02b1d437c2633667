"""The host executor as a `GPU`, without an extension: memory, copies and launches as a GPU has them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda_host.device import HostDevice

from inreach_fast.kernels.gpu.device import DeviceArray


class FakeDriverError(RuntimeError):
    """As the extension raises it: code, name, call."""

    __module__ = "inreach_fast._cuda"


class HostGpu:
    """See `inreach_fast.kernels.gpu.devices.gpu.GPU`.

    Attributes:
        fails: call -> the driver's code that it answers with.
        limit: bytes of its memory.
        waits: how often somebody has waited for it.
        streams: those that work was given to.
        uploads: told of each copy to the GPU, in bytes.
    """

    name = "host GPU"
    compute_capability = (9, 0)
    multiprocessors = 2

    def __init__(self, ordinal: int = 0, order: int = 2, limit: int = 1 << 30) -> None:
        self.ordinal = ordinal
        self.fails: dict[str, int] = {}
        self.limit = limit
        self.used = 0
        self.waits = 0
        self.streams: set[int] = set()
        self.launches: list[str] = []
        self.uploads: Callable[[int], None] = lambda nbytes: None
        self._host = HostDevice(order)
        self._held: dict[int, DeviceArray] = {}

    def _call(self, name: str) -> None:
        if name in self.fails:
            raise FakeDriverError(self.fails[name], f"FAKE_ERROR_{self.fails[name]}", name)

    def allocate(self, nbytes: int) -> int:
        self._call("allocate")
        if self.used + nbytes > self.limit:
            raise FakeDriverError(2, "CUDA_ERROR_OUT_OF_MEMORY", "cuMemAlloc")
        self.used += nbytes
        held = self._host.empty(max(nbytes, 1), np.uint8)
        self._held[held.address] = held
        return held.address

    def release(self, address: int) -> None:
        self.used -= self._held.pop(address).nbytes

    def free_bytes(self) -> int:
        self._call("free_bytes")
        return self.limit - self.used

    def copy_in(self, to: int, source: Any, stream: int) -> None:
        self._call("copy_in")
        self.streams.add(stream)
        host = np.frombuffer(source, np.uint8)
        self.uploads(host.nbytes)
        ctypes.memmove(to, host.ctypes.data, host.nbytes)

    def copy_out(self, to: Any, source: int, stream: int, wait: bool) -> None:
        self._call("copy_out")
        self.streams.add(stream)
        self.waits += int(wait)
        host = np.frombuffer(to, np.uint8)
        ctypes.memmove(host.ctypes.data, source, host.nbytes)

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any], stream: int
    ) -> None:
        self._call("launch")
        self.streams.add(stream)
        self.launches.append(kernel)
        values = [DeviceArray(a, (1,), np.dtype(np.uint8)) if isinstance(a, int) else a for a in arguments]
        self._host.launch(kernel, grid, block, values)

    def synchronize(self, stream: int) -> None:
        self._call("synchronize")
        self.waits += 1


class OrderedGpu(HostGpu):
    """A GPU whose streams know nothing of each other, as torch's do: it tells whoever touches what another stream has
    written and nobody has waited for. What a kernel has written is seen by comparing its memory, so small cases only.
    """

    def __init__(self, ordinal: int = 0) -> None:
        super().__init__(ordinal)
        self._written: dict[int, int] = {}  # address of memory -> the stream that has written there

    def _touch(self, addresses: Sequence[int], stream: int) -> list[DeviceArray]:
        blocks = [
            held for begin, held in self._held.items() if any(begin <= a < begin + held.nbytes for a in addresses)
        ]
        for held in blocks:
            writer = self._written.get(held.address, stream)
            assert writer == stream, (
                f"stream {stream} touches what stream {writer} has written, and does not wait for it"
            )
        return blocks

    def _waited(self, stream: int) -> None:
        self._written = {address: writer for address, writer in self._written.items() if writer != stream}

    def release(self, address: int) -> None:
        super().release(address)
        self._written.pop(address, None)

    def copy_in(self, to: int, source: Any, stream: int) -> None:
        blocks = self._touch([to], stream)
        super().copy_in(to, source, stream)
        self._written.update({held.address: stream for held in blocks})

    def copy_out(self, to: Any, source: int, stream: int, wait: bool) -> None:
        self._touch([source], stream)
        super().copy_out(to, source, stream, wait)
        if wait:
            self._waited(stream)

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any], stream: int
    ) -> None:
        blocks = self._touch([a for a in arguments if isinstance(a, int)], stream)
        before = [ctypes.string_at(held.address, held.nbytes) for held in blocks]
        super().launch(kernel, grid, block, arguments, stream)
        for held, was in zip(blocks, before, strict=True):
            if ctypes.string_at(held.address, held.nbytes) != was:
                self._written[held.address] = stream

    def synchronize(self, stream: int) -> None:
        super().synchronize(stream)
        self._waited(stream)
