"""Callers' arrays on a GPU: in and out without a copy, in the order of their library's current stream.

torch tensors and CuPy arrays are used in place, and results are of the same kind. Any other array with ``__dlpack__``
comes in through torch (through CuPy where torch has no CUDA), and results are arrays of that library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ....array_types import Array
from ....errors import DeviceMismatchError, ParameterError
from ..device import DeviceArray
from .memory import CupyMemory, TorchMemory

# DLPack's numbers for CUDA memory, and for memory that host and GPU share.
_DLPACK_CUDA = (2, 13)
# torch's name for the GPUs' memory. Tests add "cpu", so that all of this runs without a GPU.
_TORCH_TYPES = ("cuda",)
# Types that convert without loss.
_EXACT = {"float32": ("float16", "bfloat16"), "int64": ("int32", "int16", "int8", "uint8", "uint16", "uint32")}


def lives_on_gpu(value: Any) -> bool:
    """Whether an array is in a GPU's memory: a torch or CuPy array, or any other whose DLPack says so."""
    if isinstance(value, np.ndarray) or not hasattr(value, "shape"):
        return False
    if hasattr(value, "detach") and hasattr(value, "device"):
        return getattr(value.device, "type", "cpu") in _TORCH_TYPES
    device_of = getattr(value, "__dlpack_device__", None)
    return hasattr(value, "__cuda_array_interface__") if device_of is None else int(device_of()[0]) in _DLPACK_CUDA


def numbers_like(value: Any) -> Any:
    """0 to len(value) - 1 as int64, of the kind and on the device of ``value``."""
    numbers = np.arange(len(value), dtype=np.int64)
    if isinstance(value, np.ndarray):
        return numbers
    library = library_of(value)
    return library.to_gpu(numbers, library.ordinal(value))


class TorchLibrary:
    """torch tensors. ``kind``: "cuda", or for tests "cpu". Methods take tensors, except for `owns` and `adopt`."""

    def __init__(self, kind: str = "cuda") -> None:
        import torch

        self._torch: Any = torch
        self._kind = kind

    def owns(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor) and value.device.type == self._kind

    def adopt(self, value: Any) -> Any:
        """Any array on a GPU as one of this library, without a copy; in the order of the current stream."""
        if isinstance(value, self._torch.Tensor):
            return value.detach().resolve_neg()
        return self._torch.from_dlpack(value) if hasattr(value, "__dlpack__") else self._torch.as_tensor(value)

    def ordinal(self, value: Any) -> int:
        return int(value.device.index or 0)

    def contiguous(self, value: Any, dtype: str) -> Any:
        """In C order and of that dtype."""
        return value.to(getattr(self._torch, dtype)).contiguous()

    def layout(self, value: Any) -> tuple[int, tuple[int, ...]]:
        """Address, and strides in values."""
        return value.data_ptr(), tuple(value.stride())

    def stream(self, ordinal: int) -> int:
        """Raw handle of the caller's current stream."""
        return 0 if self._kind != "cuda" else int(self._torch.cuda.current_stream(ordinal).cuda_stream)

    def to_host(self, value: Any, key: Any = slice(None)) -> Array:
        """``value[key]`` as a NumPy array; key is a slice or an array of row numbers."""
        chosen = key if isinstance(key, slice) else self._torch.from_numpy(np.array(key)).to(value.device)
        return np.asarray(value[chosen].cpu().numpy())

    def to_gpu(self, value: Array, ordinal: int) -> Any:
        """A NumPy array as one of this library."""
        return self._torch.from_numpy(value).to(self._device(ordinal))

    def memory(self, ordinal: int) -> TorchMemory:
        return TorchMemory(self._device(ordinal))

    def _device(self, ordinal: int) -> str:
        return f"cuda:{ordinal}" if self._kind == "cuda" else self._kind


class CupyLibrary:
    """CuPy arrays; the methods are those of `TorchLibrary`.

    CuPy computes on the current GPU, wherever an array is: each operation makes the array's GPU current.
    """

    def __init__(self) -> None:
        import cupy

        self._cupy: Any = cupy

    def owns(self, value: Any) -> bool:
        return isinstance(value, self._cupy.ndarray)

    def adopt(self, value: Any) -> Any:
        if isinstance(value, self._cupy.ndarray):
            return value
        return self._cupy.from_dlpack(value) if hasattr(value, "__dlpack__") else self._cupy.asarray(value)

    def ordinal(self, value: Any) -> int:
        return int(value.device.id)

    def contiguous(self, value: Any, dtype: str) -> Any:
        with self._cupy.cuda.Device(self.ordinal(value)):
            return self._cupy.ascontiguousarray(value, dtype=np.dtype(dtype))

    def layout(self, value: Any) -> tuple[int, tuple[int, ...]]:
        return int(value.data.ptr), tuple(int(s) // value.itemsize for s in value.strides)

    def stream(self, ordinal: int) -> int:
        with self._cupy.cuda.Device(ordinal):
            return int(self._cupy.cuda.get_current_stream().ptr)

    def to_host(self, value: Any, key: Any = slice(None)) -> Array:
        with self._cupy.cuda.Device(self.ordinal(value)):
            chosen = key if isinstance(key, slice) else self._cupy.asarray(key)
            return np.asarray(self._cupy.asnumpy(value[chosen]))

    def to_gpu(self, value: Array, ordinal: int) -> Any:
        with self._cupy.cuda.Device(ordinal):
            return self._cupy.asarray(value)

    def memory(self, ordinal: int) -> CupyMemory:
        return CupyMemory(ordinal)


Library = TorchLibrary | CupyLibrary


@cache
def _torch_library() -> TorchLibrary | None:
    import torch

    return TorchLibrary() if torch.cuda.is_available() else None


_cupy_library = cache(CupyLibrary)


def library_of(value: Any) -> Library:
    """The library of an array on a GPU, or the one that adopts it; see the module.

    Raises:
        ParameterError: neither torch with CUDA nor CuPy is installed.
    """
    torch_library = None if type(value).__module__.split(".")[0] == "cupy" else _torch_library()
    if torch_library is not None:
        return torch_library
    try:
        return _cupy_library()
    except ImportError:
        raise ParameterError(
            f"an array of {type(value).__module__} on a GPU: needs torch with CUDA, or CuPy; install one of them"
        ) from None


@dataclass(frozen=True)
class Caller:
    """Where a call's arrays are.

    ``library`` is that of the arrays and of the results; ``stream`` is the raw handle of its current stream there.
    """

    library: Library
    ordinal: int
    stream: int

    def take(self, value: Any, name: str, *, dtype: str, ndim: int) -> DeviceArray:
        """An array's memory, without a copy where it is contiguous and of that dtype.

        Raises:
            ParameterError: dtype or dimensions. DeviceMismatchError: on another GPU, or on the CPU.
        """
        on_gpu = lives_on_gpu(value) or self.library.owns(value)
        mine = self.library.adopt(value) if on_gpu else value
        self.check_gpu(self.library.ordinal(mine) if on_gpu else None, name)
        if len(mine.shape) != ndim:
            raise ParameterError(f"{name}: expected an array of {ndim} dimensions, got shape {tuple(mine.shape)}")
        if str(mine.dtype).removeprefix("torch.") not in (dtype, *_EXACT[dtype]):
            raise ParameterError(
                f"{name}: expected {dtype}, got {mine.dtype}, which may lose values; convert it yourself if that is "
                "intended"
            )
        ready = self.library.contiguous(mine, dtype)
        address, _ = self.library.layout(ready)
        return DeviceArray(address, tuple(ready.shape), np.dtype(dtype), ready)

    def check_gpu(self, ordinal: int | None, name: str) -> None:
        """Raises DeviceMismatchError where an array is on another GPU, or (None) on the CPU."""
        if ordinal != self.ordinal:
            raise DeviceMismatchError(
                f"{name}: on {'the CPU' if ordinal is None else f'GPU {ordinal}'}, where the call's other arrays are "
                f"on GPU {self.ordinal}; move it there"
            )

    def give(self, array: DeviceArray) -> Any:
        """Memory of the library's allocator as an array of the library, without a copy."""
        return self.library.memory(self.ordinal).array(array)


def caller_of(*values: Any) -> Caller | None:
    """Where the arrays on a GPU among these are; None where all are on the CPU. The first one decides."""
    for value in values:
        if value is not None and lives_on_gpu(value):
            library = library_of(value)
            ordinal = library.ordinal(library.adopt(value))
            return Caller(library, ordinal, library.stream(ordinal))
    return None
