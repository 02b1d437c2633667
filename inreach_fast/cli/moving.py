"""Images moved out of a training folder, by a list that a person has made; nothing is ever overwritten."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import DataError, ParameterError, SaveError
from .pages.html import printable

_MOST_BYTES = 256 << 20


def read_manifest(path: Path) -> list[str]:
    """The names of the images in a manifest: a JSON list, ``{"files": [...]}``, or CSV with a column ``file``.

    Raises:
        DataError: it cannot be read, or has another form.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes are no list of images; give a manifest of `audit`")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); give a manifest of `inreach audit --report`") from error
    names = _of_json(text) if text.lstrip()[:1] in ("{", "[") else _of_csv(text)
    if names is None:
        raise DataError(
            f'{path}: is no manifest: expected CSV with a column "file", or JSON with a list "files"; download '
            "one from the page of `inreach audit --report`"
        )
    if not names:
        raise DataError(f"{path}: names no image; tick some on the page of `inreach audit --report`")
    return list(dict.fromkeys(names))


def _of_json(text: str) -> list[str] | None:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    files = content.get("files") if isinstance(content, dict) else content
    if not isinstance(files, list):
        return None
    entries = (entry.get("file") if isinstance(entry, dict) else entry for entry in files)
    names = [name for name in entries if isinstance(name, str)]
    return names if len(names) == len(files) else None


def _of_csv(text: str) -> list[str] | None:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error:
        return None
    header = next(csv.reader(io.StringIO(text, newline="")), [])
    if "file" not in header or any(row["file"] is None for row in rows):
        return None
    return [row["file"] for row in rows]


def chosen_images(manifest: Path, names: Sequence[str], folder: Path, images: Sequence[Path]) -> list[Path]:
    """The images of a folder that a manifest names, from the folder on or as the folder's images are called.

    Raises:
        DataError: a name that is none of the folder's images, or could be two.
    """
    places: dict[str, set[Path]] = {}
    for image in images:
        for name in (image.relative_to(folder).as_posix(), str(image)):
            places.setdefault(printable(name), set()).add(image)
    chosen: dict[Path, None] = {}
    for name in names:
        found = places.get(printable(name), set())
        if len(found) != 1:
            what = "is no image of" if not found else "could be several images of"
            raise DataError(
                f"{manifest}: {printable(name)} {what} {folder}; nothing was moved. Give the folder that was audited "
                "(with --recursive, if it was), and a manifest of its images as they are now"
            )
        chosen[found.pop()] = None
    return list(chosen)


def check_move(images: Sequence[Path], folder: Path, target: Path) -> list[tuple[Path, Path]]:
    """(from, to) of each image; below ``target`` it keeps its place below ``folder``.

    Raises:
        ParameterError: a file of that name is there.
    """
    moves = [(image, target / image.relative_to(folder)) for image in images]
    for _, to in moves:
        if os.path.lexists(to):
            raise ParameterError(f"{to}: is there already, and nothing was moved; give another --move-to, or remove it")
    return moves


def move_images(moves: Sequence[tuple[Path, Path]]) -> None:
    """Moves files, each of them whole or not at all; none replaces another.

    Raises:
        SaveError: a file cannot be moved; it says how many were.
    """
    for done, (image, to) in enumerate(moves):
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            _move(image, to)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(
                f"{to}: {image} cannot be moved there ({reason}); {done} of {len(moves)} images were moved, the others "
                "are where they were: remove the cause and move them with the same command and a shorter list"
            ) from error


def _move(image: Path, to: Path) -> None:
    try:
        os.link(image, to, follow_symlinks=False)  # fails if there is a file of that name
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        _copy(image, to)  # another disk, or one without second names
    image.unlink()


def _copy(image: Path, to: Path) -> None:
    with to.open("xb") as out:
        try:
            with image.open("rb") as source:
                shutil.copyfileobj(source, out)
            out.flush()
            os.fsync(out.fileno())
        except BaseException:
            with suppress(OSError):
                to.unlink()
            raise
    with suppress(OSError):
        shutil.copystat(image, to)
