"""Amounts of memory as text, the machine's memory, and memory-mapped arrays."""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_types import Array
from ..errors import ParameterError

_AMOUNT: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:([KMGT])(I?))?B?\s*", re.IGNORECASE)
# Assumed where neither the system nor a container says: the memory of a small machine.
_UNKNOWN_MEMORY: Final = 4 << 30
# Each query reads some hundred rows of a mapped file, and the system loads sixteen pages around each.
MAPPED_QUERIES: Final = 16
_CGROUP_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def parse_bytes(value: Any, name: str = "memory_limit") -> int:
    """A number of bytes from an int or a string such as "2GB", "1.5 GiB", "512MiB", "800000".

    Raises:
        ParameterError: something else, or 0; the message calls it ``name``.
    """
    amount = 0
    if isinstance(value, str):
        found = _AMOUNT.fullmatch(value)
        if found:
            size = float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index((found[2] or " ").upper())
            amount = int(size) if math.isfinite(size) else 0
    elif hasattr(value, "__index__") and not isinstance(value, (bool, np.bool_)):
        amount = int(value)
    if amount < 1:
        raise ParameterError(f"{name}: expected bytes, as a whole number or as in '2GB' or '512MiB', got {value!r}")
    return amount


def format_bytes(amount: float) -> str:
    """Bytes for a reader: "512 B", "1.5 MB", "12.0 GB" (powers of 1000)."""
    for unit, size in (("TB", 1000**4), ("GB", 1000**3), ("MB", 1000**2), ("kB", 1000)):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{int(amount)} B"


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's where that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = _UNKNOWN_MEMORY
    for place in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            total = min(total, int(Path(place).read_text()))
    return total


def release_pages(array: Array) -> None:
    """Releases the pages of a memory-mapped file that ``array`` is a view of; other arrays are left alone.

    What was read through a map stays resident until the system needs the space, and counts as the process's memory. The
    array stays usable: pages are read again when they are touched.
    """
    mapped = mapped_file(array)
    if mapped is None or not hasattr(mmap, "MADV_DONTNEED") or array.nbytes == 0:
        return
    mapping = mapped._mmap  # type: ignore[attr-defined]
    base = np.frombuffer(mapping, dtype=np.uint8)
    low = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    first = low // mmap.PAGESIZE * mmap.PAGESIZE
    last = min(len(mapping), low + array.nbytes)
    with suppress(OSError, ValueError):  # advice only
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


def mapped_runs(count: int, arrays: Sequence[Array]) -> Iterator[slice]:
    """Runs of ``count`` queries that are searched among ``arrays``: all at once if the first is in memory.

    If it is mapped: a few at a time, and the pages of all ``arrays`` are released after each run.
    """
    mapped = mapped_file(arrays[0]) is not None
    step = MAPPED_QUERIES if mapped else max(1, count)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
        for array in arrays if mapped else ():
            release_pages(array)


def watch_file(array: Array, check: Callable[[], None]) -> None:
    """Has `check_unchanged` call ``check`` for this memory-mapped array and all views of it."""
    mapped = mapped_file(array)
    if mapped is not None:
        mapped.check = check  # type: ignore[attr-defined]


def check_unchanged(array: Any) -> None:
    """Checks that the file which ``array`` is memory-mapped from still is what it was; some microseconds.

    Arrays that are not mapped, or from files that nobody watches, pass.

    Raises:
        ModelChangedError: a model file was overwritten.
    """
    check = getattr(mapped_file(array), "check", None)
    if check is not None:
        check()


def mapped_file(array: Array) -> np.memmap[Any, Any] | None:
    """The memory map that ``array`` is a contiguous, read-only view of, or None (also for rows on a GPU)."""
    if not isinstance(array, np.ndarray) or not array.flags.c_contiguous or array.flags.writeable:
        return None
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap):
            return base if base.mode == "r" else None
        base = base.base
    return None
