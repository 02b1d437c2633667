"""The host executor as a `Device` of inreach_fast.kernels.gpu."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inreach_fast.kernels.gpu.device import Argument, DeviceArray

from . import build

_KINDS = {"i4": "i", "i8": "I", "u4": "u", "u8": "U", "f4": "f", "f8": "d"}


class KernelError(AssertionError):
    """A kernel did what it must not; the message names kernel, block and thread."""


class _Memory:
    def __init__(self, library: ctypes.CDLL, nbytes: int, at_end: bool) -> None:
        self.address: int = library.host_allocate(nbytes, int(at_end))
        if not self.address:
            raise MemoryError(f"no {nbytes} bytes")
        weakref.finalize(self, _free, library, self.address)


def _free(library: ctypes.CDLL, address: int) -> None:
    spoilt = library.host_free(address)
    if spoilt:
        # Raised in a finalizer: pytest reports it as an unraisable exception, which these tests turn into errors.
        raise KernelError("a kernel has written beside a buffer")


class HostDevice:
    """Runs kernels on the CPU. ``order``: 0 threads in their order, 1 in the opposite one, else shuffled by this seed.

    With ``races`` every access is recorded, and one that races with another ends the launch (races.h).

    Buffers lie at the end of their pages where ``order`` is even and at the beginning where it is odd, so that both
    kinds of excess are met.
    """

    name = "host executor"
    multiprocessors = 2

    def __init__(
        self,
        order: int = 0,
        *,
        kernels: Path = build.KERNELS,
        compute_capability: tuple[int, int] = (9, 0),
        races: bool = False,
    ) -> None:
        self.order = order
        self.compute_capability = compute_capability
        self.launches: list[str] = []
        self._library = ctypes.CDLL(str(build.library(kernels, races=races)))
        self._library.host_allocate.restype = ctypes.c_void_p
        self._library.host_allocate.argtypes = [ctypes.c_size_t, ctypes.c_int]
        self._library.host_free.argtypes = [ctypes.c_void_p]
        self._library.host_launch.argtypes = [
            ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64,
            ctypes.c_char_p, ctypes.c_size_t,
        ]  # fmt: skip

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        memory = _Memory(self._library, nbytes, self.order % 2 == 0)
        return DeviceArray(memory.address, shape, kind, memory)

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        array = np.ascontiguousarray(array)
        result = self.empty(array.shape, array.dtype)
        ctypes.memmove(result.address, array.ctypes.data, array.nbytes)
        return result

    def download(self, array: DeviceArray) -> npt.NDArray[Any]:
        result = np.empty(array.shape, array.dtype)
        ctypes.memmove(result.ctypes.data, array.address, result.nbytes)
        return result

    def launch(self, kernel: str, grid: Sequence[int], block: int, arguments: Sequence[Argument]) -> None:
        self.launches.append(kernel)
        values, kinds = [], ""
        for argument in arguments:
            if argument is None or isinstance(argument, DeviceArray):
                values.append(np.uint64(0 if argument is None else argument.address))
                kinds += "p"
            else:
                assert isinstance(argument, np.generic), f"{kernel}: {argument!r} has no size"
                values.append(argument)
                kinds += _KINDS[argument.dtype.str[1:]]
        held = [np.array(value) for value in values]
        pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        sizes = [(ctypes.c_uint * 3)(*(*extent, 1, 1)[:3]) for extent in (tuple(grid), (block,))]
        message = ctypes.create_string_buffer(512)
        failed = self._library.host_launch(
            kernel.encode(), *sizes, pointers, kinds.encode(), self.order, message, len(message)
        )
        if failed:
            raise KernelError(message.value.decode())

    def free_bytes(self) -> int:
        return 1 << 30

    def synchronize(self) -> None:
        """A launch has ended when it returns."""
