"""Rows that are appended image by image: in memory up to a limit, then in a file."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import BinaryIO

import numpy as np

from ..array_types import FloatArray, IndexArray
from .files import map_file, read_into, write_all
from .workspace import Workspace

_CHUNK_BYTES = 32 << 20
_CHUNK_ROWS = 4096


class RowBuffer:
    """(rows, D) float32 in memory that can be given back: pages are taken when written, and freed by `compact`.

    Args:
        rows: capacity. dim: values in a row.

    Attributes:
        array: the rows.
    """

    def __init__(self, rows: int, dim: int) -> None:
        size = max(rows * dim * 4, mmap.PAGESIZE)
        if hasattr(mmap, "MAP_PRIVATE"):
            # Python's default is shared memory, whose pages cannot be freed.
            self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without huge pages: slower, not wrong
                    self._map.madvise(mmap.MADV_HUGEPAGE)
        else:
            self._map = mmap.mmap(-1, size)
        self.array: FloatArray = np.frombuffer(self._map, dtype=np.float32, count=rows * dim).reshape(rows, dim)

    def compact(self, rows: IndexArray) -> FloatArray:
        """Moves the given rows (int64, ascending) to the front and frees the memory behind them.

        Returns:
            float32 (n, D), those rows. Every other view of the buffer becomes meaningless.
        """
        array = self.array
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows[start : start + _CHUNK_ROWS]
            # Row rows[j] >= j, so that a chunk's sources are at or behind everything written before it.
            array[start : start + len(part)] = array[part]
        used = -(-len(rows) * array.shape[1] * 4 // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and used < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, used, len(self._map) - used)
        self.array = array[: len(rows)]
        return self.array


class RowLog:
    """(n, D) float32, growing at its end; implements `MemberRows`.

    Args:
        workspace: gives the file.
        name: of the file.
        dim: values in a row.
        most_rows: how many there can be at most.
        memory: bytes that may be kept in memory; beyond, all rows move to the file.
        rows: rows that the file holds already (a resumed spool's); what is behind them is cut off.
    """

    def __init__(
        self, workspace: Workspace, name: str, dim: int, *, most_rows: int, memory: int, rows: int = 0
    ) -> None:
        self._workspace, self._name, self.dim = workspace, name, dim
        self._count = rows
        self._file: BinaryIO | None = None
        capacity = min(most_rows, memory // (4 * dim)) if dim else 0
        self._buffer = _buffer(capacity, dim) if capacity and not rows and not workspace.durable else None
        if self._buffer is None:
            self._open()

    def __len__(self) -> int:
        return self._count

    @property
    def array(self) -> FloatArray | None:
        """All rows, (n, D), if they are in memory."""
        return None if self._buffer is None else self._buffer.array[: self._count]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * self.dim

    def append(self, rows: FloatArray) -> None:
        """Adds (m, D) rows; SpoolWriteError if the file cannot be written: the rows before stay as they are."""
        end = self._count + len(rows)
        if self._buffer is not None and end > len(self._buffer.array):
            self._move_to_file()
        if self._buffer is not None:
            self._buffer.array[self._count : end] = rows
        else:
            self._write(rows)
        self._count = end

    def read(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop, (stop - start, D)."""
        if self._buffer is not None:
            return self._buffer.array[start:stop]
        out = np.empty((stop - start, self.dim), dtype=np.float32)
        read_into(self.file, start * self.row_bytes, out)
        return out

    def load(self, memory: int) -> FloatArray | None:
        """All rows, (n, D), in memory, read from the file if ``memory`` bytes hold them; else None.

        The file stays as it is.
        """
        if self._buffer is None and self.dim and self._count * self.row_bytes <= memory:
            self._buffer = _buffer(max(self._count, 1), self.dim)
            if self._buffer is not None:
                read_into(self.file, 0, self._buffer.array[: self._count])
        return self.array

    def compact(self, rows: IndexArray) -> FloatArray:
        """With all rows in memory: the given ones (ascending), moved to the front; ends the use of the log."""
        assert self._buffer is not None
        kept = self._buffer.compact(rows)
        self.close()
        return kept

    def cut(self, count: int) -> None:
        """With rows in a file: drops all but the first ``count``, and their room on disk."""
        self.file.truncate(count * self.row_bytes)
        self.file.seek(0, 2)
        self._count = count

    @property
    def file(self) -> BinaryIO:
        """The file that the rows are in."""
        assert self._file is not None
        return self._file

    def finish(self) -> FloatArray:
        """All rows, (n, D), in memory or memory-mapped from the file; ends the use of the log."""
        if self._buffer is not None:
            return self.compact(np.arange(self._count, dtype=np.int64))
        rows: FloatArray = map_file(self.file, np.float32, (self._count, self.dim))
        self.close()
        return rows

    def close(self) -> None:
        """Releases memory and file."""
        self._buffer = None
        self._count = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self._file = self._workspace.open_file(self._name)
        with self._workspace.writing():
            self._file.truncate(self._count * self.row_bytes)
        self._file.seek(0, 2)

    def _write(self, rows: FloatArray) -> None:
        begin = self.file.tell()
        with self._workspace.writing(rows.nbytes):
            try:
                write_all(self.file, rows)
            except OSError:
                self.file.truncate(begin)
                self.file.seek(begin)
                raise

    def _move_to_file(self) -> None:
        rows = self.array
        assert rows is not None
        self._file = self._workspace.new_file(self._name)
        step = max(1, _CHUNK_BYTES // self.row_bytes)
        for start in range(0, len(rows), step):
            self._write(rows[start : start + step])
        self._buffer = None


def _buffer(capacity: int, dim: int) -> RowBuffer | None:
    try:
        return RowBuffer(capacity, dim)
    except (OSError, MemoryError):  # not even addresses are left: use the file
        return None
