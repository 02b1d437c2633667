"""Where a fit keeps its data: in memory within a limit, and on disk beyond it.

`Workspace` writes to temporary files without a name: they are gone when the process ends, however it ends. `Spool`
(spool.py) has files that a later process can continue from. Everything that makes a fit resumable is a method here
that does nothing and that `Spool` overrides, so that no other code asks which of the two it has.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..array_types import Array, FloatArray, IndexArray, Int32Array, UInt8Array
from ..errors import InReachError, SpoolWriteError
from ..method.association import ImageMembers
from ..method.channels import Members, Selection
from ..parameters import Parameters
from ..system.memory import format_bytes
from .files import disk_is_full, write_all


class Budget:
    """How ``memory_limit`` is divided, in bytes; the shares in use at one time add up to the limit at most.

    Attributes:
        limit: the whole.
        inputs, members, sample: network inputs, members' rows, and other rows of the threshold's sample, while images
            are read and associated. As much as for the members is left for those that turn out not to be nominal.
        sums, index: channel sums at a time, then what building the search index may take; the rows are then on disk.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inputs = self.sample = limit // 8
        self.members = self.sums = limit * 3 // 8
        self.index = limit // 2


@dataclass
class RecordedImages:
    """What earlier processes have stored of the images, in their order.

    Attributes:
        counts: members of each image. patch, joined: their patch numbers and the channels that they joined.
        rows, rest: rows in the files of the members and of the other patches.
    """

    counts: list[int] = field(default_factory=list)
    patch: list[Int32Array] = field(default_factory=list)
    joined: list[IndexArray] = field(default_factory=list)
    rows: int = 0
    rest: int = 0


class Workspace:
    """Temporary files, and the budget.

    Args:
        budget: what may be kept in memory.
        folder: where the files go; None: the system's folder for temporary files.

    Attributes:
        durable: whether files survive this process; they then hold everything that a fit has done.
        expected: bytes that are still to be written, as far as known: for the message of a full disk.
        rows_left: how many rows, from the first on, are still in the members' file; None if none has been moved.
    """

    durable = False
    rows_left: int | None = None

    def __init__(self, budget: Budget, folder: Path | None = None) -> None:
        self.budget = budget
        self.expected = 0
        self._folder = folder
        self._index_folder: Path | None = None

    # -------------------------------------------------------------------------------------------------- files

    @property
    def place(self) -> Path:
        """The folder of the files."""
        return self._folder or Path(tempfile.gettempdir())

    def open_file(self, name: str) -> BinaryIO:
        """A file to be written and read, unbuffered, empty unless an earlier process has left it.

        Raises:
            SpoolWriteError: it cannot be created.
        """
        with self.writing():
            return cast(BinaryIO, tempfile.TemporaryFile(buffering=0, prefix=f"inreach-{name}-", dir=self._folder))

    def new_file(self, name: str) -> BinaryIO:
        """Like `open_file`, but always a new, empty file."""
        return self.open_file(name)

    def index_folder(self) -> Path:
        """A folder for the files of the search index; `close` removes it, and mapped files stay readable."""
        if self._index_folder is None:
            with self.writing():
                self._index_folder = Path(tempfile.mkdtemp(prefix="inreach-index-", dir=self._folder))
        return self._index_folder

    def close(self) -> None:
        """Releases the files; what is memory-mapped from them stays readable."""
        if self._index_folder is not None:
            shutil.rmtree(self._index_folder, ignore_errors=True)
            self._index_folder = None

    def remove(self) -> None:
        """Closes the workspace and deletes its files."""
        self.close()

    def give_up(self, error: BaseException) -> None:
        """Ends a fit that failed."""
        self.close()

    def append(self, file: BinaryIO, array: Array) -> None:
        """Writes an array's bytes at the end of a file; SpoolWriteError if that fails, and the file is as before."""
        begin = file.tell()
        with self.writing(array.nbytes):
            try:
                write_all(file, array)
            except OSError:
                file.truncate(begin)
                file.seek(begin)
                raise

    @contextmanager
    def writing(self, needed: int = 0) -> Iterator[None]:
        """Turns an OSError of the block, which writes ``needed`` bytes, into a SpoolWriteError."""
        try:
            yield
        except InReachError:
            raise
        except OSError as error:
            raise SpoolWriteError(error.errno or errno.ENOSPC, self._sentence(error, needed)) from error

    def _sentence(self, error: OSError, needed: int) -> str:
        remedy = "give another folder (spool=DIR of a fit, or use_scratch), or a greater memory_limit"
        return f"{self.place}: {write_failure(self.place, error, max(needed, self.expected))}; {remedy}"

    # ------------------------------------------------------------------------------------------------ records

    def begin(self, configuration: Callable[[], Mapping[str, Any]]) -> None:
        """Records what the data depend on besides the images, or compares it with an earlier process's record."""

    def record_read(self, names: Sequence[str], skipped: Sequence[str], digests: UInt8Array) -> None:
        """Records the images, or compares them with an earlier process's record."""

    def recorded_images(self, dim: int, n_images: int) -> RecordedImages:
        """What earlier processes have stored of ``n_images`` images with descriptors of ``dim`` values."""
        return RecordedImages()

    def record_image(self, number: int, found: ImageMembers) -> None:
        """Records an image whose rows have been written."""

    def recorded_selection(self, members: Members, p: Parameters) -> Selection | None:
        """The filters' result, if an earlier process recorded one."""
        return None

    def record_selection(self, selection: Selection, p: Parameters) -> None:
        """Records the filters' result: a resumed fit continues after them."""

    def sync(self, *files: BinaryIO) -> None:
        """Makes what was written to the files survive a power cut."""

    def record_moved(self, left: int) -> None:
        """Records that only the first ``left`` rows are still needed in the members' file."""

    def finish_moving(self, nominal: FloatArray) -> None:
        """Ends the use of the members' file: the nominal rows are mapped from their own file now."""

    def file_of(self, rows: FloatArray) -> Path | None:
        """The file that this fit's nominal rows are mapped from; None if it has no name or ``rows`` are others."""
        return None


def write_failure(folder: Path, error: OSError, needed: int) -> str:
    """Why writing failed, in words."""
    if not disk_is_full(error):
        return f"cannot be written ({error.strerror or error})"
    try:
        free = format_bytes(shutil.disk_usage(folder).free)
    except OSError:
        free = "an unknown amount"
    return f"the disk is full: at least {format_bytes(needed)} more are needed and {free} are free"
