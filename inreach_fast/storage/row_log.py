"""Rows that are appended image by image: in memory up to a limit, then in a file."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..array_types import Array, IndexArray
from .files import map_file, read_into
from .workspace import Workspace

_CHUNK_BYTES = 32 << 20
_CHUNK_ROWS = 4096


class RowBuffer:
    """Rows in memory that can be given back: pages are taken when written, and freed by `compact`.

    Args:
        rows: capacity. shape: of a row. dtype: of its values.

    Attributes:
        array: (rows, *shape).
    """

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> None:
        count = rows * math.prod(shape)
        size = max(count * np.dtype(dtype).itemsize, mmap.PAGESIZE)
        if hasattr(mmap, "MAP_PRIVATE"):
            # Python's default is shared memory, whose pages cannot be freed.
            self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without huge pages: slower, not wrong
                    self._map.madvise(mmap.MADV_HUGEPAGE)
        else:
            self._map = mmap.mmap(-1, size)
        self.array: Array = np.frombuffer(self._map, dtype=dtype, count=count).reshape(rows, *shape)

    def compact(self, rows: IndexArray) -> Array:
        """The given rows (int64, ascending), moved to the front; the memory behind them is freed.

        Every other view of the buffer becomes meaningless.
        """
        array = self.array
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows[start : start + _CHUNK_ROWS]
            # Row rows[j] >= j, so that a chunk's sources are at or behind everything written before it.
            array[start : start + len(part)] = array[part]
        return self.keep(len(rows))

    def keep(self, count: int) -> Array:
        """The first ``count`` rows; the memory behind them is freed."""
        self.array = self.array[:count]
        used = -(-self.array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and used < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, used, len(self._map) - used)
        return self.array


class RowLog:
    """Rows of one shape, growing at their end; of float32 vectors, (n, D), it implements `MemberRows`.

    Args:
        workspace: gives the file.
        name: of the file.
        shape: of a row; a number: D. dtype: of its values.
        most_rows: how many there can be at most.
        memory: bytes that may be kept in memory; beyond, all rows move to the file.
        rows: rows that the file holds already (a resumed spool's); what is behind them is cut off.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        shape: int | tuple[int, ...],
        *,
        dtype: npt.DTypeLike = np.float32,
        most_rows: int,
        memory: int,
        rows: int = 0,
    ) -> None:
        self._workspace, self._name = workspace, name
        self._shape, self._dtype = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        self.dim = math.prod(self._shape)
        self.row_bytes = self.dim * self._dtype.itemsize
        self._count = rows
        self._file: BinaryIO | None = None
        capacity = min(most_rows, memory // self.row_bytes) if self.dim else 0
        self._buffer = self._new_buffer(capacity) if capacity and not rows else None
        if self._buffer is None:
            self._file = workspace.open_file(name)
            with workspace.writing():
                self._file.truncate(rows * self.row_bytes)
            self._file.seek(0, 2)

    def __len__(self) -> int:
        return self._count

    @property
    def array(self) -> Array | None:
        """All rows, (n, *shape), if they are in memory."""
        return None if self._buffer is None else self._buffer.array[: self._count]

    @property
    def file(self) -> BinaryIO:
        """The file that the rows are in, if they are not in memory."""
        assert self._file is not None
        return self._file

    def append(self, rows: Array) -> None:
        """Adds (m, *shape) rows; SpoolWriteError if the file cannot be written: the rows before stay as they are."""
        end = self._count + len(rows)
        if self._buffer is not None and end > len(self._buffer.array):
            self._move_to_file()
        if self._buffer is not None:
            self._buffer.array[self._count : end] = rows
        else:
            self._workspace.append(self.file, rows)
        self._count = end

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop, (stop - start, *shape); not to be written to."""
        if self._buffer is not None:
            return self._buffer.array[start:stop]
        out = np.empty((stop - start, *self._shape), dtype=self._dtype)
        read_into(self.file, start * self.row_bytes, out)
        return out

    def load(self, memory: int) -> Array | None:
        """All rows in memory, read from the file if ``memory`` bytes hold them; else None. The file stays."""
        if self._buffer is None and self.dim and self._count * self.row_bytes <= memory:
            self._buffer = self._new_buffer(max(self._count, 1))
            if self._buffer is not None:
                read_into(self.file, 0, self._buffer.array[: self._count])
        return self.array

    def compact(self, rows: IndexArray) -> Array:
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

    def finish(self) -> Array:
        """All rows, in memory or memory-mapped from the file; ends the use of the log."""
        if self._buffer is not None:
            rows = self._buffer.keep(self._count)
        else:
            rows = map_file(self.file, self._dtype, (self._count, *self._shape))
        self.close()
        return rows

    def close(self) -> None:
        """Releases memory and file."""
        self._buffer = None
        self._count = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _move_to_file(self) -> None:
        rows = self.array
        assert rows is not None
        self._file = self._workspace.new_file(self._name)
        step = max(1, _CHUNK_BYTES // self.row_bytes)
        for start in range(0, len(rows), step):
            self._workspace.append(self._file, rows[start : start + step])
        self._buffer = None

    def _new_buffer(self, capacity: int) -> RowBuffer | None:
        try:
            return RowBuffer(capacity, self._shape, self._dtype)
        except (OSError, MemoryError):  # not even addresses are left: use the file
            return None
