"""What the engine asks of a GPU (`Gpu`) and of an allocator (`Memory`)."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

Grid = tuple[int, int, int]


class Gpu(Protocol):
    """One GPU with the kernels loaded: `inreach_fast._cuda.Gpu`, `CupyGpu`, and in the tests the host executor.

    Streams are raw handles, as ``torch.cuda.Stream.cuda_stream`` and ``cupy.cuda.Stream.ptr`` are; 0 is the legacy
    default stream. Errors are those of the extension or of CuPy. ``ordinal`` is its number among the visible GPUs.
    """

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int

    def allocate(self, nbytes: int) -> int:
        """Address of new memory, aligned to 256 bytes."""

    def release(self, address: int) -> None:
        """Frees memory; work that was enqueued before may still use it."""

    def free_bytes(self) -> int: ...

    def copy_in(self, to: int, source: Any, stream: int) -> None:
        """From a contiguous host buffer, which may be changed as soon as this returns."""

    def copy_out(self, to: Any, source: int, stream: int, wait: bool) -> None:
        """To a contiguous host buffer; without ``wait``, valid after the stream has been waited for."""

    def launch(self, kernel: str, grid: Grid, block: int, arguments: Sequence[Any], stream: int) -> None:
        """Arguments are int (addresses) and NumPy scalars."""

    def synchronize(self, stream: int) -> None:
        """Waits for all work of the stream."""


class Memory(Protocol):
    """An allocator of GPU memory."""

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        """Address, and an owner that frees the memory when it is deleted."""

    def free_bytes(self) -> int:
        """What could be allocated now; memory that the allocator's pool holds unused counts as free."""


class OwnMemory:
    """The GPU's own allocator, a `Memory`."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.free_bytes = gpu.free_bytes

    def allocate(self, nbytes: int, stream: int) -> tuple[int, Any]:
        address = self._gpu.allocate(nbytes)
        owner = _Owner()
        weakref.finalize(owner, _release, self._gpu, address)
        return address, owner


class _Owner:
    """Something that a finaliser can be attached to."""


def _release(gpu: Gpu, address: int) -> None:
    with contextlib.suppress(Exception):  # a lost GPU has lost its memory, and a finaliser cannot raise
        gpu.release(address)
