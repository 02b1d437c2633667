"""What is asked of a GPU, and a `Device` of the GPU engine on one of its streams."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ....array_types import Array, UInt8Array
from ..device import Argument, DeviceArray
from .driver_errors import typed_errors
from .limit import LEDGER, Counted


class Gpu(Protocol):
    """One GPU with the kernels loaded; `inreach_fast._cuda.GPU` is one, `CupyGpu` another.

    Streams are raw handles, as ``torch.cuda.Stream.cuda_stream`` and ``cupy.cuda.Stream.ptr`` are; 0 is the legacy
    default stream. Errors are the driver's, the extension's or CuPy's own: `GpuDevice` turns them.
    """

    @property
    def ordinal(self) -> int:
        """Its number among the visible GPUs."""

    @property
    def name(self) -> str:
        """In words."""

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Such as (9, 0)."""

    @property
    def multiprocessors(self) -> int:
        """Of the GPU."""

    def allocate(self, nbytes: int) -> int:
        """Address of fresh memory, aligned to 256 bytes."""

    def release(self, address: int) -> None:
        """Gives it back; the work given before may still use it."""

    def free_bytes(self) -> int:
        """Memory that nobody holds."""

    def copy_in(self, to: int, source: Any, stream: int) -> None:
        """From a contiguous host buffer, which may be changed as soon as this returns."""

    def copy_out(self, to: Any, source: int, stream: int, wait: bool) -> None:
        """To a contiguous host buffer; without ``wait``, valid after the stream has been waited for."""

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any], stream: int
    ) -> None:
        """Arguments are int (addresses) and NumPy scalars."""

    def synchronize(self, stream: int) -> None:
        """Waits for all work given to the stream."""


class Memory(Protocol):
    """Where a `GpuDevice` has its memory from."""

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        """Address, and an owner that gives the memory back when it goes."""

    def free_bytes(self) -> int:
        """What could be allocated now."""


class OwnMemory:
    """Memory of the GPU itself."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        owner = _Block(self._gpu.allocate(nbytes))
        weakref.finalize(owner, _release, self._gpu, owner.address)
        return owner.address, owner

    def free_bytes(self) -> int:
        return self._gpu.free_bytes()


class _Block:
    def __init__(self, address: int) -> None:
        self.address = address


def _release(gpu: Gpu, address: int) -> None:
    try:
        gpu.release(address)
    except Exception:  # a GPU that is lost has lost its memory, and a finaliser has nobody to tell
        return


class GpuDevice:
    """`inreach_fast.kernels.gpu.Device` on one stream of a GPU.

    Args:
        GPU: the GPU.
        stream: raw handle.
        memory: whose allocator; the GPU's own by default.

    All that it allocates counts against `set_gpu_memory_limit`.
    """

    def __init__(self, gpu: Gpu, stream: int = 0, *, memory: Memory | None = None) -> None:
        self.gpu = gpu
        self.stream = stream
        self.name = gpu.name
        self.compute_capability = gpu.compute_capability
        self.multiprocessors = gpu.multiprocessors
        self._memory = memory or OwnMemory(gpu)

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """See `Device`."""
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
        """See `Device`."""
        array = np.ascontiguousarray(array)
        result = self.empty(array.shape, array.dtype)
        self.copy_in(result, array)
        return result

    def copy_in(self, to: DeviceArray, array: Array) -> None:
        """A host array into memory of the device, of the same number of bytes."""
        if array.nbytes:
            with typed_errors(self.name):
                self.gpu.copy_in(to.address, np.ascontiguousarray(array).reshape(-1).view(np.uint8), self.stream)

    def copy_out(self, to: UInt8Array, array: DeviceArray) -> None:
        """Memory of the device into a host array of as many bytes, which holds it after `synchronize`."""
        with typed_errors(self.name):
            self.gpu.copy_out(to, array.address, self.stream, False)

    def download(self, array: DeviceArray) -> Array:
        """See `Device`."""
        result = np.empty(array.shape, array.dtype)
        with typed_errors(self.name):
            self.gpu.copy_out(result.reshape(-1).view(np.uint8), array.address, self.stream, True)
        return result

    def launch(self, kernel: str, grid: Sequence[int], block: int, arguments: Sequence[Argument]) -> None:
        """See `Device`."""
        x, y, z = (*grid, 1, 1)[:3]
        values = [_value(argument) for argument in arguments]
        with typed_errors(self.name):
            self.gpu.launch(kernel, (int(x), int(y), int(z)), block, values, self.stream)

    def free_bytes(self) -> int:
        """See `Device`."""
        with typed_errors(self.name):
            free = self._memory.free_bytes()
        left = LEDGER.left(self.gpu.ordinal)
        return free if left is None else min(free, left)

    def synchronize(self) -> None:
        """See `Device`."""
        with typed_errors(self.name):
            self.gpu.synchronize(self.stream)


def _value(argument: Argument) -> Any:
    if argument is None:
        return 0
    return argument.address if isinstance(argument, DeviceArray) else argument
