"""The journal of verdicts: one line of JSON for each image file, appended whole, each file's version once."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from ..errors import SaveError
from ..storage.files import try_lock
from .arrivals import Arrival, key_of
from .events import log_event, now

if TYPE_CHECKING:
    from typing_extensions import Self

NAME: Final = "verdicts.jsonl"


class VerdictJournal:
    """Verdicts in a file that only grows, `NAME` in a folder.

    A line is written in one piece, with its line feed last. Of a process that is killed, at whatever byte, complete
    lines are left and perhaps a part of one, which the next process cuts off: its image is inspected again. One process
    at a time writes a journal.

    Args:
        folder: created if missing.

    Attributes:
        path: of the file. done: keys (`Arrival.key`) of what has been reported; about 100 bytes each.

    Raises:
        SaveError: it cannot be written, or another process writes it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.done: set[bytes] = set()
        self._synced = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A file of its own: a locked part of the journal could not be read on Windows.
            self._lock: BinaryIO = (folder / ".lock").open("ab")
            if not try_lock(self._lock):
                self._lock.close()
                raise SaveError(
                    f"{self.path}: another process writes verdicts there; end it, or give another folder (--out)"
                )
            self._file: BinaryIO = self.path.open("a+b", buffering=0)
            self._size = self._read()
            self._file.truncate(self._size)
        except OSError as error:
            if isinstance(error, SaveError):
                raise
            raise self._failed(error) from error

    def _read(self) -> int:
        """Reads what is there, and returns the bytes of its complete lines."""
        size, strange = 0, 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    log_event("cut", level=logging.WARNING, journal=str(self.path), line=number, bytes=len(line))
                    break
                size += len(line)
                try:
                    row = json.loads(line)
                    self.done.add(key_of(row["file"], row["version"]))
                except (ValueError, KeyError, TypeError, AttributeError):
                    strange += 1
        if strange:
            why = f"{self.path}: {strange} lines are no verdicts and are passed over; their images are inspected again"
            log_event("strange_lines", level=logging.WARNING, journal=str(self.path), lines=strange, error=why)
        return size

    def append(self, arrival: Arrival, row: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the verdict about an arrival, and returns it as it was written.

        Raises:
            SaveError: it cannot be written; nothing of it is left.
        """
        whole = {**row, "file": arrival.name, "version": arrival.version, "time": now()}
        line = json.dumps(whole).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):  # a disk that is nearly full takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._size)
            raise self._failed(error) from error
        self._size += len(line)
        self._synced = False
        self.done.add(arrival.key)
        return whole

    def sync(self) -> None:
        """Makes what was appended survive a power cut."""
        if self._synced:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        self._synced = True

    def close(self) -> None:
        """Closes the file, and lets other processes write it."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _failed(self, error: OSError) -> SaveError:
        return SaveError(f"{self.path}: cannot be written ({error.strerror}); choose another folder or free space")
