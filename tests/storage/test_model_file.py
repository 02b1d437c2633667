from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inreach_fast.errors import ModelCorruptError, ModelFileError, ModelVersionError, SaveError
from inreach_fast.storage import model_file

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
    with pytest.raises(ModelCorruptError, match="not an inreach_fast model"):
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture
def holding(tmp_path: Path) -> Path:
    """A file that holds the first array where a model has it, and something behind it."""
    path = tmp_path / "holding"
    path.write_bytes(bytes(model_file.ARRAYS_AT) + ARRAYS["rows"].tobytes() + b"left by a process that was killed")
    return path


def test_a_file_that_holds_the_first_array_becomes_the_model(saved: Path, holding: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    model_file.save_file(saved, META, ARRAYS, holding=holding)
    assert saved.read_bytes() == whole
    assert saved.samefile(holding)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~_umask()
    # Once only: the second model is a copy, and the first stays as it is.
    model_file.save_file(tmp_path / "second", {}, {"rows": ARRAYS["rows"]}, holding=holding)
    assert saved.read_bytes() == whole
    assert model_file.load_file(tmp_path / "second")[0] == {}
    assert not saved.samefile(tmp_path / "second")
    assert sorted(os.listdir(tmp_path)) == ["holding", saved.name, "second"]


@pytest.mark.parametrize("reason", ["link", "short", "elsewhere"])
def test_what_cannot_become_the_model_is_copied(
    saved: Path, holding: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    whole, size = saved.read_bytes(), ARRAYS["rows"].nbytes + model_file.ARRAYS_AT

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if reason == "link":
        monkeypatch.setattr(model_file.os, "link", refuse)
    elif reason == "short":
        os.truncate(holding, size := size - 1)
    elif not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == saved.stat().st_dev:
        pytest.skip("needs another file system")
    else:
        other = Path("/dev/shm") / f"inreach-test-{os.getpid()}"
        other.write_bytes(holding.read_bytes()[:size])
        holding.unlink()
        holding = other
    try:
        model_file.save_file(saved, META, ARRAYS, holding=holding)
        assert saved.read_bytes() == whole
        assert holding.stat().st_size == size
        assert holding.stat().st_nlink == 1
    finally:
        holding.unlink()


@pytest.mark.parametrize("step", ["_write_array", "fsync", "replace"])
def test_a_full_disk_leaves_the_file_that_holds_the_first_array(
    saved: Path, holding: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before, write = saved.read_bytes(), model_file._write_array

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_behind_the_first(file: Any, array: Any) -> Any:
        return full() if file is not None else write(file, array)

    with monkeypatch.context() as patch:
        if step == "_write_array":
            patch.setattr(model_file, step, full_behind_the_first)
        else:
            patch.setattr(model_file.os, step, full)
        with pytest.raises(SaveError, match=r"disk is full.*needs [\d,]+ bytes and [\d,]+ are free"):
            model_file.save_file(saved, META, ARRAYS, holding=holding)
    assert saved.read_bytes() == before
    assert holding.stat().st_nlink == 1
    assert holding.read_bytes()[model_file.ARRAYS_AT :] == ARRAYS["rows"].tobytes()
    assert sorted(os.listdir(saved.parent)) == ["holding", saved.name]
    model_file.save_file(saved, META, ARRAYS, holding=holding)
    assert saved.read_bytes() == before


def version_1(meta: dict[str, Any], rows: NDArray[np.float32]) -> bytes:
    """A file as version 1 had it: the header in front."""
    entry = {"name": "rows", "dtype": "float32", "shape": list(rows.shape), "offset": 1024}
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    content = {"arrays": [{**entry, "sha256": digest}], "meta": meta, "file_bytes": 1024 + rows.nbytes}
    header = json.dumps(content, sort_keys=True).encode()
    prefix = struct.pack("<8sIIQ", b"INREACH\0", 1, 0, len(header))
    return (prefix + hashlib.sha256(prefix + header).digest() + header).ljust(1024, b"\0") + rows.tobytes()


def test_version_1_is_read(tmp_path: Path) -> None:
    path, whole = tmp_path / "old", version_1(META, ARRAYS["rows"])
    path.write_bytes(whole)
    meta, arrays = model_file.load_file(path)
    assert meta == META
    assert np.array_equal(arrays["rows"], ARRAYS["rows"])
    for size in (60, 200, 1024, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelCorruptError, match="cut"):
            model_file.load_file(path)
    for at in (16, 30, 60, 1030):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ModelCorruptError):
            model_file.load_file(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(ModelCorruptError, match="altered"):
        model_file.load_file(path)


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
