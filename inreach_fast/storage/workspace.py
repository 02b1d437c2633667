"""Where a fit keeps what it needs for a while: in memory within a limit, and on disk beyond it.

`Workspace` writes to temporary files without a name: they are gone when the process ends, however it ends. `Spool`
(spool.py) is the same with files that a later process can go on from.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from ..array_types import Array
from ..errors import SpoolWriteError
from ..memory import format_bytes

_BLOCK: Final = 16 << 20


class Budget:
    """How ``memory_limit`` is shared out; the shares that are held at one time add up to the limit.

    While images are read and associated: their inputs, the members, and the rest of the threshold's sample. After
    that the members' share serves the filters' sums (their rows then lie on disk), then the index.

    Attributes:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit

    @property
    def inputs(self) -> int:
        """Bytes of network inputs in memory."""
        return self.limit // 8

    @property
    def members(self) -> int:
        """Bytes of members' rows in memory; as much again is there for those that turn out not to be nominal."""
        return self.limit * 3 // 8

    @property
    def sample(self) -> int:
        """Bytes of other rows of the threshold's sample."""
        return self.limit // 8

    @property
    def sums(self) -> int:
        """Bytes of channel sums at a time."""
        return self.limit * 3 // 8

    @property
    def index(self) -> int:
        """Bytes that building the search index may take."""
        return self.limit // 2


class Workspace:
    """Temporary files, and the budget.

    Args:
        budget: what may be kept in memory.
        folder: where the files go; None: the system's place for temporary files.

    Attributes:
        budget: as given. durable: whether files survive this process; they then hold everything that a fit has done.
    """

    durable = False

    def __init__(self, budget: Budget, folder: Path | None = None) -> None:
        self.budget = budget
        self._folder = folder
        self._index_folder: Path | None = None

    @property
    def place(self) -> Path:
        """The folder that the files are in."""
        return self._folder or Path(tempfile.gettempdir())

    def open_file(self, name: str) -> BinaryIO:
        """A file to be written and read, unbuffered, empty unless an earlier process has left it.

        Raises:
            SpoolWriteError: it cannot be made.
        """
        try:
            return cast(BinaryIO, tempfile.TemporaryFile(buffering=0, prefix=f"inreach-{name}-", dir=self._folder))
        except OSError as error:
            raise self.write_error(error) from error

    def new_file(self, name: str) -> BinaryIO:
        """`open_file`, and empty: a file that an earlier process has left there is another one from then on."""
        return self.open_file(name)

    def index_folder(self) -> Path:
        """A folder for the files of the search index; `close` removes it, and files still mapped stay readable."""
        if self._index_folder is None:
            try:
                self._index_folder = Path(tempfile.mkdtemp(prefix="inreach-index-", dir=self._folder))
            except OSError as error:
                raise self.write_error(error) from error
        return self._index_folder

    def close(self) -> None:
        """Gives up the files; what is memory-mapped from them stays readable."""
        if self._index_folder is not None:
            shutil.rmtree(self._index_folder, ignore_errors=True)
            self._index_folder = None

    def give_up(self, error: BaseException) -> None:
        """Ends a fit that failed."""
        self.close()

    def write_error(self, error: OSError, needed: int = 0) -> SpoolWriteError:
        """The error for a write of ``needed`` bytes that failed, with what the user can do about it."""
        return SpoolWriteError(error.errno or errno.ENOSPC, self._sentence(error, needed))

    def _sentence(self, error: OSError, needed: int) -> str:
        remedy = "give another place (spool=DIR of a fit, or use_scratch), or a greater memory_limit"
        return f"{self.place}: {write_failure(self.place, error, needed)}; {remedy}"


def write_failure(folder: Path, error: OSError, needed: int) -> str:
    """What went wrong in writing, in words."""
    if not is_full(error):
        return f"cannot be written ({error.strerror or error})"
    try:
        free = format_bytes(shutil.disk_usage(folder).free)
    except OSError:
        free = "an unknown amount"
    return f"the disk is full: at least {format_bytes(needed)} more are needed and {free} are free"


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    # NumPy's own "requested and written" comes without a number.
    return error.errno in (errno.ENOSPC, errno.EDQUOT, None)


def write_all(file: BinaryIO, array: Array) -> None:
    """Appends an array's bytes; an unbuffered file may take them in several goes."""
    view = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    while len(view):
        view = view[file.write(view[:_BLOCK]) :]


def write_at(file: BinaryIO, offset: int, array: Array) -> None:
    """Writes an array's bytes at a place of the file; what lies before it may be a hole that takes no room."""
    view = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    while len(view):
        count = os.pwrite(file.fileno(), view[:_BLOCK], offset)
        view, offset = view[count:], offset + count


def read_into(file: BinaryIO, offset: int, out: Array) -> None:
    """Fills ``out``, C order, from the file: read and not mapped, since pages of a map would count as memory.

    Raises:
        EOFError: the file ends before.
    """
    view = memoryview(out.reshape(-1).view(np.uint8).data)
    while len(view):
        count = os.preadv(file.fileno(), [view[: 64 * _BLOCK]], offset)
        if count == 0:
            raise EOFError("the file is shorter than what was written to it")
        view, offset = view[count:], offset + count


def map_file(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...], offset: int = 0) -> Array:
    """A file's content from ``offset`` on, read-only memory-mapped; an empty array where there is nothing to map."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape).view(np.ndarray)
