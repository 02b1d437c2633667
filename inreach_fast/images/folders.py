"""The image files of a folder, in natural order, and a count of what is passed over."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, EmptyFolderError
from .decoding import IMAGE_SUFFIXES

_HIDDEN_NAMES = frozenset({"__MACOSX"})  # holds files that macOS hides, in archives
_LITTER = frozenset({"thumbs.db", "desktop.ini"})  # what Windows hides
_SHOWN_SUFFIXES = 3


@dataclass(frozen=True)
class Folder:
    """A folder's images, and how many of its other entries are passed over.

    Attributes:
        images: image files, in natural order.
        suffixes: of files that are no images by their name, in lower case, with their number.
        sub_folders: that are not searched. hidden: hidden files and folders. special: FIFOs, sockets and devices with
            an image's name, which are never opened.
    """

    images: list[Path]
    suffixes: Mapping[str, int]
    sub_folders: int = 0
    hidden: int = 0
    special: int = 0

    @property
    def notable(self) -> bool:
        """Whether anything besides hidden entries is passed over."""
        return bool(self.suffixes or self.sub_folders or self.special)

    def passed_over(self) -> str:
        """What is passed over, in words; empty if nothing is."""
        parts = []
        if self.suffixes:
            ranked = sorted(self.suffixes, key=lambda suffix: (-self.suffixes[suffix], suffix))
            shown = ", ".join(suffix or "none" for suffix in ranked[:_SHOWN_SUFFIXES])
            more = ", ..." if len(ranked) > _SHOWN_SUFFIXES else ""
            parts.append(f"{_count(sum(self.suffixes.values()), 'file')} with other suffixes ({shown}{more})")
        if self.sub_folders:
            parts.append(f"{_count(self.sub_folders, 'sub-folder')} (recursive=True, --recursive includes them)")
        if self.special:
            parts.append(f"{_count(self.special, 'entry', 'entries')} that are no files (FIFO, socket or device)")
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        return ", ".join(parts)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or holds hidden files: ``.name``, ``Thumbs.db``, ``__MACOSX``."""
    return name.startswith(".") or name in _HIDDEN_NAMES or name.lower() in _LITTER


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to something that exists and is neither a file nor a folder; to open it could block."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def read_folder(folder: str | os.PathLike[str], *, recursive: bool = False) -> Folder:
    """The image files of a folder; see `list_images`. The folder may hold none. Raises DataError."""
    root = Path(folder)
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.exists(root) else "does not exist"
        raise DataError(f"{root}: {what}; give a folder of images")
    images: list[Path] = []
    suffixes: Counter[str] = Counter()
    sub_folders = hidden = special = 0
    try:
        for here, folders, files in os.walk(root, onerror=_raise):
            shown = [name for name in folders if not is_hidden(name)]
            hidden += len(folders) - len(shown)
            searched = [name for name in shown if recursive and not os.path.islink(os.path.join(here, name))]
            sub_folders += len(shown) - len(searched)
            folders[:] = searched
            for name in files:
                path = Path(here, name)
                if is_hidden(name):
                    hidden += 1
                elif not name.lower().endswith(IMAGE_SUFFIXES):
                    suffixes[path.suffix.lower()] += 1
                elif is_special(path):
                    special += 1
                else:
                    images.append(path)
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error}); check its permissions") from error
    images.sort(key=lambda path: natural_key(path.relative_to(root).as_posix()))
    return Folder(images, dict(suffixes), sub_folders, hidden, special)


def images_of(folder: str | os.PathLike[str], *, recursive: bool = False) -> Folder:
    """`read_folder`, of a folder that must hold an image. Raises DataError, EmptyFolderError."""
    found = read_folder(folder, recursive=recursive)
    if not found.images:
        passed_over = found.passed_over()
        hint = f"; passed over: {passed_over}" if passed_over else ""
        raise EmptyFolderError(
            f"{Path(folder)}: holds no image{hint}; give a folder of {', '.join(IMAGE_SUFFIXES)} files"
        )
    return found


def list_images(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """The image files of a folder, in natural order: ``2.png`` before ``10.png``.

    The order depends on the names alone (numbers by value, letters without case, then the plain name), not on the
    file system. Hidden files, files without one of `IMAGE_SUFFIXES`, and FIFOs, sockets and devices are left out
    (`read_folder` counts them). `recursive` includes sub-folders, but does not follow links to folders.

    Raises:
        DataError: `folder` does not exist or is not a folder. EmptyFolderError: it holds no image.
    """
    return images_of(folder, recursive=recursive).images


def _raise(error: OSError) -> None:
    raise error  # os.walk would skip a folder that it may not read


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key of natural order; equal only for equal texts, so that sorting by it is deterministic."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p], text
