"""One stream of a GPU: memory, copies and launches in its order. All that the engine asks of hardware is here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...array_types import Array, UInt8Array
from .devices.driver_errors import typed_errors
from .devices.gpu import Gpu, Memory, OwnMemory
from .devices.limit import LEDGER, Counted


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous memory of a GPU, in C order; it is freed when nothing refers to its ``owner`` any more."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any = field(repr=False, default=None)

    @property
    def size(self) -> int:
        return int(math.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, first: int, stop: int) -> DeviceArray:
        """Entries first to stop-1 of the first axis, a view."""
        row = int(math.prod(self.shape[1:])) * self.dtype.itemsize
        return DeviceArray(self.address + first * row, (stop - first, *self.shape[1:]), self.dtype, self.owner)

    def reshape(self, *shape: int) -> DeviceArray:
        """The same values in another shape of the same size, a view."""
        return DeviceArray(self.address, shape, self.dtype, self.owner)


# What a kernel takes: an array (its address), None (a null pointer), or a NumPy scalar of exactly the type that the
# kernel declares. Python's own numbers have no size and are not accepted.
Argument = DeviceArray | np.generic | None
# Shapes and dtypes by name.
Shapes = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]


class Device:
    """One stream (a raw handle) of a `Gpu`, with an allocator: the GPU's own by default.

    What it allocates counts against `set_gpu_memory_limit`. Errors of the driver are raised as the package's own.
    """

    def __init__(self, gpu: Gpu, stream: int = 0, *, memory: Memory | None = None) -> None:
        self.gpu, self.stream, self.name = gpu, stream, gpu.name
        self.compute_capability, self.multiprocessors = gpu.compute_capability, gpu.multiprocessors
        self._memory = memory or OwnMemory(gpu)

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Memory with undefined contents, at least 16-byte aligned where its size is a multiple of 16.

        Raises:
            GpuMemoryError: there is not enough.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        kind = np.dtype(dtype)
        nbytes = int(math.prod(shape)) * kind.itemsize
        ordinal = self.gpu.ordinal
        LEDGER.take(ordinal, nbytes, self.name)
        try:
            with typed_errors(self.name):
                address, owner = self._memory.allocate(nbytes, self.stream)
        except BaseException:
            LEDGER.give_back(ordinal, nbytes)
            raise
        return DeviceArray(address, shape, kind, Counted(owner, ordinal, nbytes))

    def upload(self, array: Array) -> DeviceArray:
        """A copy of a host array, which may be changed as soon as this returns."""
        array = np.ascontiguousarray(array)
        result = self.empty(array.shape, array.dtype)
        if array.nbytes:
            with typed_errors(self.name):
                self.gpu.copy_in(result.address, array.reshape(-1).view(np.uint8), self.stream)
        return result

    def copy_out(self, to: UInt8Array, array: DeviceArray) -> None:
        """Copies to a host array of as many bytes, which is valid after `synchronize`."""
        with typed_errors(self.name):
            self.gpu.copy_out(to, array.address, self.stream, False)

    def download(self, array: DeviceArray) -> Array:
        """A copy on the host; waits for the stream."""
        result = np.empty(array.shape, array.dtype)
        with typed_errors(self.name):
            self.gpu.copy_out(result.reshape(-1).view(np.uint8), array.address, self.stream, True)
        return result

    def launch(self, kernel: str, grid: Sequence[int], block: int, arguments: Sequence[Argument]) -> None:
        """Starts a kernel of csrc/cuda/kernels; ``grid`` has one to three entries."""
        x, y, z = (*grid, 1, 1)[:3]
        values = [0 if a is None else a.address if isinstance(a, DeviceArray) else a for a in arguments]
        with typed_errors(self.name):
            self.gpu.launch(kernel, (int(x), int(y), int(z)), block, values, self.stream)

    def free_bytes(self) -> int:
        """Memory that could be allocated now."""
        with typed_errors(self.name):
            free = self._memory.free_bytes()
        left = LEDGER.left(self.gpu.ordinal)
        return free if left is None else min(free, left)

    def synchronize(self) -> None:
        """Waits for all work of the stream."""
        with typed_errors(self.name):
            self.gpu.synchronize(self.stream)


class Block:
    """Arrays side by side in GPU memory, so that one copy brings all of them to the host.

    ``block`` is the memory, and ``arrays`` are the parts of it, by name.
    """

    def __init__(self, device: Device, parts: Shapes) -> None:
        # The widest first: all of them are aligned then.
        chosen = sorted(((n, s, np.dtype(d)) for n, (s, d) in parts.items()), key=lambda part: -part[2].itemsize)
        sizes = [int(math.prod(shape)) * kind.itemsize for _, shape, kind in chosen]
        self.block = device.empty(-(-sum(sizes) // 16) * 16, np.uint8)
        self.arrays: dict[str, DeviceArray] = {}
        first = 0
        for (name, shape, kind), nbytes in zip(chosen, sizes, strict=True):
            self.arrays[name] = DeviceArray(self.block.address + first, shape, kind, self.block.owner)
            first += nbytes

    def views(self, host: UInt8Array) -> dict[str, Array]:
        """The parts of a copy of the block on the host, by name."""
        return {
            name: host[array.address - self.block.address :][: array.nbytes].view(array.dtype).reshape(array.shape)
            for name, array in self.arrays.items()
        }


def blocks(count: int, size: int) -> int:
    """Blocks of ``size`` that hold ``count``; at least 1."""
    return max(1, -(-count // size))


def launch_each(device: Device, kernel: str, count: int, *arguments: Argument, each: int = 1) -> None:
    """Starts a kernel with ``each`` threads for each of ``count``."""
    device.launch(kernel, (blocks(count, 256 // each),), 256, arguments)


def fill(device: Device, array: DeviceArray, value: int) -> None:
    """Sets every entry of a uint32 or uint64 array."""
    kernel, scalar = ("fill_u32", np.uint32(value)) if array.dtype.itemsize == 4 else ("fill_u64", np.uint64(value))
    if array.size:
        device.launch(kernel, (min(blocks(array.size, 256), 1024),), 256, (array, np.int64(array.size), scalar))
