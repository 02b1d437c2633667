"""The spool: a folder in which an unfinished fit lies, so that another process can go on from it.

    journal    one JSON record a line, each with its CRC-32: first the configuration, then the training images'
               sha256, then one record for each image that was associated; at last what the filters left, and how
               far the members' rows have been moved to their places
    lock       held by the process that works here
    members, ids, rest, inputs        what images gave: member_store.py, input_store.py
    selection, nominal, others, index/    what the filters left, and its rows, moved there: placement.py

Data are written first, then the record that speaks of them, in one write. A process killed at any point therefore
leaves complete records, and behind them perhaps data or half a line that nothing speaks of, which resuming cuts off.
Records carry the CRC-32 of their data, so that data which a power cut took are noticed too: the fit then goes on from
the last image that is whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from ..array_types import Array, FloatArray
from ..errors import (
    ParameterError,
    SpoolBusyError,
    SpoolCorruptError,
    SpoolError,
    SpoolExistsError,
    SpoolMismatchError,
    SpoolWriteError,
)
from ..memory import mapped_file
from .workspace import Budget, Workspace, is_full, write_failure

_FORMAT: Final = 2
_JOURNAL, _LOCK, _INDEX = "journal", "lock", "index"
_FILES: Final = ("members", "ids", "rest", "nominal", "others", "selection", "inputs")
_OURS: Final = frozenset([_JOURNAL, f"{_JOURNAL}.new", _LOCK, _INDEX, *_FILES])

Record = dict[str, Any]


class Spool(Workspace):
    """A folder that holds a fit in progress; `Workspace` with files that stay.

    Args:
        folder: the spool; made where it is not there. Its parent must exist.
        budget: what may be kept in memory.
        resume: go on from what is there. Without it an unfinished spool is an error; where nothing is there, both
            begin afresh.

    Attributes:
        records: what the journal says has been done, in order; the configuration is not among them.
        expected: bytes that are still to be written, as far as known: for the message of a full disk.
        placed: the nominal rows, memory-mapped from the file of that name, once they are there (placement.py).

    Raises:
        SpoolExistsError: an unfinished fit lies there and ``resume`` is False; or the folder holds something else
            (nothing in it is touched). SpoolBusyError: another process works here. SpoolCorruptError: the journal was
            altered. SpoolWriteError: the folder cannot be made or written to.
    """

    durable = True

    def __init__(self, folder: str | os.PathLike[str], budget: Budget, *, resume: bool = False) -> None:
        try:
            self.folder = Path(folder)
        except TypeError as error:
            raise ParameterError(f"spool: expected the path of a folder, got {folder!r}") from error
        super().__init__(budget, self.folder)
        self.records: list[Record] = []
        self.expected = 0
        self.placed: FloatArray | None = None
        self._configuration: Record | None = None
        self._journal: BinaryIO | None = None
        self._lock: BinaryIO | None = None
        self._fresh = False
        self._created = self._make_folder()
        try:
            self._take_lock()
            self._read_journal(resume)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------------ records

    def begin(self, configuration: Mapping[str, Any]) -> None:
        """Says what is being fitted: written to a new spool, compared with what an old one says.

        Raises:
            SpoolMismatchError: the spool is of another configuration; names what differs.
        """
        wanted = json.loads(json.dumps(dict(configuration), sort_keys=True))
        if self._configuration is None:
            header = {"kind": "inreach_fast spool", "format": _FORMAT, "created": self._created}
            self._configuration = {**header, "configuration": wanted}
            self._fresh = True
            self._rewrite()
            return
        found = self._configuration["configuration"]
        different = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        if different:
            words = ", ".join(f"{name} (was {found.get(name)!r}, is {wanted.get(name)!r})" for name in different)
            raise SpoolMismatchError(
                f"{self.folder}: the spool is of another configuration: {words}; resume with the same one, or remove "
                "the spool and begin again"
            )

    def add(self, record: Record, *, sync: bool = False) -> None:
        """Appends a record; the data that it speaks of have been written.

        Args:
            record: JSON-able.
            sync: wait until it outlasts a power cut: for a record on whose strength other data are given up.

        Raises:
            SpoolWriteError: the journal cannot be written; it is as before.
        """
        assert self._journal is not None
        before = self._journal.tell()
        line = _line(record)
        try:
            written = self._journal.write(line)
            if written != len(line):  # a disk that is nearly full takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(self._journal.fileno())
        except OSError as error:
            self._journal.truncate(before)
            self._journal.seek(before)
            raise self.write_error(error, len(line)) from error
        self.records.append(record)

    def keep(self, count: int) -> None:
        """Takes back all records but the first ``count``: their data turned out not to be whole."""
        if count < len(self.records):
            self.records = self.records[:count]
            self._rewrite()

    def of_kind(self, kind: str) -> list[Record]:
        """The records of a kind, in order."""
        return [record for record in self.records if record["kind"] == kind]

    # -------------------------------------------------------------------------------------------------- files

    def open_file(self, name: str) -> BinaryIO:
        """See `Workspace`; the file of an earlier process is opened as it is."""
        path = self.folder / name
        try:
            return path.open("r+b" if path.exists() else "w+b", buffering=0)
        except OSError as error:
            raise self.write_error(error) from error

    def new_file(self, name: str) -> BinaryIO:
        """See `Workspace`."""
        self.drop_file(name)
        return self.open_file(name)

    def size_of(self, name: str) -> int:
        """Bytes in a file; 0 where there is none."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return 0

    def drop_file(self, name: str) -> None:
        """Removes a file that is no longer needed."""
        with suppress(FileNotFoundError):
            (self.folder / name).unlink()

    def file_of(self, rows: FloatArray) -> Path | None:
        """The file that a model's nominal rows are mapped from; None where they are others than this fit's."""
        mapped = None if self.placed is None else mapped_file(self.placed)
        return self.folder / "nominal" if mapped is not None and mapped_file(rows) is mapped else None

    def index_folder(self) -> Path:
        """See `Workspace`."""
        folder = self.folder / _INDEX
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it built it
        try:
            folder.mkdir()
        except OSError as error:
            raise self.write_error(error) from error
        return folder

    def give_up(self, error: BaseException) -> None:
        """Ends a fit that failed: the spool stays, unless this process began it and nothing came of it yet."""
        begun_here = self._fresh or self._configuration is None
        if begun_here and not self.of_kind("image") and not isinstance(error, SpoolWriteError):
            self.remove()
        else:
            self.close()

    def close(self) -> None:
        """Ends this process's work here; the spool stays."""
        for file in (self._journal, self._lock):
            if file is not None:
                file.close()
        self._journal = self._lock = None

    def remove(self) -> None:
        """Removes the spool's files, and its folder where the spool made it and nothing else lies in it."""
        created = self._configuration["created"] if self._configuration is not None else self._created
        self.drop_file(_JOURNAL)  # first: what is left is then no unfinished fit
        shutil.rmtree(self.folder / _INDEX, ignore_errors=True)
        for name in _OURS - {_JOURNAL, _INDEX}:
            self.drop_file(name)
        self.close()
        if created:
            with suppress(OSError):
                self.folder.rmdir()

    def _sentence(self, error: OSError, needed: int) -> str:
        what = write_failure(self.folder, error, max(needed, self.expected))
        if not self.folder.is_dir():
            return f"{self.folder}: {what}; make its parent folder, or see that it may be written to"
        remedy = "make room" if is_full(error) else "see that it can be written to"
        return (
            f"{self.folder}: {what}. What is done stays in the spool: {remedy}, then go on with resume=True "
            "(--resume), or remove the spool"
        )

    # ----------------------------------------------------------------------------------------------- opening

    def _make_folder(self) -> bool:
        """Makes the folder; whether it was not there."""
        try:
            self.folder.mkdir()
            return True
        except FileExistsError:
            pass
        except OSError as error:
            raise self.write_error(error) from error
        try:
            others = sorted(set(os.listdir(self.folder)) - _OURS)
        except NotADirectoryError:
            others = ["a file"]
        except OSError as error:
            raise SpoolError(f"{self.folder}: cannot be read ({error.strerror or error})") from error
        if others:
            raise SpoolExistsError(
                f"{self.folder}: is no spool (it holds {others[0]}); nothing was touched. Give a folder that does not "
                "exist yet"
            )
        return False

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # no such locks here: the user sees to it that one process works here
            return
        path = self.folder / _LOCK
        while True:
            try:
                lock = path.open("ab", buffering=0)
            except OSError as error:
                raise self.write_error(error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
                    self._lock = lock  # a file system without such locks: as where the system has none
                    return
                lock.close()
                raise SpoolBusyError(
                    f"{self.folder}: another process is fitting with this spool; wait for it, or give another folder"
                ) from error
            with suppress(FileNotFoundError):
                if os.fstat(lock.fileno()).st_ino == path.stat().st_ino:
                    self._lock = lock
                    return
            lock.close()  # its owner finished and removed the spool between our two steps

    def _read_journal(self, resume: bool) -> None:
        path = self.folder / _JOURNAL
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return  # killed before it began, or new
        except OSError as error:
            raise SpoolError(f"{path}: cannot be read ({error.strerror or error})") from error
        *lines, _torn = data.split(b"\n")
        records = [_record(line) for line in lines]
        if records and records[-1] is None:  # the line that was being written when the power went
            records.pop()
            lines.pop()
        header = records[0] if records else None
        if header is None or header.get("kind") != "inreach_fast spool":
            raise SpoolCorruptError(
                f"{path}: is no journal of a spool, or its beginning was altered; remove the spool and begin again"
            )
        if header.get("format") != _FORMAT:
            raise SpoolMismatchError(
                f"{path}: written by another version of inreach_fast (format {header.get('format')}); finish with that "
                "one, or remove the spool and begin again"
            )
        if not resume:
            raise SpoolExistsError(
                f"{self.folder}: an unfinished fit lies there; go on from it with resume=True (--resume), or remove "
                "the spool to begin again"
            )
        if any(record is None for record in records):
            number = records.index(None) + 1
            raise SpoolCorruptError(f"{path}: line {number} was altered; remove the spool and begin again")
        self._configuration = header
        self.records = [record for record in records[1:] if record is not None]
        self._open_journal(sum(len(line) + 1 for line in lines))

    def _open_journal(self, size: int) -> None:
        try:
            self._journal = (self.folder / _JOURNAL).open("r+b", buffering=0)
            self._journal.truncate(size)
            self._journal.seek(size)
        except OSError as error:
            raise self.write_error(error) from error

    def _rewrite(self) -> None:
        """The whole journal anew: written aside, then renamed."""
        assert self._configuration is not None
        if self._journal is not None:
            self._journal.close()
        content = b"".join(_line(record) for record in (self._configuration, *self.records))
        aside = self.folder / f"{_JOURNAL}.new"
        try:
            aside.write_bytes(content)
            os.replace(aside, self.folder / _JOURNAL)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            raise self.write_error(error, len(content)) from error
        self._open_journal(len(content))


def crc32(array: Array) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return text + f" {zlib.crc32(text):08x}\n".encode()


def _record(line: bytes) -> Record | None:
    """A line's record; None where the line is not what was written."""
    text, _, checksum = line.rpartition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None
