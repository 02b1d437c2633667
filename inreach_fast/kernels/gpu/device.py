"""What the GPU engine asks of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...array_types import Array, UInt8Array


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous memory on a device, in C order.

    Attributes:
        address: device pointer.
        shape, dtype: as in NumPy.
        owner: whatever keeps the memory alive; it is given back when nobody holds the owner any more.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any = field(repr=False, default=None)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(math.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, first: int, stop: int) -> DeviceArray:
        """Entries first to stop-1 of the first axis, a view."""
        row = int(math.prod(self.shape[1:])) * self.dtype.itemsize
        return DeviceArray(self.address + first * row, (stop - first, *self.shape[1:]), self.dtype, self.owner)

    def reshape(self, *shape: int) -> DeviceArray:
        """The same values in another shape of as many, a view."""
        return DeviceArray(self.address, shape, self.dtype, self.owner)


# What a kernel takes: an array (its address), None (a null pointer), or a NumPy scalar of the very type that the
# kernel declares; Python's own numbers have no size and are not taken.
Argument = DeviceArray | np.generic | None


class Device(Protocol):
    """Memory, copies and launches, all in the order of one stream.

    Attributes:
        name: in words.
        compute_capability: such as (9, 0).
        multiprocessors: how many blocks of the largest kernels can run at once, about half of it.
    """

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Memory with undefined contents, at least 16-byte aligned where its size is a multiple of 16.

        Raises:
            DeviceMemoryError: there is not enough.
        """

    def upload(self, array: Array) -> DeviceArray:
        """A copy of a host array; the array may be changed as soon as this returns."""

    def download(self, array: DeviceArray) -> Array:
        """A copy on the host, after all work before it: this waits for the device."""

    def launch(self, kernel: str, grid: Sequence[int], block: int, arguments: Sequence[Argument]) -> None:
        """Start a kernel of csrc/cuda/kernels; ``grid`` has one to three entries."""

    def free_bytes(self) -> int:
        """Memory that could be allocated now."""

    def synchronize(self) -> None:
        """Wait for all that was launched."""


class Block:
    """Arrays that lie side by side on a device, so that one copy brings all of them to the host.

    Args:
        device: where.
        parts: (shape, dtype) by name.

    Attributes:
        block: all bytes. arrays: the parts of it, by name.
    """

    def __init__(self, device: Device, parts: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]) -> None:
        self._device = device
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
        """The parts of a copy of the block, by name."""
        first = {name: array.address - self.block.address for name, array in self.arrays.items()}
        return {
            name: host[first[name] : first[name] + array.nbytes].view(array.dtype).reshape(array.shape)
            for name, array in self.arrays.items()
        }

    def download(self) -> dict[str, Array]:
        """A copy of the parts on the host, by name; this waits for the device, once."""
        return self.views(self._device.download(self.block))


def blocks(count: int, size: int) -> int:
    """Blocks of ``size`` that hold ``count``; at least 1."""
    return max(1, -(-count // size))


def fill(device: Device, array: DeviceArray, value: int) -> None:
    """Set every entry of a uint32 or uint64 array."""
    kernel, scalar = ("fill_u32", np.uint32(value)) if array.dtype.itemsize == 4 else ("fill_u64", np.uint64(value))
    if array.size:
        device.launch(kernel, (min(blocks(array.size, 256), 1024),), 256, (array, np.int64(array.size), scalar))
