"""Writing results: a file is whole or it is not there, and no two inputs share an output."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..array_types import Array, FloatArray, UInt8Array
from ..errors import ParameterError, SaveError
from .console import jsonable


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside `path` and rename it there: an older file stays until the new one is complete.

    Whatever interrupts it (a full disk, Ctrl-C), the file aside is removed.

    Raises:
        SaveError: naming `path`, when it cannot be written.
    """
    aside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        # mkstemp makes files that only their owner may read; the user's umask decides instead.
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
        aside = None
    except OSError as error:
        raise _save_error(path, error) from error
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):
                os.unlink(aside)


def require_writable(path: Path | None) -> None:
    """Find out before minutes of work, not after them, that `path` cannot be written.

    Raises:
        SaveError: naming `path` and what stands in the way.
    """
    if path is None:
        return
    if path.is_dir():
        raise SaveError(f"{path} cannot be written: it is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _save_error(path, error) from error


def require_folder(folder: Path | None) -> None:
    """Make `folder` and see that files can be written there.

    Raises:
        SaveError: naming the folder and what stands in the way.
    """
    if folder is not None:
        require_writable(folder / "x")


def write_png(path: Path, picture: UInt8Array) -> None:
    """Save (H,W,3) uint8 RGB as PNG."""
    write_whole(path, lambda stream: Image.fromarray(picture).save(stream, format="PNG"))


def write_npy(path: Path, array: Array) -> None:
    """Save an array as NumPy's .npy."""
    write_whole(path, lambda stream: np.save(stream, array, allow_pickle=False))


def write_float_tiff(path: Path, array: FloatArray) -> None:
    """Save (H,W) float32 as a 32-bit floating point TIFF."""
    write_whole(path, lambda stream: Image.fromarray(np.ascontiguousarray(array)).save(stream, format="TIFF"))


def write_json(path: Path, value: Any) -> None:
    """Save a JSON document (NaN and infinity as null)."""
    text = json.dumps(jsonable(value), indent=2) + "\n"
    write_whole(path, lambda stream: stream.write(text.encode()))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Save rows as CSV with a header; NaN, infinity and None as an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: jsonable(value) for key, value in row.items()})
    data = text.getvalue().encode("utf-8", "surrogateescape")
    write_whole(path, lambda stream: stream.write(data))


class OutputNames:
    """Names for the outputs of many inputs, none of which can collide.

    Below the output folder the inputs' own tree is kept, from the deepest folder that they have in common:
    `bottle/good/000.png` and `bottle/crack/000.png` become `good/000.npy` and `crack/000.npy`. Where two
    inputs of one folder differ only in their suffix (or in upper and lower case), each keeps its whole name:
    `000.png.npy`, `000.jpg.npy`.
    """

    def __init__(self, inputs: Sequence[Path]) -> None:
        absolute = sorted({_absolute(path) for path in inputs})
        self._inputs = set(absolute)
        self._root = Path(os.path.commonpath([path.parent for path in absolute])) if absolute else Path()
        # Upper and lower case are one name on many file systems.
        self._stems = Counter(str(path.with_suffix("")).casefold() for path in absolute)
        self._names = Counter(str(path).casefold() for path in absolute)
        self._position = {path: i for i, path in enumerate(absolute)}

    def path(self, folder: Path, source: Path, suffix: str) -> Path:
        """Where the output of `source` with this suffix (".npy") goes below `folder`.

        Raises:
            ParameterError: when that is one of the inputs itself.
        """
        source = _absolute(source)
        relative = source.relative_to(self._root)
        name = source.stem
        if self._stems[str(source.with_suffix("")).casefold()] > 1:
            name = source.name
        if self._names[str(source).casefold()] > 1:
            name = f"{source.name}-{self._position[source]}"
        target = folder / relative.parent / (name + suffix)
        if _absolute(target) in self._inputs:
            raise ParameterError(f"the output {target} would overwrite an input; give another output folder")
        return target


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _save_error(path: Path, error: OSError) -> SaveError:
    reason = error.strerror or str(error)
    return SaveError(f"{path} cannot be written ({reason}); choose another place or make room there")
