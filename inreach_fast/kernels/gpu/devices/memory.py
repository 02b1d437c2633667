"""Memory from the allocators of torch and CuPy: one pool for everybody on a GPU, and results that are their arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import DeviceArray


class TorchMemory:
    """Memory of torch's caching allocator; owners are uint8 tensors.

    Args:
        device: torch device. Anything but "cuda" is for tests.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        """See `Memory`."""
        with self._stream(stream):
            owner = self._torch.empty(max(nbytes, 1), dtype=self._torch.uint8, device=self._device)
        return owner.data_ptr(), owner

    def free_bytes(self) -> int:
        """See `Memory`; what the allocator holds unused counts as free."""
        if self._device.type != "cuda":
            return 1 << 30
        free, _ = self._torch.cuda.mem_get_info(self._device)
        held = self._torch.cuda.memory_reserved(self._device) - self._torch.cuda.memory_allocated(self._device)
        return int(free) + int(held)

    def array(self, array: DeviceArray) -> Any:
        """The tensor that memory of this allocator is, without a copy."""
        owner = array.owner.memory
        first = array.address - owner.data_ptr()
        kind = getattr(self._torch, array.dtype.name)
        return owner[first : first + array.nbytes].view(kind).reshape(array.shape)

    def _stream(self, stream: int) -> Any:
        # The allocator ties a block to the stream that is current when it is taken.
        torch = self._torch
        if self._device.type != "cuda":
            return torch.inference_mode(False)
        if torch.cuda.current_stream(self._device).cuda_stream == stream:
            return torch.cuda.device(self._device)
        if stream == 0:  # of ExternalStream(0) torch makes some stream of its pool (pytorch issue #182960)
            return torch.cuda.stream(torch.cuda.default_stream(self._device))
        return torch.cuda.stream(torch.cuda.ExternalStream(stream, device=self._device))


class CupyMemory:
    """Memory of CuPy's current allocator; owners are its memory pointers."""

    def __init__(self, ordinal: int) -> None:
        import cupy

        self._cupy: Any = cupy
        self._ordinal = ordinal

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        """See `Memory`."""
        cuda = self._cupy.cuda
        with cuda.Device(self._ordinal), cuda.Stream.null if stream == 0 else cuda.ExternalStream(stream):
            owner = cuda.alloc(max(nbytes, 1))
        return int(owner.ptr), owner

    def free_bytes(self) -> int:
        """See `Memory`; what CuPy's pool holds unused counts as free."""
        with self._cupy.cuda.Device(self._ordinal):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def array(self, array: DeviceArray) -> Any:
        """The array that memory of this allocator is, without a copy."""
        owner = array.owner.memory
        first = array.address - int(owner.ptr)
        return self._cupy.ndarray(array.shape, np.dtype(array.dtype), memptr=owner + first)
