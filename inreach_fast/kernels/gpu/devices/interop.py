"""Arrays of others, in and out without a copy, in the order of their current stream.

torch tensors and CuPy arrays are taken as they are, and results are of the same kind. Anything else that lives on a
GPU and has ``__dlpack__`` comes in through torch (through CuPy where torch has no CUDA), whose arrays results then
are; its own library takes those with its ``from_dlpack``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ....array_types import Array
from ....errors import DeviceMismatchError, ParameterError
from ..describe import LevelView
from ..device import DeviceArray
from .memory import CupyMemory, TorchMemory

# DLPack's numbers for CUDA memory, and for memory that is on both sides.
_DLPACK_CUDA = (2, 13)
# torch's name for the GPUs' memory. Tests add "cpu", so that all of this runs without a GPU.
_TORCH_TYPES = ("cuda",)


def lives_on_gpu(value: Any) -> bool:
    """Whether an array lies in a GPU's memory: a torch or CuPy array, or anything that says so through DLPack."""
    if isinstance(value, np.ndarray) or not hasattr(value, "shape"):
        return False
    if hasattr(value, "detach") and hasattr(value, "device"):
        return getattr(value.device, "type", "cpu") in _TORCH_TYPES
    device_of = getattr(value, "__dlpack_device__", None)
    if device_of is not None:
        return int(device_of()[0]) in _DLPACK_CUDA
    return hasattr(value, "__cuda_array_interface__")


def numbers_like(value: Any) -> Any:
    """0 to len(value) - 1 as int64, of the kind and on the device of ``value``."""
    numbers = np.arange(len(value), dtype=np.int64)
    if isinstance(value, np.ndarray):
        return numbers
    library = library_of(value)
    return library.to_gpu(numbers, library.ordinal(value))


class Library(Protocol):
    """Whose arrays a caller has."""

    name: str

    def owns(self, value: Any) -> bool:
        """Whether it is an array of this library's."""

    def adopt(self, value: Any) -> Any:
        """Another library's array as one of this library's, without a copy."""

    def ordinal(self, value: Any) -> int:
        """The GPU that it lies on."""

    def contiguous(self, value: Any, dtype: npt.DTypeLike) -> Any:
        """In C order and of that dtype; None where the dtype is another that does not convert without loss."""

    def view(self, value: Any, dtype: npt.DTypeLike) -> DeviceArray:
        """A contiguous array's memory."""

    def strided(self, value: Any) -> LevelView:
        """A float32 (B, C, h, w) array as it lies, of any strides."""

    def stream(self, ordinal: int) -> int:
        """Raw handle of the caller's current stream."""

    def to_host(self, value: Any, key: Any) -> Array:
        """``value[key]`` in the CPU's memory; key is a slice or an array of row numbers."""

    def to_gpu(self, value: Array, ordinal: int) -> Any:
        """A host array as one of this library's, on a GPU."""

    def padded(self, value: Any, columns: int, fill: float) -> Any:
        """(m, j) widened to (m, columns); the array itself where j is that already."""

    def as_bool(self, value: Any) -> Any:
        """A uint8 array of zeros and ones as one of truth values, without a copy."""

    def memory(self, ordinal: int) -> TorchMemory | CupyMemory:
        """Its allocator."""


class TorchLibrary:
    """torch tensors. ``kind``: "cuda", or for tests "cpu"."""

    name = "torch"

    def __init__(self, kind: str = "cuda") -> None:
        import torch

        self._torch = torch
        self._kind = kind

    def owns(self, value: Any) -> bool:
        """See `Library`."""
        return isinstance(value, self._torch.Tensor) and value.device.type == self._kind

    def adopt(self, value: Any) -> Any:
        """See `Library`; torch tells the producer its current stream."""
        if isinstance(value, self._torch.Tensor):
            return value
        from torch.utils.dlpack import from_dlpack

        return from_dlpack(value) if hasattr(value, "__dlpack__") else self._torch.as_tensor(value)

    def ordinal(self, value: Any) -> int:
        """See `Library`."""
        return int(value.device.index or 0)

    def contiguous(self, value: Any, dtype: npt.DTypeLike) -> Any:
        """See `Library`."""
        torch, wanted = self._torch, getattr(self._torch, np.dtype(dtype).name)
        value = value.detach().resolve_neg()
        exact = {
            torch.float32: (torch.float16, torch.bfloat16),
            torch.int64: (torch.int32, torch.int16, torch.int8, torch.uint8),
        }
        if value.dtype != wanted:
            if value.dtype not in exact.get(wanted, ()):
                return None
            value = value.to(wanted)
        return value.contiguous()

    def view(self, value: Any, dtype: npt.DTypeLike) -> DeviceArray:
        """See `Library`."""
        return DeviceArray(value.data_ptr(), tuple(value.shape), np.dtype(dtype), value)

    def strided(self, value: Any) -> LevelView:
        """See `Library`."""
        value = value.detach().resolve_neg()
        return LevelView(value.data_ptr(), tuple(value.stride()), tuple(value.shape))

    def to_host(self, value: Any, key: Any) -> Array:
        """See `Library`."""
        chosen = key if isinstance(key, slice) else self._torch.from_numpy(np.array(key)).to(value.device)
        return np.asarray(value[chosen].cpu().numpy())

    def to_gpu(self, value: Array, ordinal: int) -> Any:
        """See `Library`."""
        return self._torch.from_numpy(value).to(f"cuda:{ordinal}" if self._kind == "cuda" else self._kind)

    def padded(self, value: Any, columns: int, fill: float) -> Any:
        """See `Library`."""
        missing = columns - value.shape[1]
        return self._torch.nn.functional.pad(value, (0, missing), value=fill) if missing else value

    def as_bool(self, value: Any) -> Any:
        """See `Library`."""
        return value.view(self._torch.bool)

    def stream(self, ordinal: int) -> int:
        """See `Library`."""
        return 0 if self._kind != "cuda" else int(self._torch.cuda.current_stream(ordinal).cuda_stream)

    def memory(self, ordinal: int) -> TorchMemory:
        """See `Library`."""
        return TorchMemory(f"cuda:{ordinal}" if self._kind == "cuda" else self._kind)


class CupyLibrary:
    """CuPy arrays."""

    name = "cupy"

    def __init__(self) -> None:
        import cupy

        self._cupy: Any = cupy

    def owns(self, value: Any) -> bool:
        """See `Library`."""
        return isinstance(value, self._cupy.ndarray)

    def adopt(self, value: Any) -> Any:
        """See `Library`; CuPy tells the producer its current stream."""
        if isinstance(value, self._cupy.ndarray):
            return value
        return self._cupy.from_dlpack(value) if hasattr(value, "__dlpack__") else self._cupy.asarray(value)

    def ordinal(self, value: Any) -> int:
        """See `Library`."""
        return int(value.device.id)

    def contiguous(self, value: Any, dtype: npt.DTypeLike) -> Any:
        """See `Library`."""
        wanted = np.dtype(dtype)
        exact = {"float32": ("float16",), "int64": ("int32", "int16", "int8", "uint8", "uint16", "uint32")}
        if value.dtype != wanted and value.dtype.name not in exact.get(wanted.name, ()):
            return None
        with self._cupy.cuda.Device(self.ordinal(value)):  # CuPy computes on the current GPU, wherever an array is
            return self._cupy.ascontiguousarray(value, dtype=wanted)

    def view(self, value: Any, dtype: npt.DTypeLike) -> DeviceArray:
        """See `Library`."""
        return DeviceArray(int(value.data.ptr), tuple(value.shape), np.dtype(dtype), value)

    def strided(self, value: Any) -> LevelView:
        """See `Library`."""
        strides = tuple(int(s) // value.itemsize for s in value.strides)
        return LevelView(int(value.data.ptr), strides, tuple(value.shape))

    def to_host(self, value: Any, key: Any) -> Array:
        """See `Library`."""
        with self._cupy.cuda.Device(self.ordinal(value)):
            chosen = key if isinstance(key, slice) else self._cupy.asarray(key)
            return np.asarray(self._cupy.asnumpy(value[chosen]))

    def to_gpu(self, value: Array, ordinal: int) -> Any:
        """See `Library`."""
        with self._cupy.cuda.Device(ordinal):
            return self._cupy.asarray(value)

    def padded(self, value: Any, columns: int, fill: float) -> Any:
        """See `Library`."""
        missing = columns - value.shape[1]
        if not missing:
            return value
        with self._cupy.cuda.Device(self.ordinal(value)):
            return self._cupy.pad(value, ((0, 0), (0, missing)), constant_values=fill)

    def as_bool(self, value: Any) -> Any:
        """See `Library`."""
        return value.view(self._cupy.bool_)

    def stream(self, ordinal: int) -> int:
        """See `Library`."""
        with self._cupy.cuda.Device(ordinal):
            return int(self._cupy.cuda.get_current_stream().ptr)

    def memory(self, ordinal: int) -> CupyMemory:
        """See `Library`."""
        return CupyMemory(ordinal)


@cache
def _torch_library() -> TorchLibrary | None:
    import torch

    return TorchLibrary() if torch.cuda.is_available() else None


@cache
def _cupy_library() -> CupyLibrary:
    return CupyLibrary()


def library_of(value: Any) -> Library:
    """Whose array it is, or who takes it in; see the module.

    Raises:
        ParameterError: neither torch with CUDA nor CuPy is there to take it.
    """
    module = type(value).__module__.split(".")[0]
    if module == "cupy":
        return _cupy_library()
    torch_library = _torch_library()
    if torch_library is not None:
        return torch_library
    try:
        return _cupy_library()
    except ImportError:
        raise ParameterError(
            f"an array of {type(value).__module__} on a GPU needs torch with CUDA, or CuPy; install one of them"
        ) from None


@dataclass(frozen=True)
class Caller:
    """Where a call's arrays are and whose they are.

    Attributes:
        library: whose arrays; results are of the same kind.
        ordinal: the GPU.
        stream: raw handle of the caller's current stream there.
    """

    library: Library
    ordinal: int
    stream: int

    def take(self, value: Any, name: str, *, dtype: npt.DTypeLike, ndim: int | Sequence[int]) -> DeviceArray:
        """An array's memory, without a copy where it is contiguous and of that dtype.

        Raises:
            ParameterError: dtype or dimensions; DeviceMismatchError: on another GPU, or on the CPU.
        """
        if not lives_on_gpu(value) and not self.library.owns(value):
            where = f"on GPU {self.ordinal}"
            raise DeviceMismatchError(f"{name}: on the CPU, where the call's other arrays are {where}; move it there")
        mine = self.library.adopt(value)
        gpu = self.library.ordinal(mine)
        if gpu != self.ordinal:
            raise DeviceMismatchError(
                f"{name}: on GPU {gpu}, where the call's other arrays are on GPU {self.ordinal}; move it there"
            )
        allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
        if len(mine.shape) not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise ParameterError(f"{name}: expected an array of {wanted} dimensions, got shape {tuple(mine.shape)}")
        ready = self.library.contiguous(mine, dtype)
        if ready is None:
            raise ParameterError(
                f"{name}: expected {np.dtype(dtype)}, got {mine.dtype}, whose values it may not hold; convert it "
                "yourself if that is meant"
            )
        return self.library.view(ready, dtype)

    def give(self, array: DeviceArray) -> Any:
        """Memory of the library's allocator as an array of the caller's kind, without a copy."""
        return self.library.memory(self.ordinal).array(array)


def caller_of(*values: Any) -> Caller | None:
    """Where the arrays on a GPU among these are; None where all are on the CPU. The first one decides whose."""
    for value in values:
        if value is not None and lives_on_gpu(value):
            library = library_of(value)
            ordinal = library.ordinal(library.adopt(value))
            return Caller(library, ordinal, library.stream(ordinal))
    return None
