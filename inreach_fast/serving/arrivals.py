"""Image files that arrive in a folder, found by looking at it again and again: which of them are complete."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from ..errors import DataError
from ..images.decoding import IMAGE_SUFFIXES
from ..images.folders import is_hidden, natural_key
from .events import log_event

_TRACKED = 4
"""Files whose completion is followed at a time, as a multiple of those that a look may return: the next ones are found
complete while these are inspected."""


@dataclass(frozen=True)
class Arrival:
    """An image file as it was at one look; a file that is written again is another arrival.

    Attributes:
        name: path below the folder, with "/". size: bytes. modified: nanoseconds.
    """

    name: str
    size: int
    modified: int

    @property
    def version(self) -> str:
        """Size and time of modification, as they stand in the journal."""
        return f"{self.size}-{self.modified}"

    @property
    def key(self) -> bytes:
        """16 bytes that stand for the name and the version."""
        return key_of(self.name, self.version)


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        complete: files to be inspected next, the oldest first.
        waiting: files that are still to be inspected, those that are not complete among them, but for those that have
            been logged as incomplete.
        oldest: nanoseconds, time of modification of the oldest of them; 0 if there is none.
    """

    complete: list[Arrival]
    waiting: int
    oldest: int


@dataclass
class _Followed:
    version: tuple[int, int]
    since: float  # when this version was first seen
    first: float  # when the file was
    told: bool = False  # that it is not complete


def key_of(name: str, version: str) -> bytes:
    """16 bytes that stand for a name and a version, so that a million of them fit in memory."""
    return hashlib.blake2b(os.fsencode(name) + b"\0" + version.encode(), digest_size=16).digest()


def arrival_at(folder: Path, name: str) -> Arrival | None:
    """The file of that name as it is now; None if there is no such regular file."""
    try:
        found = os.stat(folder / name)
    except (OSError, ValueError):
        return None
    return Arrival(name, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class Arrivals:
    """Follows the image files of a folder.

    A file is complete once it holds something, and its size and time of modification have not changed for ``settle``
    seconds, measured by this process's clock over at least two looks. So a file may be copied, written slowly or
    renamed into place, and times that are preserved or come from another machine's clock do no harm.

    Args:
        folder: that is looked at; hidden files and files without an image's suffix are passed over.
        recursive: include sub-folders.
        settle: seconds. patience: seconds after which a file that is not complete is logged, once. It is taken all the
            same when it is complete.

    Raises:
        DataError: the folder does not exist, or cannot be listed.
    """

    def __init__(self, folder: Path, *, recursive: bool = False, settle: float = 0.5, patience: float = 60.0) -> None:
        self.folder = folder
        self._recursive, self._settle, self._patience = recursive, settle, patience
        self._followed: dict[str, _Followed] = {}
        self._empty: dict[str, tuple[int, int]] = {}  # for longer than patience: passed over until they change
        self._only: frozenset[str] | None = None
        self._unreadable: set[str] = set()
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"{folder}: {what}; give a folder in which images arrive")
        try:
            with os.scandir(folder):
                pass
        except OSError as error:
            raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error

    def only_those_here(self) -> None:
        """From now on, only the files that are in the folder now."""
        self._only = frozenset(arrival.name for arrival in self._files())

    def look(self, now: float, taken: Container[bytes], most: int) -> Look:
        """Looks at the folder.

        Args:
            now: seconds of a clock that is never set back.
            taken: keys of arrivals that are of no interest any more.
            most: that are returned as complete.
        """
        waiting, oldest, still_empty = 0, 0, {}

        def interesting() -> Iterator[tuple[int, str, Arrival]]:
            nonlocal waiting, oldest
            for arrival in self._files():
                if arrival.key in taken or (self._only is not None and arrival.name not in self._only):
                    continue
                version = (arrival.size, arrival.modified)
                if self._empty.get(arrival.name) == version:
                    still_empty[arrival.name] = version
                    continue
                waiting += 1
                oldest = arrival.modified if waiting == 1 else min(oldest, arrival.modified)
                yield arrival.modified, arrival.name, arrival

        tracked = [arrival for *_, arrival in nsmallest(_TRACKED * most, interesting())]
        self._empty = still_empty
        before, self._followed, complete = self._followed, {}, []
        for arrival in tracked:
            version = (arrival.size, arrival.modified)
            seen = before.get(arrival.name) or _Followed(version, now, now)
            if seen.version != version:
                seen = _Followed(version, now, seen.first, seen.told)
            self._followed[arrival.name] = seen
            if arrival.size and now - seen.since >= self._settle and seen.since < now:
                complete.append(arrival)
                continue
            if now - seen.first >= self._patience and not seen.told:
                seen.told = True
                _log_incomplete(arrival, now - seen.first)
            if seen.told:
                waiting -= 1
                if not arrival.size:
                    self._empty[arrival.name] = version
        complete.sort(key=lambda arrival: (arrival.modified, natural_key(arrival.name)))
        return Look(complete[:most], waiting, oldest)

    def _files(self) -> Iterator[Arrival]:
        """Every image file that is in the folder now."""
        open_folders = [""]
        while open_folders:
            below = open_folders.pop()
            try:
                with os.scandir(self.folder / below) as entries:
                    found = sorted(entry.name for entry in entries if not is_hidden(entry.name))
                self._readable(below)
            except OSError as error:
                self._say_unreadable(below, error)
                continue
            for name in found:
                path = below + name
                if name.lower().endswith(IMAGE_SUFFIXES):
                    # Not the entry's own: on Windows that of a file that is being written is out of date.
                    arrival = arrival_at(self.folder, path)
                    if arrival is not None:
                        yield arrival
                        continue
                if self._recursive and (self.folder / path).is_dir() and not (self.folder / path).is_symlink():
                    open_folders.append(path + "/")

    def _say_unreadable(self, below: str, error: OSError) -> None:
        if below not in self._unreadable:
            self._unreadable.add(below)
            why = f"{self.folder / below}: cannot be listed ({error.strerror}); it is tried again at each look"
            log_event("unreadable", level=logging.WARNING, folder=str(self.folder / below), error=why)

    def _readable(self, below: str) -> None:
        if below in self._unreadable:
            self._unreadable.remove(below)
            log_event("readable", folder=str(self.folder / below))


def _log_incomplete(arrival: Arrival, seconds: float) -> None:
    state = "still changes" if arrival.size else "is still empty"
    why = f"{arrival.name}: {state} after {seconds:.0f} s; finish writing it, or remove it"
    log_event("incomplete", level=logging.WARNING, file=arrival.name, size=arrival.size, error=why)
