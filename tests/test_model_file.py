from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inreach_fast import model_file
from inreach_fast.errors import ModelCorruptError, ModelFileError, ModelVersionError, SaveError

META = {"name": "grün", "value": [1, 2.5, None]}
ARRAYS: dict[str, Any] = {
    "rows": np.arange(30, dtype=np.float32).reshape(10, 3),
    "ids": np.arange(7, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float64),
    "pixels": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.inreach"
    model_file.save_file(path, META, ARRAYS)
    return path


def test_round_trip_is_mapped_aligned_and_read_only(saved: Path) -> None:
    meta, arrays = model_file.load_file(saved)
    assert meta == META
    assert list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        assert np.array_equal(array, ARRAYS[name])
    assert arrays["rows"].ctypes.data % 64 == 0
    assert not arrays["rows"].flags.writeable
    assert isinstance(arrays["rows"].base, np.memmap)


def test_the_same_content_gives_the_same_bytes_and_a_strided_array_too(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    strided = np.zeros((10, 6), np.float32)
    strided[:, ::2] = ARRAYS["rows"]
    model_file.save_file(other, dict(reversed(META.items())), {**ARRAYS, "rows": strided[:, ::2]})
    assert other.read_bytes() == saved.read_bytes()


def test_every_cut_is_told(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    cut = tmp_path / "cut"
    for size in [*range(0, 80, 7), 200, len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelCorruptError, match="cut"):
            model_file.load_file(cut)


def test_every_altered_byte_that_matters_is_told(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    padding = 0
    altered = tmp_path / "altered"
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        altered.write_bytes(changed)
        told = None
        try:
            meta, arrays = model_file.load_file(altered)
        except (ModelCorruptError, ModelVersionError) as error:
            told = str(error)
        if told is not None:
            assert str(altered) in told
        else:  # a byte between two arrays: nothing was altered that anyone reads
            padding += 1
            assert meta == META
            assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert padding < 3 * 64


def test_appended_bytes_are_told(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(ModelCorruptError):
        model_file.load_file(saved)


def test_another_files_content_and_a_newer_version(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "picture.png"
    other.write_bytes(b"\x89PNG" + bytes(200))
    with pytest.raises(ModelCorruptError, match="no inreach_fast model"):
        model_file.load_file(other)
    newer = bytearray(saved.read_bytes())
    newer[8] = model_file.VERSION + 1
    saved.write_bytes(newer)
    with pytest.raises(ModelVersionError, match="upgrade"):
        model_file.load_file(saved)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="nothing_here"):
        model_file.load_file(tmp_path / "nothing_here")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = saved.read_bytes()

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        monkeypatch.setattr(model_file, "_blocks", full)
    else:
        monkeypatch.setattr(model_file.os, step, full)
    with pytest.raises(SaveError, match=r"disk is full.*needs [\d,]+ bytes and [\d,]+ are free") as caught:
        model_file.save_file(saved, META, ARRAYS)
    assert caught.value.errno == errno.ENOSPC
    assert str(saved) in str(caught.value)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_truly_full_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        model_file.save_file(tmp_path / "m", META, ARRAYS)
        before = (tmp_path / "m").read_bytes()
        with pytest.raises(SaveError, match=r"disk is full.*needs [\d,]+ bytes and [1-9][\d,]* are free"):
            model_file.save_file(tmp_path / "m", META, {"large": np.zeros(1 << 16, np.float32)})
        assert os.listdir(tmp_path) == ["m"]
        assert (tmp_path / "m").read_bytes() == before
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="cannot be written"):
        model_file.save_file(tmp_path / "no" / "model", META, ARRAYS)
