"""The allocators of torch and CuPy: one memory pool for everybody on a GPU, and results that are their arrays."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from ..device import DeviceArray


class TorchMemory:
    """torch's caching allocator, a `Memory`; owners are uint8 tensors. Tests use devices of other types than "cuda"."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch: Any = torch
        self._device = torch.device(device)

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        with self._current(stream):
            owner = self._torch.empty(max(nbytes, 1), dtype=self._torch.uint8, device=self._device)
        return owner.data_ptr(), owner

    def free_bytes(self) -> int:
        if self._device.type != "cuda":
            return 1 << 30
        cuda = self._torch.cuda
        free, _ = cuda.mem_get_info(self._device)
        return int(free) + int(cuda.memory_reserved(self._device)) - int(cuda.memory_allocated(self._device))

    def array(self, array: DeviceArray) -> Any:
        """The tensor that memory of this allocator is, without a copy."""
        owner = array.owner.memory
        first = array.address - owner.data_ptr()
        return owner[first : first + array.nbytes].view(getattr(self._torch, array.dtype.name)).reshape(array.shape)

    def _current(self, stream: int) -> Any:
        # The allocator ties a block to the stream that is current when it is allocated.
        cuda, device = self._torch.cuda, self._device
        if device.type != "cuda":
            return nullcontext()
        if cuda.current_stream(device).cuda_stream == stream:
            return cuda.device(device)
        if stream == 0:  # torch makes ExternalStream(0) some stream of its pool (pytorch issue #182960)
            return cuda.stream(cuda.default_stream(device))
        return cuda.stream(cuda.ExternalStream(stream, device=device))


class CupyMemory:
    """CuPy's current allocator, a `Memory`; owners are its memory pointers."""

    def __init__(self, ordinal: int) -> None:
        import cupy

        self._cupy: Any = cupy
        self._device = cupy.cuda.Device(ordinal)

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        cuda = self._cupy.cuda
        with self._device, cuda.Stream.null if stream == 0 else cuda.ExternalStream(stream):
            owner = cuda.alloc(max(nbytes, 1))
        return int(owner.ptr), owner

    def free_bytes(self) -> int:
        with self._device:
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def array(self, array: DeviceArray) -> Any:
        """The CuPy array that memory of this allocator is, without a copy."""
        owner = array.owner.memory
        return self._cupy.ndarray(array.shape, array.dtype, memptr=owner + (array.address - int(owner.ptr)))
