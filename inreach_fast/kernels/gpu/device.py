"""What the GPU engine asks of a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


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
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, first: int, stop: int) -> DeviceArray:
        """Entries first to stop-1 of the first axis, a view."""
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
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

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        """A copy of a host array; the array may be changed as soon as this returns."""

    def download(self, array: DeviceArray) -> npt.NDArray[Any]:
        """A copy on the host, after all work before it: this waits for the device."""

    def launch(self, kernel: str, grid: Sequence[int], block: int, arguments: Sequence[Argument]) -> None:
        """Start a kernel of csrc/cuda/kernels; ``grid`` has one to three entries."""

    def free_bytes(self) -> int:
        """Memory that could be allocated now."""


def blocks(count: int, size: int) -> int:
    """Blocks of ``size`` that hold ``count``; at least 1."""
    return max(1, -(-count // size))


def fill(device: Device, array: DeviceArray, value: int) -> None:
    """Set every entry of a uint32 or uint64 array."""
    kernel, scalar = ("fill_u32", np.uint32(value)) if array.dtype.itemsize == 4 else ("fill_u64", np.uint64(value))
    if array.size:
        device.launch(kernel, (min(blocks(array.size, 256), 1024),), 256, (array, np.int64(array.size), scalar))
