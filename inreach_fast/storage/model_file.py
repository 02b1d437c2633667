"""The file format of saved models: one file, checksummed, memory-mapped, nothing executable in it.

    offset 0   magic b"INREACH\\0"
           8   uint32 format version, uint32 zero
          16   uint64 offset of the header, uint64 its length in bytes
          32   sha256 of bytes 0..32 and the header (32 bytes)
          64   arrays, each at the next multiple of 64, little-endian, C order
               then, at the next multiple of 64, the header: canonical JSON (sorted keys, UTF-8):
               {"arrays": [...], "meta": {...}}

The first array has a fixed offset: a fit that exceeds memory writes its nominal patches there, and `save_file` makes
that file the model, without copying them. Version 1, which is still read, had the header in front (at 56, its length at
16, sha256 at 24).

An entry of "arrays" is {"name", "dtype", "shape", "offset", "sha256"}. All integers are little-endian.
Nothing in a file depends on time, machine or memory layout: the same fit gives the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import struct
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from ..array_types import Array
from ..errors import ModelChangedError, ModelCorruptError, ModelFileError, ModelVersionError, SaveError
from ..system.memory import check_unchanged, release_pages, watch_file
from .files import WINDOWS, disk_is_full, map_file, sync_folder, whole_file

MAGIC: Final = b"INREACH\0"
VERSION: Final = 2
ARRAYS_AT: Final = 64
"""Offset of the first array."""
_PREFIX: Final = struct.Struct("<8sIIQQ")
_PREFIX_1: Final = struct.Struct("<8sIIQ")  # of version 1
_HEADER_AT_1: Final = _PREFIX_1.size + 32
_ALIGN: Final = 64
_BLOCK: Final = 8 << 20
_MOST_HEADER: Final = 1 << 30
_DTYPES: Final = ("float32", "float64", "int64", "int32", "uint8")


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    sha256: str

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def save_file(
    path: str | os.PathLike[str], meta: Mapping[str, Any], arrays: Mapping[str, Array], *, holding: Path | None = None
) -> None:
    """Writes a model file; an older file of that name is replaced only when the new one is complete.

    Args:
        path: where to; its folder must exist.
        meta: JSON-able.
        arrays: by name; float32, float64, int64, int32 or uint8.
        holding: a file of the caller's that holds the first array at `ARRAYS_AT`. If possible it becomes the model (one
            file with two names), so that the array is not copied; the bytes are the same.

    Raises:
        SaveError: full disk, no permission, no such folder; no part of the new file is left. ModelChangedError: an
            array is mapped from a model file that was overwritten.
    """
    target = Path(path)
    little = {name: _little(array) for name, array in arrays.items()}
    for array in little.values():
        check_unchanged(array)
    if holding is not None and _taken_over(holding, target, meta, little):
        return
    try:
        with whole_file(target) as file:
            _write_model(file, meta, little)
    except OSError as error:
        raise _save_error(target, _layout(little)[1], error) from error
    sync_folder(target.parent)


def _taken_over(holding: Path, target: Path, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> bool:
    """Makes a model of ``holding``; False if it must be copied: it is a model already, or on another file system.

    Windows does not change the size of a file that is mapped, as this one is.
    """
    places, total = _layout(arrays)
    end = sum(places[0])
    try:
        status = holding.stat()
        other_disk = status.st_dev != target.parent.stat().st_dev
        if WINDOWS or status.st_nlink != 1 or other_disk or status.st_size < end:
            return False
    except OSError:
        return False
    second = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        with holding.open("r+b") as file:
            file.truncate(end)
            _write_model(file, meta, arrays, first_is_there=True)
        try:
            os.link(holding, second)
        except OSError:  # the file system has no second names, or takes the two folders for different ones
            os.truncate(holding, end)
            return False
        os.replace(second, target)
    except BaseException as error:
        with suppress(OSError):
            second.unlink(missing_ok=True)
            if holding.stat().st_nlink == 1:  # otherwise it is the model by now
                os.truncate(holding, end)
        if isinstance(error, OSError):
            raise _save_error(target, total - end, error) from error
        raise
    sync_folder(target.parent)
    _watch(target, next(iter(arrays.values())))
    return True


def load_file(path: str | os.PathLike[str], *, verify: bool = True) -> tuple[dict[str, Any], dict[str, Array]]:
    """Reads a model file: its meta, and its arrays memory-mapped read-only.

    Args:
        path: the file.
        verify: whether to check each array's sha256 (reads the file once); the header's is always checked.

    Raises:
        ModelFileError: it cannot be opened. ModelCorruptError: cut, altered, or no model file.
        ModelVersionError: written by a newer version. ModelChangedError: overwritten while it was read; the arrays
        raise it later (`memory.check_unchanged`).
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            watched = WatchedFile(source, file)
            header, entries = _read_header_and_entries(file, source)
            for entry in entries if verify else ():
                if not _is_whole(file, entry):
                    raise ModelCorruptError(
                        f"{source}: array {entry.name!r} was altered (its sha256 differs); copy the file again"
                    )
            arrays = {entry.name: map_file(file, entry.dtype, entry.shape, entry.offset) for entry in entries}
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be read ({error.strerror or error}); check the path") from error
    watched.check()  # it may have been overwritten meanwhile
    for array in arrays.values():
        watch_file(array, watched.check)
    return header["meta"], arrays


class WatchedFile:
    """A model file from which arrays are mapped: whoever overwrites it changes them.

    A file that is renamed to the model's name changes nothing: the old one lives on in its maps.

    Args:
        source: its name, for errors. file: open; it may be closed afterwards.
    """

    def __init__(self, source: Path, file: BinaryIO) -> None:
        self._source, self._lock = source, threading.Lock()
        self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        self._state, self._start = self._now(), self._first_bytes()

    def check(self) -> None:
        """Compares size, time of the last change, and the header's digest: two calls of the system.

        If the time alone differs (the file was touched, or written anew with the same bytes) the whole file is read
        once.

        Raises:
            ModelChangedError.
        """
        try:
            now, start = self._now(), self._first_bytes()
            if start == self._start and (now == self._state or (now[0] == self._state[0] and self._is_whole())):
                self._state = now
                return
            what = "was overwritten"
        except OSError as error:
            what = f"can no longer be read ({error.strerror or error})"
        raise ModelChangedError(
            f"{self._source}: {what} while a model that was loaded from it was in use; load it again, and replace "
            "model files by renaming a new file (InReaCh.save does)"
        )

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._handle)
        return status.st_size, status.st_mtime_ns

    def _first_bytes(self) -> bytes:
        """The first bytes: with the header's sha256, and in the header that of each array."""
        if hasattr(os, "pread"):
            return os.pread(self._handle, ARRAYS_AT, 0)
        with self._lock:
            os.lseek(self._handle, 0, os.SEEK_SET)
            return os.read(self._handle, ARRAYS_AT)

    def _is_whole(self) -> bool:
        with self._lock, open(self._handle, "rb", closefd=False) as file:
            file.seek(0)
            try:
                return all(_is_whole(file, entry) for entry in _read_header_and_entries(file, self._source)[1])
            except ModelFileError:
                return False


def _watch(path: Path, array: Array) -> None:
    """Watches the model file ``path`` for an array that is mapped from it."""
    with suppress(OSError), path.open("rb") as file:
        watch_file(array, WatchedFile(path, file).check)


def _little(array: Array) -> Array:
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"{array.dtype} is not a dtype of the format")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _layout(arrays: Mapping[str, Array]) -> tuple[list[tuple[int, int]], int]:
    """(offset, bytes) of each array, and where they end."""
    at, out = ARRAYS_AT, []
    for array in arrays.values():
        at = _aligned(at)
        out.append((at, array.nbytes))
        at += array.nbytes
    return out, at


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def _write_model(
    file: BinaryIO, meta: Mapping[str, Any], arrays: Mapping[str, Array], *, first_is_there: bool = False
) -> None:
    """Writes everything, each array read once; the prefix, which makes the file a model, last."""
    places, end = _layout(arrays)
    entries = []
    file.write(bytes(ARRAYS_AT))
    for number, ((offset, size), (name, array)) in enumerate(zip(places, arrays.items(), strict=True)):
        if number == 0 and first_is_there:
            digest = _write_array(None, array)
            file.seek(offset + size)
        else:
            file.write(bytes(offset - file.tell()))
            digest = _write_array(file, array)
        entry = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
        entries.append({**entry, "sha256": digest})
    header_at = _aligned(end)
    content = {"arrays": entries, "meta": dict(meta)}
    header = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    file.write(bytes(header_at - file.tell()) + header)
    for array in arrays.values():  # the bytes may be those of another model, or of two
        check_unchanged(array)
    prefix = _PREFIX.pack(MAGIC, VERSION, 0, header_at, len(header))
    file.seek(0)
    file.write(prefix + hashlib.sha256(prefix + header).digest())
    file.flush()
    os.fsync(file.fileno())


def _read_header_and_entries(file: BinaryIO, source: Path) -> tuple[dict[str, Any], list[_Entry]]:
    size = os.fstat(file.fileno()).st_size
    header = _read_header(file, source, size)
    return header, _entries(header, source, size)


def _read_header(file: BinaryIO, source: Path, size: int) -> dict[str, Any]:
    start = file.read(ARRAYS_AT)
    if len(start) < ARRAYS_AT or start[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(start[: len(MAGIC)]) and size < ARRAYS_AT:
            raise _cut(source)
        raise ModelCorruptError(f"{source}: is not an inreach_fast model; give a file that InReaCh.save wrote")
    version = _PREFIX_1.unpack_from(start)[1]
    if version > VERSION:
        raise ModelVersionError(
            f"{source}: written in format {version}, and this inreach_fast reads up to {VERSION}; upgrade it"
        )
    if version == 1:
        header_at, length, prefix = _HEADER_AT_1, _PREFIX_1.unpack_from(start)[3], start[: _PREFIX_1.size]
    else:
        (header_at, length), prefix = _PREFIX.unpack_from(start)[3:], start[: _PREFIX.size]
    if version >= 1 and header_at + length > size:
        raise _cut(source)
    if version < 1 or length > _MOST_HEADER:
        raise _altered(source)
    file.seek(header_at)
    text = file.read(length)
    if hashlib.sha256(prefix + text).digest() != start[len(prefix) : len(prefix) + 32]:
        raise _altered(source)
    try:
        header: dict[str, Any] = json.loads(text)
        dict(header["meta"])
    except (ValueError, KeyError, TypeError) as error:
        raise _altered(source) from error
    end = header.get("file_bytes", 0) if version == 1 else header_at + length
    if size != end:
        raise _cut(source) if size < end else _altered(source)
    return header


def _entries(header: Mapping[str, Any], source: Path, size: int) -> list[_Entry]:
    out = []
    try:
        for entry in header["arrays"]:
            dtype, shape = np.dtype(entry["dtype"]).newbyteorder("<"), tuple(int(n) for n in entry["shape"])
            found = _Entry(str(entry["name"]), dtype, shape, int(entry["offset"]), str(entry["sha256"]))
            known = entry["dtype"] in _DTYPES and all(n >= 0 for n in shape)
            if not known or not ARRAYS_AT <= found.offset <= size - found.nbytes:
                raise ValueError("array entry")
            out.append(found)
    except (KeyError, TypeError, ValueError) as error:
        raise _altered(source) from error
    return out


def _blocks(array: Array) -> Iterator[memoryview]:
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        yield block.data
        release_pages(block)  # of a model that is mapped from a file: it may be larger than memory


def _write_array(file: BinaryIO | None, array: Array) -> str:
    """The sha256 of an array's bytes, hex; they are written to the file, if there is one."""
    digest = hashlib.sha256()
    for block in _blocks(array):
        digest.update(block)
        if file is not None:
            file.write(block)
    return digest.hexdigest()


def _is_whole(file: BinaryIO, entry: _Entry) -> bool:
    """Whether an array's bytes are those that were written."""
    # Read, not mapped: pages of a map would count as this process's memory.
    digest, count = hashlib.sha256(), entry.nbytes
    file.seek(entry.offset)
    while count:
        block = file.read(min(_BLOCK, count))
        if not block:
            break
        digest.update(block)
        count -= len(block)
    return digest.hexdigest() == entry.sha256


def _cut(source: Path) -> ModelCorruptError:
    return ModelCorruptError(f"{source}: the file was cut short; copy it again or refit")


def _altered(source: Path) -> ModelCorruptError:
    return ModelCorruptError(f"{source}: the header was altered (its checksum differs); copy the file again or refit")


def _save_error(target: Path, needed: int, error: OSError) -> SaveError:
    reason = error.strerror or str(error)
    if disk_is_full(error):
        try:
            free = f"{shutil.disk_usage(target.parent).free:,}"
        except OSError:
            free = "an unknown number of"
        message = (
            f"{target}: the disk is full: the model needs {needed:,} bytes and {free} are free; make room or "
            "save elsewhere. Nothing was written and an older file of that name is untouched"
        )
    else:
        message = f"{target}: cannot be written ({reason}); check that the folder exists and may be written to"
    return SaveError(error.errno or errno.EIO, message)
