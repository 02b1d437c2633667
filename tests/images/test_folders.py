"""Folders: which files are images, what is passed over, and that it is said."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inreach_fast.errors import EmptyFolderError, ImageError, PassedOverWarning
from inreach_fast.images.folders import is_hidden, is_special, list_images, read_folder
from inreach_fast.images.reading import as_image, read_image
from inreach_fast.images.source import open_images


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two images, and everything else that a folder can hold."""
    folder = tmp_path / "mixed"
    for name in ("a.png", "B.WebP", "sub/c.jpg", "sub/deep/d.tif", ".git/e.png", "__MACOSX/f.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 50, np.uint8)).save(folder / name)
    for name in ("notes.txt", "more.TXT", "raw.cr2", "README", "._a.png", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "fifo.png")
    (folder / "null.png").symlink_to(os.devnull)
    (folder / "link").symlink_to(folder / "sub")
    here = os.getcwd()
    os.chdir(folder)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    os.chdir(here)
    return folder


def test_what_is_passed_over_is_counted(mixed: Path) -> None:
    found = read_folder(mixed)
    assert [path.name for path in found.images] == ["a.png", "B.WebP"]
    assert found.suffixes == {".txt": 2, ".cr2": 1, "": 1}
    assert (found.sub_folders, found.special, found.hidden) == (2, 3, 5)
    assert found.passed_over() == (
        "4 files with other suffixes (.txt, none, .cr2), 2 sub-folders (recursive=True, --recursive includes them), "
        "3 entries that are no files (FIFO, socket or device), 5 hidden"
    )
    deep = read_folder(mixed, recursive=True)
    assert [path.name for path in deep.images] == ["a.png", "B.WebP", "c.jpg", "d.tif"]
    assert (deep.sub_folders, deep.special, deep.hidden) == (1, 3, 5)  # a link to a folder is not followed
    assert list_images(mixed, True) == deep.images


def test_it_is_said_where_a_folder_is_given(mixed: Path, tmp_path: Path) -> None:
    with pytest.warns(PassedOverWarning, match=r"mixed: passed over: 4 files with other suffixes"):
        assert len(open_images(mixed)) == 2
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "mixed").rename(tmp_path / ".mixed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_images(tmp_path)  # hidden entries alone are no news


def test_an_empty_folder_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.heic").touch()
    with pytest.raises(
        EmptyFolderError, match=r"passed over: 1 file with other suffixes \(\.heic\), 1 sub-folder .*webp"
    ):
        list_images(tmp_path)


def test_special_files_are_never_opened(mixed: Path) -> None:
    """To open the FIFO would wait for ever."""
    for name in ("fifo.png", "socket.png", "null.png"):
        assert is_special(mixed / name)
        for call in (read_image, as_image, lambda path: open_images([path]).load(0)):
            with pytest.raises(ImageError, match=rf"{name}: a FIFO, socket or device"):
                call(mixed / name)
    assert not is_special(mixed)
    assert not is_special(mixed / "absent")
    assert not is_special("a\0b")


def test_a_broken_link_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert list_images(tmp_path) == [tmp_path / "gone.png"]
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        open_images(tmp_path).load(0)


def test_hidden_names() -> None:
    assert all(map(is_hidden, (".a", "._a.png", "__MACOSX", "Thumbs.db", "THUMBS.DB", "desktop.ini")))
    assert not any(map(is_hidden, ("a", "_a.png", "thumbs", "macosx")))


@pytest.mark.parametrize("content", [b"", b"x" * 40])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: .*") as caught:
        read_image(tmp_path / "a.png")
    assert ("the file is empty" in str(caught.value)) == (not content)
