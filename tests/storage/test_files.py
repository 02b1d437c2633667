"""Files are the same where the system lacks what POSIX offers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_fits import estimator, pictures, saved

from inreach_fast.errors import SpoolBusyError
from inreach_fast.storage import files
from inreach_fast.storage.spool import Spool
from inreach_fast.storage.workspace import Budget

SETTINGS: dict[str, Any] = {"min_channel_length": 1, "threshold_images": 4}


@pytest.fixture
def no_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pwrite", "preadv", "posix_fallocate"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Windows' locks, by inode."""
    held: set[int] = set()

    def locking(handle: int, mode: int, count: int) -> None:
        inode = os.fstat(handle).st_ino
        if inode in held:
            raise PermissionError(13, "locked")
        held.add(inode)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    return held


@pytest.mark.usefixtures("no_posix")
def test_reading_keeps_the_position_and_writing_leaves_holes(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    with (tmp_path / "rows").open("w+b", buffering=0) as file:
        files.write_at(file, 64, rows[2:])
        files.write_at(file, 40, rows[:2])
        file.seek(7)
        out = np.empty((4, 3), np.float32)
        files.read_into(file, 40, out)
        assert file.tell() == 7
        assert np.array_equal(out, rows)
        with pytest.raises(EOFError):
            files.read_into(file, 80, out)
    assert (tmp_path / "rows").read_bytes()[:40] == bytes(40)


@pytest.mark.usefixtures("no_posix")
def test_a_fit_in_files_is_resumed_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(10)
    whole = saved(estimator(**SETTINGS).fit(images), tmp_path)

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("associate", 6):
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr("inreach_fast.storage.spool.WINDOWS", True)
    spool = tmp_path / "spool"
    with pytest.raises(KeyboardInterrupt):
        estimator(**SETTINGS, memory_limit=60_000).fit(images, spool=spool, progress=stop)
    model = estimator(**SETTINGS, memory_limit=60_000).fit(images, spool=spool, resume=True)
    assert saved(model, tmp_path) == whole
    assert not spool.exists()


@pytest.mark.usefixtures("no_posix")
def test_windows_locks(tmp_path: Path, locks: set[int]) -> None:
    first = Spool(tmp_path / "spool", Budget(1000))
    assert len(locks) == 1
    with pytest.raises(SpoolBusyError):
        Spool(tmp_path / "spool", Budget(1000))
    first.remove()
    assert not (tmp_path / "spool").exists()


def test_a_whole_file_replaces_the_old_one_or_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with files.whole_file(path) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    with files.whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result"]


def test_a_file_in_use_stays_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_use(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "unlink", in_use)
    with pytest.raises(PermissionError):
        files.remove_file(tmp_path / "mapped")
    monkeypatch.setattr(files, "WINDOWS", True)
    files.remove_file(tmp_path / "mapped")
