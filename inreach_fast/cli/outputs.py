"""Files that a command writes: complete or absent, and no two inputs share an output."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..array_types import Array
from ..errors import ParameterError, SaveError
from ..storage.files import whole_file
from .console import jsonable


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file, and its folder if need be; an older file stays until the new one is complete. Raises SaveError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as stream:
            write(stream)
    except OSError as error:
        raise _save_error(path, error) from error


def require_writable(*paths: Path | None) -> None:
    """Check before the work, not after it, that files can be written; SaveError says which cannot and why."""
    for path in filter(None, paths):
        if path.is_dir():
            raise SaveError(f"{path}: is a folder; give the name of a file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise _save_error(path, error) from error


def require_folders(*folders: Path | None) -> None:
    """Create folders and check that files can be written there; SaveError as for `require_writable`."""
    require_writable(*(folder / "x" for folder in folders if folder is not None))


def write_array(path: Path, array: Array) -> None:
    """Write an array by the suffix: .npy for any array, .png for (H,W,3) uint8 RGB, .tiff for (H,W) float32."""
    if path.suffix == ".npy":
        write_whole(path, lambda stream: np.save(stream, array, allow_pickle=False))
    else:
        image = Image.fromarray(np.ascontiguousarray(array))
        write_whole(path, lambda stream: image.save(stream, format=path.suffix[1:]))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document (NaN and infinity as null)."""
    text = json.dumps(jsonable(value), indent=2) + "\n"
    write_whole(path, lambda stream: stream.write(text.encode()))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV with a header; NaN, infinity and None as an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(jsonable(row) for row in rows)
    write_whole(path, lambda stream: stream.write(text.getvalue().encode("utf-8", "surrogateescape")))


class OutputNames:
    """Distinct names for the outputs of many inputs.

    The inputs' tree is kept from their deepest common folder on, with a folder for each Windows drive if there are
    several: `bottle/good/000.png` and `bottle/crack/000.png` become `good/000.npy` and `crack/000.npy`. Inputs that
    differ only in suffix or case keep their full names: `000.png.npy`, `000.jpg.npy`.
    """

    def __init__(self, inputs: Sequence[Path]) -> None:
        absolute = sorted({_absolute(path) for path in inputs})
        self._roots = {
            drive: Path(os.path.commonpath([path.parent for path in absolute if path.drive == drive]))
            for drive in {path.drive for path in absolute}
        }
        # Many file systems ignore case.
        self._stems = Counter(str(path.with_suffix("")).casefold() for path in absolute)
        self._names = Counter(str(path).casefold() for path in absolute)
        self._position = {path: i for i, path in enumerate(absolute)}

    def path(self, folder: Path, source: Path, suffix: str) -> Path:
        """The output of `source` with this suffix (".npy") below `folder`.

        Raises:
            ParameterError: it would overwrite one of the inputs.
        """
        source = _absolute(source)
        name = source.stem
        if self._stems[str(source.with_suffix("")).casefold()] > 1:
            name = source.name
        if self._names[str(source).casefold()] > 1:
            name = f"{source.name}-{self._position[source]}"
        if len(self._roots) > 1:
            folder = folder / re.sub(r"\W+", "", source.drive)
        target = folder / source.parent.relative_to(self._roots[source.drive]) / (name + suffix)
        if _absolute(target) in self._position:
            raise ParameterError(f"{target}: this output would overwrite an input; give another output folder")
        return target


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _save_error(path: Path, error: OSError) -> SaveError:
    reason = error.strerror or str(error)
    return SaveError(f"{path}: cannot be written ({reason}); choose another folder or free space")
