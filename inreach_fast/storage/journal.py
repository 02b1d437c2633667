"""The journal of a spool: one JSON record a line, each with its CRC-32, after a header that says what is fitted."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from ..errors import SpoolCorruptError, SpoolError, SpoolExistsError, SpoolMismatchError
from .files import whole_file

_FORMAT: Final = 3
_FAILED: Final = "failed"

Record = dict[str, Any]


class Journal:
    """Records are appended in one write each: a process killed at any point leaves complete records, and behind them
    perhaps a part of a line, which is cut off.

    Args:
        path: the file.
        resume: continue it; otherwise the journal of a fit that may still be continued is an error.

    Attributes:
        header: None until `begin`. records: what has been done, in order.
        failed: whether the fit ended in an error of its data, so that continuing it in the same way fails again.

    Raises:
        SpoolExistsError, SpoolCorruptError, SpoolMismatchError (another format), SpoolError (it cannot be read).
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.header: Record | None = None
        self.records: list[Record] = []
        self.failed = False
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SpoolError(f"{path}: cannot be read ({error.strerror or error})") from error
        *lines, _incomplete = data.split(b"\n")
        records = [_record(line) for line in lines]
        if records and records[-1] is None:  # the line that was being written when the power failed
            records.pop()
            lines.pop()
        header = records[0] if records else None
        if header is None or header.get("kind") != "inreach_fast spool":
            raise SpoolCorruptError(
                f"{path}: is not the journal of a spool, or its beginning was altered; remove the spool and start again"
            )
        if header.get("format") != _FORMAT:
            raise SpoolMismatchError(
                f"{path}: written by another version of inreach_fast (format {header.get('format')}); finish with that "
                "version, or remove the spool and start again"
            )
        self.failed = any(record is not None and record["kind"] == _FAILED for record in records)
        if not (resume or self.failed):
            raise SpoolExistsError(
                f"{path.parent}: holds an unfinished fit; continue it with resume=True (--resume), or remove the spool "
                "to start again"
            )
        if any(record is None for record in records):
            number = records.index(None) + 1
            raise SpoolCorruptError(f"{path}: line {number} was altered; remove the spool and start again")
        self.header = header
        self.records = [record for record in records[1:] if record is not None and record["kind"] != _FAILED]
        self._open(sum(len(line) + 1 for line in lines))

    def begin(self, header: Mapping[str, Any]) -> None:
        """Writes a new journal."""
        self.header = {"kind": "inreach_fast spool", "format": _FORMAT, **header}
        self.records, self.failed = [], False
        self._rewrite()

    def fail(self) -> None:
        """Records that the fit failed because of its data."""
        self.append({"kind": _FAILED})
        self.records.pop()
        self.failed = True

    def take_over(self) -> None:
        """Drops the record of a failure: the fit goes on."""
        if self.failed:
            self.failed = False
            self._rewrite()

    def append(self, record: Record, *, sync: bool = False) -> None:
        """Adds a record, whose data have been written; where it cannot be written (OSError), nothing changes.

        Args:
            record: JSON-able.
            sync: make it survive a power cut: other data are dropped because of it.
        """
        assert self._file is not None
        before, line = self._file.tell(), _line(record)
        try:
            if self._file.write(line) != len(line):  # a disk that is nearly full takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(before)
            self._file.seek(before)
            raise
        self.records.append(record)

    def keep(self, count: int) -> None:
        """Drops all records but the first ``count``."""
        if count < len(self.records):
            self.records = self.records[:count]
            self._rewrite()

    def of_kind(self, kind: str) -> list[Record]:
        """The records of a kind, in order."""
        return [record for record in self.records if record["kind"] == kind]

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, size: int) -> None:
        self._file = self._path.open("r+b", buffering=0)
        self._file.truncate(size)
        self._file.seek(size)

    def _rewrite(self) -> None:
        assert self.header is not None
        self.close()
        content = b"".join(_line(record) for record in (self.header, *self.records))
        with whole_file(self._path) as file:
            file.write(content)
        self._open(len(content))


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return text + f" {zlib.crc32(text):08x}\n".encode()


def _record(line: bytes) -> Record | None:
    """A line's record; None if the line is not what was written."""
    text, _, checksum = line.rpartition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None
