"""A spec, packed once into a file without a name that every worker of the machine maps.

The seeds' descriptors are a hundred megabytes and more. Mapped, they are in memory once for all workers, are the
system's to write back when memory is short, and vanish with the last process that holds the file.
"""

from __future__ import annotations

import errno
import mmap
import struct
import tempfile
from typing import Any, BinaryIO

from ..errors import SaveError
from .payload import Buffer, pack, unpack

_ALIGN = 64  # of each array, a cache line
_COUNT = struct.Struct("<Q")


class SpecFile:
    """An open file that holds a spec.

    Raises:
        ParameterError: the spec cannot be pickled. SaveError: there is no room for it.
    """

    def __init__(self, spec: Any) -> None:
        buffers = pack(spec, "spec")
        try:
            self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
            _write(self._file, buffers)
        except OSError as error:
            raise SaveError(
                error.errno or errno.EIO,
                f"{tempfile.gettempdir()}: no room for what the workers share ({error.strerror or error}); "
                "make room, or set TMPDIR to a folder that has it",
            ) from error

    @property
    def fileno(self) -> int:
        """The file's descriptor, for a child to inherit."""
        return self._file.fileno()

    def close(self) -> None:
        """Lets go of the file; workers that have it mapped keep it."""
        self._file.close()


def _write(file: BinaryIO, buffers: list[Buffer]) -> None:
    sizes = [len(buffer) for buffer in buffers]
    file.write(b"".join(_COUNT.pack(n) for n in (len(sizes), *sizes)))
    for buffer in buffers:
        file.write(b"\0" * (-file.tell() % _ALIGN))
        file.write(buffer)
    file.flush()


def map_buffers(fileno: int) -> list[memoryview]:
    """The packed spec's buffers in a file, mapped read-only."""
    view = memoryview(mmap.mmap(fileno, 0, access=mmap.ACCESS_READ))

    def number(place: int) -> int:
        (value,) = _COUNT.unpack_from(view, place * _COUNT.size)
        return int(value)

    sizes = [number(1 + i) for i in range(number(0))]
    at = (1 + len(sizes)) * _COUNT.size
    out = []
    for size in sizes:
        at += -at % _ALIGN
        out.append(view[at : at + size])
        at += size
    return out


def load_spec(fileno: int) -> Any:
    """The spec in a file; its arrays are read-only views of the file."""
    return unpack(map_buffers(fileno))
