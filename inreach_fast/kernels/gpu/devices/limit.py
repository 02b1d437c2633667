"""The limit of the GPU memory that the kernels of this process hold, and how much they hold.

Banks, lists of candidates, descriptors and work space count; the network, which is torch's, and callers' arrays do not.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from functools import cached_property
from typing import Any

from ....errors import GpuMemoryError
from ....system.memory import format_bytes, parse_bytes

_VARIABLE = "INREACH_GPU_MEMORY_LIMIT"


class Ledger:
    """Bytes that are held on each GPU, and the limit."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: defaultdict[int, int] = defaultdict(int)
        # Python deletes memory at any moment, also while the lock is held: that only notes it.
        self._gone: deque[tuple[int, int]] = deque()

    @cached_property
    def limit(self) -> int | None:
        """Bytes on each GPU; None: as much as is free. Until it is set, INREACH_GPU_MEMORY_LIMIT."""
        text = os.environ.get(_VARIABLE)
        return parse_bytes(text, _VARIABLE) if text else None

    def held(self, ordinal: int) -> int:
        with self._lock:
            while self._gone:
                gpu, nbytes = self._gone.popleft()
                self._held[gpu] -= nbytes
            return self._held[ordinal]

    def left(self, ordinal: int) -> int | None:
        """Bytes that may still be allocated; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.held(ordinal))

    def take(self, ordinal: int, nbytes: int, gpu: str) -> None:
        """Counts memory before it is allocated; GpuMemoryError where it would exceed the limit."""
        limit = self.limit
        with self._lock:
            held = self.held(ordinal)
            if limit is not None and held + nbytes > limit:
                raise GpuMemoryError(
                    f"{gpu}: {format_bytes(nbytes)} in addition to the {format_bytes(held)} in use would exceed the "
                    f"limit of {format_bytes(limit)}; raise it (set_gpu_memory_limit), or use smaller images"
                )
            self._held[ordinal] = held + nbytes

    def give_back(self, ordinal: int, nbytes: int) -> None:
        self._gone.append((ordinal, nbytes))


LEDGER = Ledger()


class Counted:
    """Owner of memory that counts until it is deleted; ``memory``: the allocator's own owner."""

    def __init__(self, memory: Any, ordinal: int, nbytes: int) -> None:
        self.memory, self._ordinal, self._nbytes = memory, ordinal, nbytes

    def __del__(self) -> None:
        LEDGER.give_back(self._ordinal, self._nbytes)


def set_gpu_memory_limit(limit: int | str | None) -> None:
    """Limits the bytes that the kernels of this process hold on each GPU: a number, or as in "2GB"; None: no limit.

    A bank that does not fit is streamed in pieces, and lists get shorter; results do not depend on it. The limit holds
    in a fit's workers as well. The network's memory is torch's and does not count. The initial value is that of the
    environment variable INREACH_GPU_MEMORY_LIMIT.

    Raises:
        ParameterError: not an amount of memory.
    """
    LEDGER.limit = None if limit is None else parse_bytes(limit, "set_gpu_memory_limit")


def get_gpu_memory_limit() -> int | None:
    """Bytes that the kernels may hold on each GPU; None: no limit.

    Raises:
        ParameterError: INREACH_GPU_MEMORY_LIMIT is not an amount of memory.
    """
    return LEDGER.limit
