"""The spool: a folder with an unfinished fit, which another process can continue.

    journal    what has been done (journal.py): the training images' sha256, one record for each image that was
               associated, then the filters' result, and how far the members' rows have been moved
    lock       held by the process that works here
    members, ids, rest, inputs                 what images gave (members.py, inputs.py)
    selection, nominal, others, index/         the filters' result, and its rows (partition.py)

Data are written first, then the record about them. Records have the CRC-32 of their data, so that data lost in a power
cut are noticed too: the fit then continues after the last image that is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from ..array_types import Array, FloatArray, UInt8Array
from ..errors import (
    NoChannelsError,
    NonFiniteError,
    ParameterError,
    SpoolBusyError,
    SpoolCorruptError,
    SpoolError,
    SpoolExistsError,
    SpoolImagesChangedError,
    SpoolMismatchError,
    SpoolWriteError,
)
from ..method.association import ImageMembers
from ..method.channels import FILTER_PARAMETERS, Members, Selection
from ..parameters import Parameters
from ..system.memory import mapped_file
from .files import WINDOWS, byte_view, disk_is_full, read_into, remove_file, try_lock, write_all
from .journal import Journal
from .workspace import Budget, RecordedImages, Workspace, write_failure

_JOURNAL, _LOCK, _INDEX, _SELECTION = "journal", "lock", "index", "selection"
_FILES: Final = ("members", "ids", "rest", "nominal", "others", _SELECTION, "inputs")
_OURS: Final = frozenset([_JOURNAL, f"{_JOURNAL}.new", _LOCK, _INDEX, *_FILES])
_OF_THE_DATA: Final = (NoChannelsError, NonFiniteError)
"""Errors that the same images give again, unless the parameters differ."""
_AGAIN: Final = "remove the spool and start again"


class Spool(Workspace):
    """A folder that holds a fit in progress; `Workspace` with files that stay.

    Args:
        folder: the spool; created if it does not exist. Its parent must exist.
        budget: what may be kept in memory.
        resume: continue what is there. Without it an unfinished spool is an error, unless its fit failed because of its
            data: it is then taken over. Where nothing is there, both start a new one.

    Raises:
        SpoolExistsError: the folder holds an unfinished fit and ``resume`` is False; or something else (nothing in it
            is touched). SpoolBusyError: another process works here. SpoolCorruptError: the journal was altered.
            SpoolWriteError: the folder cannot be created or written to.
    """

    durable = True

    def __init__(self, folder: str | os.PathLike[str], budget: Budget, *, resume: bool = False) -> None:
        try:
            self.folder = Path(folder)
        except TypeError as error:
            raise ParameterError(f"spool: expected the path of a folder, got {folder!r}") from error
        super().__init__(budget, self.folder)
        self._nominal: FloatArray | None = None
        self._lock: BinaryIO | None = None
        self._ids: BinaryIO | None = None
        self._created = self._make_folder()
        try:
            self._take_lock()
            with self.writing():
                self.journal = Journal(self.folder / _JOURNAL, resume)
            self._started_here = self.journal.header is None
        except BaseException:
            self._close_files()
            raise

    # ------------------------------------------------------------------------------------------------ records

    def begin(self, configuration: Callable[[], Mapping[str, Any]]) -> None:
        """See `Workspace`; SpoolMismatchError names what differs."""
        wanted = json.loads(json.dumps(dict(configuration()), sort_keys=True))
        if self.journal.header is None:
            with self.writing():
                self.journal.begin({"created": self._created, "configuration": wanted})
            return
        found = self.journal.header["configuration"]
        different = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        if different and self.journal.failed:
            self._start_anew(wanted)
        elif different:
            words = ", ".join(f"{name} (was {found.get(name)!r}, is {wanted.get(name)!r})" for name in different)
            raise SpoolMismatchError(
                f"{self.folder}: the spool is of another configuration: {words}; resume with the same one, or {_AGAIN}"
            )

    def record_read(self, names: Sequence[str], skipped: Sequence[str], digests: UInt8Array) -> None:
        """See `Workspace`; SpoolImagesChangedError names an image that changed, came or went."""
        now = {"names": list(names), "skipped": list(skipped), "digests": [row.tobytes().hex() for row in digests]}
        records = self.journal.of_kind("read")
        if not records:
            self.add({"kind": "read", **now})
            return
        old = records[0]
        before = dict(zip(old["names"], old["digests"], strict=True))
        after = dict(zip(now["names"], now["digests"], strict=True))
        changed = [(name, "is there, and was not") for name in names if name not in before]
        changed += [
            (name, "cannot be read, and could be" if name in skipped else "is missing, and was there")
            for name in before
            if name not in after
        ]
        changed += [
            (name, "is another image than it was") for name in names if before.get(name, after[name]) != after[name]
        ]
        if not changed and any(old[key] != value for key, value in now.items()):
            changed = [(names[0], "and others are in another order than they were")]
        if changed and self.journal.failed:
            assert self.journal.header is not None
            self._start_anew(self.journal.header["configuration"])
            self.add({"kind": "read", **now})
            return
        if changed:
            name, what = changed[0]
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise SpoolImagesChangedError(
                f"{name}: {what} when the spool {self.folder} was started{more}; give the same images to resume, or "
                f"{_AGAIN}"
            )
        with self.writing():
            self.journal.take_over()

    def recorded_images(self, dim: int, n_images: int) -> RecordedImages:
        """See `Workspace`; images whose data are not complete are taken back, and so are all after them."""
        self._ids = self.open_file("ids")
        left, found, records = self.rows_left, RecordedImages(), self.journal.of_kind("image")
        for record in records:
            count, rest = int(record["members"]), int(record["rest"])
            ids = np.empty((2, count), np.int64)
            moved = left is not None and found.rows + count > left
            try:
                read_into(self._ids, 16 * found.rows, ids)
                whole = record["number"] == len(found.counts) and crc32(ids) == record["crc"][1]
                whole &= moved or self._crc_of("members", found.rows, count, dim) == record["crc"][0]
                whole &= rest < 0 or self._crc_of("rest", found.rest, rest, dim) == record["crc"][2]
            except EOFError:
                whole = False
            if not whole:
                break
            found.counts.append(count)
            found.patch.append(ids[0].astype(np.int32))
            found.joined.append(ids[1].copy())
            found.rows, found.rest = found.rows + count, found.rest + max(rest, 0)
        done = len(found.counts)
        self._ids.truncate(16 * found.rows)
        self._ids.seek(16 * found.rows)
        if left is None:
            if done < len(records):
                with self.writing():
                    self.journal.keep(len(self.journal.of_kind("read")) + done)
        elif done < n_images or self._size_of("members") < 4 * dim * left:
            raise SpoolCorruptError(f"{self.folder}: data of image {min(done, n_images - 1)} were altered; {_AGAIN}")
        else:
            found.rows = left
        return found

    def record_image(self, number: int, found: ImageMembers) -> None:
        """See `Workspace`."""
        ids = np.stack([found.patch.astype(np.int64), found.joined])
        assert self._ids is not None
        self.append(self._ids, ids)
        rest = np.empty(0, np.float32) if found.rest is None else found.rest
        self.add(
            {
                "kind": "image",
                "number": number,
                "members": len(found.patch),
                "rest": -1 if found.rest is None else len(rest),
                "crc": [crc32(part) for part in (found.rows, ids, rest)],
            }
        )

    def recorded_selection(self, members: Members, p: Parameters) -> Selection | None:
        """See `Workspace`; SpoolMismatchError: with other filters. SpoolCorruptError: its data were altered."""
        records = self.journal.of_kind("selected")
        if not records:
            return None
        for name, value in records[0]["filters"].items():
            if value != getattr(p, name):
                raise SpoolMismatchError(
                    f"{self.folder}: the spool is of another configuration: {name} (was {value!r}, is "
                    f"{getattr(p, name)!r}), and its filters are done; resume with the same one, or {_AGAIN}"
                )
        saved = np.empty((2, len(members)), np.int64)
        with self.open_file(_SELECTION) as file:
            try:
                read_into(file, 0, saved)
            except EOFError:
                saved = saved[:, :0]
        if crc32(saved) != records[0]["crc"]:
            raise SpoolCorruptError(f"{self.folder}: the filters' result was altered; {_AGAIN}")
        return Selection(saved[0].astype(bool), saved[1], records[0]["counts"])

    def record_selection(self, selection: Selection, p: Parameters) -> None:
        """See `Workspace`."""
        saved = np.stack([selection.nominal.astype(np.int64), selection.channel])
        with self.open_file(_SELECTION) as file, self.writing(saved.nbytes):
            file.truncate(0)
            write_all(file, saved)
            self.sync(file)
        filters = {name: getattr(p, name) for name in FILTER_PARAMETERS}
        self.add({"kind": "selected", "filters": filters, "counts": selection.counts, "crc": crc32(saved)})

    @property
    def rows_left(self) -> int | None:  # type: ignore[override]
        """See `Workspace`."""
        records = self.journal.of_kind("moved")
        return int(records[-1]["left"]) if records else None

    def record_moved(self, left: int) -> None:
        """See `Workspace`."""
        self.add({"kind": "moved", "left": left}, sync=True)

    def finish_moving(self, nominal: FloatArray) -> None:
        """See `Workspace`."""
        remove_file(self.folder / "members")
        self._nominal = nominal

    def file_of(self, rows: FloatArray) -> Path | None:
        """See `Workspace`."""
        mapped = None if self._nominal is None else mapped_file(self._nominal)
        return self.folder / "nominal" if mapped is not None and mapped_file(rows) is mapped else None

    def add(self, record: dict[str, Any], *, sync: bool = False) -> None:
        """`Journal.append`; SpoolWriteError if it cannot be written."""
        with self.writing():
            self.journal.append(record, sync=sync)

    # -------------------------------------------------------------------------------------------------- files

    def open_file(self, name: str) -> BinaryIO:
        """See `Workspace`; the file of an earlier process is opened as it is."""
        path = self.folder / name
        with self.writing():
            return path.open("r+b" if path.exists() else "w+b", buffering=0)

    def new_file(self, name: str) -> BinaryIO:
        """See `Workspace`."""
        with self.writing():
            (self.folder / name).unlink(missing_ok=True)
        return self.open_file(name)

    def index_folder(self) -> Path:
        """See `Workspace`."""
        folder = self.folder / _INDEX
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it built it
        with self.writing():
            folder.mkdir()
        return folder

    def sync(self, *files: BinaryIO) -> None:
        """See `Workspace`."""
        for file in files:
            os.fsync(file.fileno())

    def give_up(self, error: BaseException) -> None:
        """Ends a fit that failed: the spool stays, unless this process started it and has no image yet.

        A fit that its data made fail is not to be continued as it is: the next one takes the spool over, and uses what
        is there if its images and configuration are the same.
        """
        if self._started_here and not self.journal.of_kind("image") and not isinstance(error, SpoolWriteError):
            self.remove()
            return
        if isinstance(error, _OF_THE_DATA) and self.journal.header is not None:
            with suppress(SpoolWriteError), self.writing():
                self.journal.fail()
        self.close()

    def close(self) -> None:
        """Ends this process's work here; the spool stays."""
        self.journal.close()
        self._close_files()

    def remove(self) -> None:
        """Removes the spool's files, and its folder if the spool created it and nothing else is in it."""
        created = self._created if self.journal.header is None else self.journal.header["created"]
        self.journal.close()
        remove_file(self.folder / _JOURNAL)  # first: what is left is then not an unfinished fit
        shutil.rmtree(self.folder / _INDEX, ignore_errors=True)
        with suppress(FileNotFoundError):
            for name in filter(_is_ours, os.listdir(self.folder)):
                remove_file(self.folder / name)
        self._close_files()
        if WINDOWS:  # which does not remove a file that is open
            remove_file(self.folder / _LOCK)
        if created:
            with suppress(OSError):
                self.folder.rmdir()

    def _start_anew(self, configuration: Mapping[str, Any]) -> None:
        """Drops what a fit that failed has left; its network inputs are read again in any case."""
        for name in _FILES:
            if name != "inputs":
                remove_file(self.folder / name)
        shutil.rmtree(self.folder / _INDEX, ignore_errors=True)
        assert self.journal.header is not None
        with self.writing():
            self.journal.begin({"created": self.journal.header["created"], "configuration": configuration})
        self._started_here = True

    def _close_files(self) -> None:
        for file in (self._ids, self._lock):
            if file is not None:
                file.close()
        self._ids = self._lock = None

    def _size_of(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return 0

    def _crc_of(self, name: str, start: int, count: int, dim: int) -> int:
        """CRC-32 of rows in a file."""
        out = np.empty((count, dim), np.float32)
        with self.open_file(name) as file:
            read_into(file, 4 * dim * start, out)
        return crc32(out)

    def _sentence(self, error: OSError, needed: int) -> str:
        what = write_failure(self.folder, error, max(needed, self.expected))
        if not self.folder.is_dir():
            return f"{self.folder}: {what}; make its parent folder, or see that it can be written to"
        remedy = "make room" if disk_is_full(error) else "see that it can be written to"
        return (
            f"{self.folder}: {what}. What is done stays in the spool: {remedy}, then continue with resume=True "
            "(--resume), or remove the spool"
        )

    def _make_folder(self) -> bool:
        """Creates the folder; False if it exists."""
        with self.writing(), suppress(FileExistsError):
            self.folder.mkdir()
            return True
        try:
            others = sorted(name for name in os.listdir(self.folder) if not _is_ours(name))
        except NotADirectoryError:
            others = ["a file"]
        except OSError as error:
            raise SpoolError(f"{self.folder}: cannot be read ({error.strerror or error})") from error
        if others:
            raise SpoolExistsError(
                f"{self.folder}: is not a spool (it holds {others[0]}) and was not touched; give a folder that does "
                "not exist yet"
            )
        return False

    def _take_lock(self) -> None:
        path = self.folder / _LOCK
        while True:
            with self.writing():
                lock = path.open("ab", buffering=0)
            if not try_lock(lock):
                lock.close()
                raise SpoolBusyError(
                    f"{self.folder}: another process is fitting with this spool; wait for it, or give another folder"
                )
            with suppress(FileNotFoundError):
                if os.fstat(lock.fileno()).st_ino == path.stat().st_ino:
                    self._lock = lock
                    return
            lock.close()  # its owner finished and removed the spool between our two steps


def crc32(array: Array) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(byte_view(array))


def _is_ours(name: str) -> bool:
    # A journal that is being written has a temporary name.
    return name in _OURS or (name.startswith(f".{_JOURNAL}.") and name.endswith(".tmp"))
