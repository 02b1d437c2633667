"""How much memory of a GPU the kernels of this process may hold at once, and how much they hold.

Counted is what they allocate: banks, lists of candidates, descriptors, work space. Not counted is the network (torch's
own) and what callers hold.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from typing import Any

from ....errors import GpuMemoryError
from ....memory import format_bytes, parse_bytes

_VARIABLE = "INREACH_GPU_MEMORY_LIMIT"


class Ledger:
    """What is held on each GPU, and the limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: defaultdict[int, int] = defaultdict(int)
        # Memory goes whenever Python finds that nobody holds it, in the middle of anything: that only notes it down.
        self._gone: deque[tuple[int, int]] = deque()
        self._limit: int | None = None
        self._chosen = False

    @property
    def limit(self) -> int | None:
        """Bytes on each GPU; None: as much as is free. At first the environment's INREACH_GPU_MEMORY_LIMIT."""
        if not self._chosen:
            text = os.environ.get(_VARIABLE)
            self.limit = None if not text else parse_bytes(text, _VARIABLE)
        return self._limit

    @limit.setter
    def limit(self, value: int | None) -> None:
        self._limit, self._chosen = value, True

    def held(self, ordinal: int) -> int:
        """Bytes that are held on a GPU."""
        with self._lock:
            return self._settled(ordinal)

    def left(self, ordinal: int) -> int | None:
        """Bytes that may still be taken; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.held(ordinal))

    def take(self, ordinal: int, nbytes: int, gpu: str) -> None:
        """Counts memory that is about to be allocated.

        Raises:
            GpuMemoryError: there would be more than the limit.
        """
        limit = self.limit
        with self._lock:
            held = self._settled(ordinal)
            if limit is not None and held + nbytes > limit:
                raise GpuMemoryError(
                    f"{gpu}: {format_bytes(nbytes)} more than the {format_bytes(held)} that are held would exceed the "
                    f"limit of {format_bytes(limit)}; raise it (set_gpu_memory_limit), or give smaller images"
                )
            self._held[ordinal] = held + nbytes

    def give_back(self, ordinal: int, nbytes: int) -> None:
        """Counts memory that has gone."""
        self._gone.append((ordinal, nbytes))

    def _settled(self, ordinal: int) -> int:
        while self._gone:
            gpu, nbytes = self._gone.popleft()
            self._held[gpu] -= nbytes
        return self._held[ordinal]


LEDGER = Ledger()


class Counted:
    """Memory of an allocator that is counted until it goes.

    Attributes:
        memory: the allocator's own owner of it.
    """

    __slots__ = ("_nbytes", "_ordinal", "memory")

    def __init__(self, memory: Any, ordinal: int, nbytes: int) -> None:
        self.memory, self._ordinal, self._nbytes = memory, ordinal, nbytes

    def __del__(self) -> None:
        LEDGER.give_back(self._ordinal, self._nbytes)


def set_gpu_memory_limit(limit: int | str | None) -> None:
    """Bytes that the kernels of this process may hold on each GPU, as a whole number or as in "2GB"; None: no limit.

    A bank that does not fit is streamed in pieces, lists get shorter: results do not depend on it. A fit's workers are
    told. The network's memory is torch's and not counted. The start value is the environment's
    INREACH_GPU_MEMORY_LIMIT.

    Raises:
        ParameterError: no amount of memory.
    """
    LEDGER.limit = None if limit is None else parse_bytes(limit, "set_gpu_memory_limit")


def get_gpu_memory_limit() -> int | None:
    """Bytes that the kernels may hold on each GPU; None: no limit.

    Raises:
        ParameterError: INREACH_GPU_MEMORY_LIMIT is no amount of memory.
    """
    return LEDGER.limit
