"""Files on POSIX systems and on Windows: written whole or not at all, read and written at an offset, locked, mapped.

Everything that only POSIX systems offer is used here alone, with another way where it is missing.
"""

from __future__ import annotations

import errno
import importlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from ..array_types import Array

WINDOWS: Final = os.name == "nt"
_BLOCK: Final = 16 << 20
_HELD_ELSEWHERE: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that replaces ``path`` when the block ends without an error; until then an older file stays.

    The folder must exist. After an error (OSError: it cannot be written) nothing of the new file is left.
    """
    aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("xb") as file:
            yield file
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut, where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_file(path: Path) -> None:
    """Removes a file if it exists. On Windows one that is still open or mapped stays."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        if not WINDOWS:
            raise


def try_lock(file: BinaryIO) -> bool:
    """Locks a file for this process, until it is closed; False if another process holds it.

    Where the system or the file system has no locks, nothing is locked and the result is True.
    """
    try:
        fcntl: Any = importlib.import_module("fcntl")
    except ImportError:
        fcntl = None
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt: Any = importlib.import_module("msvcrt")
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in _HELD_ELSEWHERE
    return True


def disk_is_full(error: OSError) -> bool:
    """Whether a write failed because the disk, or the user's quota, is full."""
    # NumPy's own "requested and written" has no error number; Windows has no EDQUOT.
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), None)


def byte_view(array: Array) -> memoryview:
    """An array's bytes in C order; not copied if the array is in C order."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_all(file: BinaryIO, array: Array) -> None:
    """Writes an array's bytes at the file's position; an unbuffered file may take several calls."""
    view = byte_view(array)
    while len(view):
        view = view[file.write(view[:_BLOCK]) :]


def write_at(file: BinaryIO, offset: int, array: Array) -> None:
    """Writes an array's bytes at an offset, which may be beyond the end. The file's position may change."""
    view = byte_view(array)
    while len(view):
        if hasattr(os, "pwrite"):
            count = os.pwrite(file.fileno(), view[:_BLOCK], offset)
        else:
            file.seek(offset)
            count = file.write(view[:_BLOCK])
        view, offset = view[count:], offset + count


def read_into(file: BinaryIO, offset: int, out: Array) -> None:
    """Fills ``out``, in C order, from an offset of an unbuffered file; the file's position does not change.

    (A memory map would count the pages as this process's memory.)

    Raises:
        EOFError: the file ends before.
    """
    view = memoryview(out.reshape(-1).view(np.uint8).data)
    position = None if hasattr(os, "preadv") else file.tell()
    try:
        while len(view):
            if position is None:
                count = os.preadv(file.fileno(), [view[: 64 * _BLOCK]], offset)
            else:
                file.seek(offset)
                count = file.readinto(view[: 64 * _BLOCK])  # type: ignore[attr-defined]
            if not count:
                raise EOFError("the file is shorter than what was written to it")
            view, offset = view[count:], offset + count
    finally:
        if position is not None:
            file.seek(position)


def map_file(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...], offset: int = 0) -> Array:
    """The file's content from ``offset`` on, memory-mapped read-only; an empty array if the shape holds nothing."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape).view(np.ndarray)
