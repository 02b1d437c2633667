"""The file format of saved models: one file, checksummed, memory-mapped, nothing executable in it.

    offset 0   magic b"INREACH\\0"
           8   uint32 format version, uint32 zero
          16   uint64 length of the header in bytes
          24   sha256 of bytes 0..24 and the header (32 bytes)
          56   the header: canonical JSON (sorted keys, UTF-8): {"arrays": [...], "meta": {...}}
               then arrays, each at the next multiple of 64, little-endian, C order

An entry of "arrays" is {"name", "dtype", "shape", "offset", "sha256"}. All integers are little-endian.
Nothing in a file depends on time, machine or memory layout: the same fit gives the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from .errors import ModelCorruptError, ModelFileError, ModelVersionError, SaveError
from .memory import release_pages

MAGIC: Final = b"INREACH\0"
VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sIIQ")
_HEADER_AT: Final = _PREFIX.size + 32
_ALIGN: Final = 64
_BLOCK: Final = 8 << 20
_MOST_HEADER: Final = 1 << 30
_DTYPES: Final = ("float32", "float64", "int64", "int32", "uint8")

Array = npt.NDArray[Any]


def save_file(path: str | os.PathLike[str], meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Writes a model file; the file of that name, if any, is replaced only once the new one is complete.

    Args:
        path: where to; its folder must exist.
        meta: JSON-able.
        arrays: by name; float32, float64, int64, int32 or uint8.

    Raises:
        SaveError: full disk, no permission, no such folder; no part of the new file is left.
    """
    target = Path(path)
    little = {name: _little(array) for name, array in arrays.items()}
    # The digests stand before the arrays, but their length is known: room is left for them, so that arrays, which may
    # be larger than memory, are read once.
    digests = dict.fromkeys(little, "0" * 64)
    length = len(_header(meta, little, digests))
    places, total = _layout(length, little)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(b"\0" * (_HEADER_AT + length))
            for (offset, _), (name, array) in zip(places, little.items(), strict=True):
                file.write(b"\0" * (offset - file.tell()))
                digests[name] = _write_array(file, array)
            header = _header(meta, little, digests)
            prefix = _PREFIX.pack(MAGIC, VERSION, 0, len(header))
            file.seek(0)
            file.write(prefix + hashlib.sha256(prefix + header).digest() + header)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        _remove(temporary)  # before the message says how much room there is
        raise _save_error(target, total, error) from error
    except BaseException:
        _remove(temporary)
        raise


def load_file(path: str | os.PathLike[str], *, verify: bool = True) -> tuple[dict[str, Any], dict[str, Array]]:
    """Reads a model file: its meta, and its arrays memory-mapped read-only.

    Args:
        path: the file.
        verify: whether to check each array's sha256 (reads the file once); the header's is always checked.

    Raises:
        ModelFileError: it cannot be opened. ModelCorruptError: cut, altered, or no model file.
        ModelVersionError: written by a newer version.
    """
    source = Path(path)
    try:
        size = source.stat().st_size
        with source.open("rb") as file:
            header = _read_header(file, source, size)
            entries = _entries(header, source, size)
            if verify:
                for name, dtype, shape, offset, digest in entries:
                    if _file_sha256(file, offset, dtype.itemsize * _count(shape)) != digest:
                        raise ModelCorruptError(
                            f"{source}: array {name!r} was altered (its sha256 differs); copy the file again"
                        )
            arrays = {}
            for name, dtype, shape, offset, _ in entries:
                if _count(shape) == 0:
                    arrays[name] = np.empty(shape, dtype)
                else:
                    arrays[name] = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape).view(np.ndarray)
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be read ({error.strerror or error}); check the path") from error
    return header["meta"], arrays


def _little(array: Array) -> Array:
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"{array.dtype} is not a dtype of the format")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _layout(header_length: int, arrays: Mapping[str, Array]) -> tuple[list[tuple[int, int]], int]:
    """(offset, bytes) of each array, and the size of the file."""
    at, out = _HEADER_AT + header_length, []
    for array in arrays.values():
        at = -(-at // _ALIGN) * _ALIGN
        out.append((at, array.nbytes))
        at += array.nbytes
    return out, at


def _header(meta: Mapping[str, Any], arrays: Mapping[str, Array], digests: Mapping[str, str]) -> bytes:
    length = 0
    while True:  # the offsets stand in the header and depend on its length; a few rounds settle it
        places, total = _layout(length, arrays)
        entries = [
            {
                "name": name,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "offset": offset,
                "sha256": digests[name],
            }
            for (name, array), (offset, _) in zip(arrays.items(), places, strict=True)
        ]
        content = {"arrays": entries, "meta": dict(meta), "file_bytes": total}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        # Padded with blanks, so that growing digits of an offset cannot chase the length for ever.
        header = text.encode().ljust(length)
        if len(header) == length:
            return header
        length = -(-len(header) // _ALIGN) * _ALIGN


def _read_header(file: BinaryIO, source: Path, size: int) -> dict[str, Any]:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size or prefix[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(prefix[: len(MAGIC)]) and size < _HEADER_AT:
            raise _cut(source)
        raise ModelCorruptError(f"{source}: is no inreach_fast model; give a file that InReaCh.save wrote")
    _, version, _, length = _PREFIX.unpack(prefix)
    if version > VERSION:
        raise ModelVersionError(
            f"{source}: written in format {version}, and this inreach_fast reads up to {VERSION}; upgrade it"
        )
    if version < 1:
        raise _altered(source)
    digest = file.read(32)
    if length > min(_MOST_HEADER, size - _HEADER_AT):
        raise _cut(source)
    text = file.read(length)
    if hashlib.sha256(prefix + text).digest() != digest:
        raise _altered(source)
    try:
        header = json.loads(text)
        if not isinstance(header["meta"], dict):
            raise TypeError("meta")
    except (ValueError, KeyError, TypeError) as error:
        raise _altered(source) from error
    if size < header.get("file_bytes", 0):
        raise _cut(source)
    if size != header.get("file_bytes"):
        raise _altered(source)
    return dict(header)


def _entries(
    header: Mapping[str, Any], source: Path, size: int
) -> list[tuple[str, np.dtype[Any], tuple[int, ...], int, str]]:
    out = []
    try:
        for entry in header["arrays"]:
            dtype, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])
            offset = int(entry["offset"])
            ok = dtype in _DTYPES and all(n >= 0 for n in shape) and offset >= _HEADER_AT
            wide = np.dtype(dtype).newbyteorder("<")
            if not ok or offset + wide.itemsize * _count(shape) > size:
                raise ValueError("array entry")
            out.append((str(entry["name"]), wide, shape, offset, str(entry["sha256"])))
    except (KeyError, TypeError, ValueError) as error:
        raise _altered(source) from error
    return out


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _blocks(array: Array) -> Any:
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        yield block.data
        release_pages(block)  # of a model that lies on disk itself: it may be larger than memory


def _write_array(file: BinaryIO, array: Array) -> str:
    """Writes an array's bytes; their sha256, hex."""
    digest = hashlib.sha256()
    for block in _blocks(array):
        digest.update(block)
        file.write(block)
    return digest.hexdigest()


def _file_sha256(file: BinaryIO, offset: int, count: int) -> str:
    # Read, not mapped: pages of a map would count as this process's memory.
    digest = hashlib.sha256()
    file.seek(offset)
    while count:
        block = file.read(min(_BLOCK, count))
        if not block:
            break
        digest.update(block)
        count -= len(block)
    return digest.hexdigest()


def _cut(source: Path) -> ModelCorruptError:
    return ModelCorruptError(f"{source}: the file was cut short; copy it again or refit")


def _altered(source: Path) -> ModelCorruptError:
    return ModelCorruptError(f"{source}: the header was altered (its checksum differs); copy the file again or refit")


def _save_error(target: Path, needed: int, error: OSError) -> SaveError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
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


def _remove(temporary: str | None) -> None:
    if temporary is not None:
        with suppress(OSError):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable, where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
