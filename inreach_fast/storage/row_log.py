"""Rows that are appended image by image: in memory as long as they may, then in a file."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np

from ..array_types import FloatArray, IndexArray
from ..method.descriptors import DescriptorBuffer
from .workspace import Workspace, map_file, read_into, write_all

_CHUNK_BYTES = 32 << 20


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
        self._workspace, self._name, self._dim = workspace, name, dim
        self._count = rows
        self._file: BinaryIO | None = None
        self._buffer: DescriptorBuffer | None = None
        capacity = min(most_rows, memory // (4 * dim)) if dim else 0
        if capacity and not rows and not workspace.durable:
            self._buffer = _buffer(capacity, dim)
        if self._buffer is None:
            self._open(rows)

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> int:
        """Values in a row."""
        return self._dim

    @property
    def array(self) -> FloatArray | None:
        """All rows, (n, D), where they are in memory."""
        return None if self._buffer is None else self._buffer.array[: self._count]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * self._dim

    def append(self, rows: FloatArray) -> None:
        """Adds (m, D) rows.

        Raises:
            SpoolWriteError: the file cannot be written; rows appended before are still there.
        """
        if self._buffer is not None:
            end = self._count + len(rows)
            if end <= len(self._buffer.array):
                self._buffer.array[self._count : end] = rows
                self._count = end
                return
            self._spill()
        self._write(rows)
        self._count += len(rows)

    def read(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop, (stop - start, D)."""
        if self._buffer is not None:
            return self._buffer.array[start:stop]
        assert self._file is not None
        out = np.empty((stop - start, self._dim), dtype=np.float32)
        read_into(self._file, start * self.row_bytes, out)
        return out

    def load(self, memory: int) -> FloatArray | None:
        """All rows, (n, D), in memory: taken there from the file if ``memory`` bytes hold them, else None.

        The file stays as it is.
        """
        if self._buffer is None and self._dim and self._count * self.row_bytes <= memory:
            assert self._file is not None
            buffer = _buffer(max(self._count, 1), self._dim)
            if buffer is not None:
                read_into(self._file, 0, buffer.array[: self._count])
            self._buffer = buffer
        return self.array

    def compact(self, rows: IndexArray) -> FloatArray:
        """Of rows in memory: those given (ascending), moved to the front; the others' memory is given back."""
        assert self._buffer is not None
        kept = self._buffer.compact(rows)
        self.close()
        return kept

    def cut(self, count: int) -> None:
        """Of rows in a file: gives up all but the first ``count``, and their room on disk."""
        assert self._file is not None
        self._file.truncate(count * self.row_bytes)
        self._file.seek(0, 2)
        self._count = count

    def sync(self) -> None:
        """Of rows in a file: they outlast a power cut from here on."""
        assert self._file is not None
        os.fsync(self._file.fileno())

    def finish(self) -> FloatArray:
        """All rows, (n, D), in memory or memory-mapped from the file; the log is done with."""
        if self._buffer is not None:
            return self.compact(np.arange(self._count, dtype=np.int64))
        assert self._file is not None
        rows: FloatArray = map_file(self._file, np.float32, (self._count, self._dim))
        self.close()
        return rows

    def close(self) -> None:
        """Gives up memory and file."""
        self._buffer = None
        self._count = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, rows: int) -> None:
        self._file = self._workspace.open_file(self._name)
        try:
            self._file.truncate(rows * self.row_bytes)
        except OSError as error:
            raise self._workspace.write_error(error) from error
        self._file.seek(0, 2)

    def _write(self, rows: FloatArray) -> None:
        assert self._file is not None
        begin = self._file.tell()
        try:
            write_all(self._file, rows)
        except OSError as error:
            wanted = rows.nbytes
            self._file.truncate(begin)
            self._file.seek(begin)
            raise self._workspace.write_error(error, wanted) from error

    def _spill(self) -> None:
        """Moves everything from memory to the file."""
        assert self._buffer is not None
        buffer = self._buffer.array
        self._open(0)
        step = max(1, _CHUNK_BYTES // self.row_bytes)
        for start in range(0, self._count, step):
            self._write(buffer[start : min(start + step, self._count)])
        self._buffer = None


def _buffer(capacity: int, dim: int) -> DescriptorBuffer | None:
    try:
        return DescriptorBuffer(capacity, dim)
    except (OSError, MemoryError):  # not even the addresses are to be had: a file then
        return None
