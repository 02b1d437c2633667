from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_fits import estimator, pictures, saved

from inreach_fast.errors import (
    DataError,
    ImageError,
    MemoryLimitError,
    NoChannelsError,
    ParameterError,
    SaveError,
    SpoolBusyError,
    SpoolCorruptError,
    SpoolError,
    SpoolExistsError,
    SpoolImagesChangedError,
    SpoolMismatchError,
    SpoolWriteError,
)
from inreach_fast.storage.row_log import RowLog
from inreach_fast.storage.spool import Spool
from inreach_fast.storage.workspace import Budget, Workspace

TESTS = Path(__file__).resolve().parents[1]
# So little that rows, inputs and the nominal patches go to files; just enough for what has to be in memory.
TIGHT = 60_000
SETTINGS: dict[str, Any] = {"min_channel_length": 1, "threshold_images": 4, "memory_limit": TIGHT}


class Stopped(Exception):
    """A fit that a test ends."""


def stop_at(stage: str, count: int) -> Callable[[str, int, int], None]:
    def progress(now: str, done: int, total: int) -> None:
        if (now, done) == (stage, count):
            raise Stopped

    return progress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(pictures(10)):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def whole(folder: Path, tmp_path: Path) -> bytes:
    """What a fit gives that nobody stops."""
    return saved(estimator(**{**SETTINGS, "memory_limit": None}).fit(folder), tmp_path)


def stopped(folder: Path, spool: Path, stage: str = "associate", count: int = 4, **changes: Any) -> None:
    with pytest.raises(Stopped):
        estimator(**{**SETTINGS, **changes}).fit(folder, spool=spool, progress=stop_at(stage, count))


def resumed(folder: Path, spool: Path, tmp_path: Path, **changes: Any) -> bytes:
    model = estimator(**{**SETTINGS, **changes}).fit(folder, spool=spool, resume=True)
    assert not spool.exists()
    return saved(model, tmp_path)


# ------------------------------------------------------------------------------------------ killed and resumed

CHILD = """
import json, os, signal, sys, traceback
import torch
sys.path.insert(0, sys.argv[1])
from small_fits import estimator

folder, settings, threads, runs = sys.argv[2], eval(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5])

def fit(spool, out, stage, count):
    torch.set_num_threads(threads)  # features differ by bits between numbers of threads

    def progress(now, done, total):
        if (now, done) == (stage, count):
            os.kill(os.getpid(), signal.SIGKILL)

    estimator(**settings).fit(folder, spool=spool, resume=True, progress=progress).save(out)

ends = []
for run in runs:  # a process each: forked from one that has imported everything and computed nothing
    child = os.fork()
    if child == 0:
        try:
            fit(*run)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ends.append((code, os.path.isfile(os.path.join(run[0], "journal"))))
print(json.dumps(ends))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_many_points_and_resumed_it_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    # Compared with a process that nobody kills: a network's features may differ by bits between this process, where
    # other tests have changed torch's settings, and a fresh one.
    points = [("read", 3), ("describe", 1), ("associate", 1), ("associate", 6), ("filter", 1), ("threshold", 2)]
    spool, out, whole = (str(tmp_path / name) for name in ("spool", "out", "whole"))
    runs = [(spool, out, *point) for point in points]
    runs = [(str(tmp_path / "other"), whole, "none", 0), *runs, (spool, out, "none", 0)]
    arguments = [str(TESTS), str(folder), repr(SETTINGS), str(torch.get_num_threads()), json.dumps(runs)]
    script = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(script, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    killed = [[-signal.SIGKILL, True]] * len(points)
    assert json.loads(done.stdout) == [[0, False], *killed, [0, False]], done.stderr
    same = Path(out).read_bytes() == Path(whole).read_bytes()
    assert same


@pytest.mark.parametrize("limit", [TIGHT, None])
@pytest.mark.parametrize(("stage", "count"), [("associate", 1), ("associate", 7), ("associate", 10), ("threshold", 3)])
def test_stopped_and_resumed(
    folder: Path, whole: bytes, tmp_path: Path, stage: str, count: int, limit: int | None
) -> None:
    stopped(folder, tmp_path / "spool", stage, count, memory_limit=limit)
    told: list[tuple[str, int]] = []
    model = estimator(**{**SETTINGS, "memory_limit": limit}).fit(
        folder, spool=tmp_path / "spool", resume=True, progress=lambda s, done, total: told.append((s, done))
    )
    assert saved(model, tmp_path) == whole
    first = min((done for s, done in told if s == "associate"), default=11)
    assert first == (count + 1 if stage == "associate" else 11)  # nothing is done twice
    assert ("filter", 1) in told


def test_half_written_records_and_data_are_cut_off(folder: Path, whole: bytes, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool)
    for name, tail in (
        ("journal", b'{"kind":"image","numb'),
        ("members", b"x" * 77),
        ("ids", b"y" * 5),
        ("rest", b"z"),
    ):
        with (spool / name).open("ab") as file:
            file.write(tail)
    assert resumed(folder, spool, tmp_path) == whole


@pytest.mark.parametrize("name", ["members", "ids", "rest"])
def test_data_that_a_power_cut_took_are_made_again(folder: Path, whole: bytes, tmp_path: Path, name: str) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool, count=6)
    data = bytearray((spool / name).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)  # pages that were never written
    (spool / name).write_bytes(data)
    assert resumed(folder, spool, tmp_path) == whole
    stopped(folder, spool, count=6)
    os.truncate(spool / name, len(data) // 3)
    assert resumed(folder, spool, tmp_path) == whole


def test_resuming_where_nothing_lies_begins(folder: Path, whole: bytes, tmp_path: Path) -> None:
    assert resumed(folder, tmp_path / "spool", tmp_path) == whole
    (tmp_path / "empty").mkdir()
    model = estimator(**SETTINGS).fit(folder, spool=tmp_path / "empty", resume=True)
    assert saved(model, tmp_path) == whole
    assert list((tmp_path / "empty").iterdir()) == []  # the folder was the user's


def test_other_filters_may_be_tried_on_a_spool_and_another_limit_and_backend(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with pytest.raises(NoChannelsError):
        estimator(**{**SETTINGS, "min_channel_length": 50}).fit(folder, spool=spool)
    changes: dict[str, Any] = {"min_channel_length": 2, "score": "mahalanobis", "memory_limit": "1MB"}
    model = estimator(**{**SETTINGS, **changes}).fit(folder, spool=spool, resume=True)
    fresh = estimator(**{**SETTINGS, **changes}).fit(folder)
    assert saved(model, tmp_path) == saved(fresh, tmp_path)
    stopped(folder, spool, "threshold", 1)
    with pytest.raises(SpoolMismatchError, match=r"min_channel_length \(was 1, is 2\), and its filters are done"):
        estimator(**{**SETTINGS, "min_channel_length": 2}).fit(folder, spool=spool, resume=True)


def test_a_kept_spool_stays_until_it_is_removed(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    model = estimator(**SETTINGS).fit(folder, spool=spool, keep_spool=True)
    assert (spool / "journal").is_file()
    before = saved(model, tmp_path)
    model.remove_spool()
    model.remove_spool()
    assert not spool.exists()
    assert saved(model, tmp_path) == before  # what is mapped stays readable


# ------------------------------------------------------------------------------ fits that their data made fail


def failed(folder: Path, spool: Path) -> None:
    """Leaves a fit in which no channel was left."""
    with pytest.raises(NoChannelsError, match="give more than 50 different images, or lower min_channel_length"):
        estimator(**{**SETTINGS, "min_channel_length": 50}).fit(folder, spool=spool)
    assert (spool / "journal").is_file()


def described(model: Any, folder: Path, spool: Path, **options: Any) -> int:
    """Fits, and returns how many images were described."""
    told: list[str] = []
    model.fit(folder, spool=spool, progress=lambda stage, *_: told.append(stage), **options)
    assert not spool.exists()
    return told.count("associate")


@pytest.mark.parametrize("resume", [False, True])
def test_a_failed_fit_is_taken_over(folder: Path, whole: bytes, tmp_path: Path, resume: bool) -> None:
    spool = tmp_path / "spool"
    failed(folder, spool)
    model = estimator(**SETTINGS)
    assert described(model, folder, spool, resume=resume) == 0
    assert saved(model, tmp_path) == whole


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("more", ["images", "parameters"])
def test_a_failed_fit_of_something_else_is_begun_anew(folder: Path, tmp_path: Path, resume: bool, more: str) -> None:
    spool = tmp_path / "spool"
    failed(folder, spool)
    changes = {} if more == "images" else {"dim": 20}
    if more == "images":
        Image.fromarray(pictures(1, seed=9)[0]).save(folder / "new.png")
    model = estimator(**{**SETTINGS, **changes})
    assert described(model, folder, spool, resume=resume) == (11 if more == "images" else 10)
    assert saved(model, tmp_path) == saved(estimator(**{**SETTINGS, **changes}).fit(folder), tmp_path)


def test_a_taken_over_fit_that_is_killed_is_an_unfinished_one(folder: Path, whole: bytes, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    failed(folder, spool)
    Image.fromarray(pictures(1, seed=9)[0]).save(folder / "new.png")
    stopped(folder, spool)
    with pytest.raises(SpoolExistsError):
        estimator(**SETTINGS).fit(folder, spool=spool)
    (folder / "new.png").unlink()
    with pytest.raises(SpoolImagesChangedError):
        estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
    failed_again = estimator(**{**SETTINGS, "min_channel_length": 50})
    with pytest.raises(SpoolExistsError):
        failed_again.fit(folder, spool=spool)


def test_a_fit_that_fails_again_is_taken_over_again(folder: Path, whole: bytes, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    failed(folder, spool)
    failed(folder, spool)
    assert resumed(folder, spool, tmp_path) == whole


# -------------------------------------------------------------------------------------------------- bad input


def test_an_unfinished_spool_is_an_error_that_names_both_remedies(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool)
    before = {path.name: path.read_bytes() for path in spool.iterdir()}
    with pytest.raises(SpoolExistsError, match=r"unfinished fit.*resume=True \(--resume\).*remove the spool"):
        estimator(**SETTINGS).fit(folder, spool=spool)
    assert {path.name: path.read_bytes() for path in spool.iterdir()} == before
    with pytest.raises(ParameterError, match="resume"):
        estimator().fit(folder, resume=True)


def test_a_spool_of_another_configuration(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool)
    for changes, words in (
        ({"dim": 20}, r"dim \(was 24, is 20\)"),
        ({"random_state": 4}, r"random_state \(was 0, is 4\)"),
        ({"assoc_depth": 3}, "assoc_depth"),
    ):
        with pytest.raises(SpoolMismatchError, match=words):
            estimator(**{**SETTINGS, **changes}).fit(folder, spool=spool, resume=True)
    from small_fits import tiny_backbone

    with pytest.raises(SpoolMismatchError, match="backbone_fingerprint"):
        estimator(**{**SETTINGS, "backbone": tiny_backbone(1)}).fit(folder, spool=spool, resume=True)
    with pytest.raises(SpoolMismatchError, match="seeds"):
        estimator(**SETTINGS).fit(folder, seeds=[1], spool=spool, resume=True)


def changed(folder: Path) -> None:
    Image.fromarray(pictures(1, seed=9)[0]).save(folder / "7.png")


def added(folder: Path) -> None:
    shutil.copy(folder / "1.png", folder / "10.png")


def gone(folder: Path) -> None:
    (folder / "7.png").unlink()


def broken(folder: Path) -> None:
    (folder / "7.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed, r"^7\.png: is another image than it was"),
        (added, r"^10\.png: is there, and was not"),
        (gone, r"^7\.png: is missing, and was there when"),
        (broken, r"^7\.png: cannot be read, and could be when"),
    ],
)
def test_images_that_changed_since(
    folder: Path, whole: bytes, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    spool = tmp_path / "spool"
    with pytest.raises(Stopped):
        estimator(**SETTINGS).fit(folder, spool=spool, skip_bad=True, progress=stop_at("associate", 4))
    shutil.copytree(folder, tmp_path / "before")
    change(folder)
    with pytest.raises(SpoolImagesChangedError, match=words) as caught:
        estimator(**SETTINGS).fit(folder, spool=spool, skip_bad=True, resume=True)
    assert str(spool) in str(caught.value)
    assert isinstance(caught.value, DataError)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "before", folder)
    model = estimator(**SETTINGS).fit(folder, spool=spool, skip_bad=True, resume=True)  # nothing was lost
    assert saved(model, tmp_path) == whole


def test_a_spool_in_use(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool)
    pytest.importorskip("fcntl")
    holder = Spool(spool, Budget(TIGHT), resume=True)
    with pytest.raises(SpoolBusyError, match="another process"):
        estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
    holder.close()
    estimator(**SETTINGS).fit(folder, spool=spool, resume=True)


def test_a_file_system_without_locks(
    folder: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert saved(estimator(**SETTINGS).fit(folder, spool=tmp_path / "spool"), tmp_path) == whole
    assert not (tmp_path / "spool").exists()


def test_the_journal_is_on_the_disk_before_the_members_go(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, spool = os.fsync, tmp_path / "spool"

    def watched(handle: int) -> None:
        names = {path.stat().st_ino: path.name for path in spool.iterdir()}
        synced.append(names[os.fstat(handle).st_ino])
        assert (spool / "members").stat().st_size > 0
        assert (b'"kind":"moved"' in (spool / "journal").read_bytes()) == (synced[-1] == "journal")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    stopped(folder, spool, "threshold", 1)
    assert not (spool / "members").exists()
    assert sorted(synced[:-1]) == ["members", "nominal", "others", "selection"]
    assert synced[-1] == "journal"


def test_folders_that_hold_something_else_are_not_touched(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpoolExistsError, match="is not a spool"):
        estimator(**SETTINGS).fit(folder, spool=folder)
    assert len(list(folder.iterdir())) == 10
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SpoolExistsError, match="is not a spool"):
        estimator(**SETTINGS).fit(folder, spool=tmp_path / "file", resume=True)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(SpoolWriteError, match=r"absent.*make its parent folder") as caught:
        estimator(**SETTINGS).fit(folder, spool=tmp_path / "absent" / "spool")
    assert "room" not in str(caught.value)
    with pytest.raises(ParameterError, match="spool: expected the path of a folder, got 5"):
        estimator(**SETTINGS).fit(folder, spool=5)


def test_a_file_of_the_spool_that_cannot_be_opened(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool)
    (spool / "ids").unlink()
    (spool / "ids").mkdir()
    with pytest.raises(SpoolWriteError, match=r"cannot be written.*see that it can be written to.*--resume") as caught:
        estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
    assert "room" not in str(caught.value)


def test_a_garbled_journal(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool)
    lines = (spool / "journal").read_bytes().splitlines(keepends=True)
    (spool / "lock").unlink()
    for number, line in ((0, b"not a journal\n"), (0, lines[0].replace(b"24", b"25", 1)), (2, b'{"kind":"image"} 0\n')):
        garbled = [*lines]
        garbled[number] = line
        (spool / "journal").write_bytes(b"".join(garbled))
        with pytest.raises(SpoolCorruptError, match="journal"):
            estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
        with pytest.raises(SpoolError):
            estimator(**SETTINGS).fit(folder, spool=spool)
    (spool / "journal").write_bytes(b"")
    with pytest.raises(SpoolCorruptError):
        estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
    record = json.loads(lines[1].rpartition(b" ")[0])
    assert record["kind"] == "read"
    assert len(record["digests"]) == 10


def test_placed_rows_that_are_gone(folder: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    stopped(folder, spool, "threshold", 1)
    assert not (spool / "members").exists() or (spool / "members").stat().st_size == 0
    os.truncate(spool / "nominal", 100)
    with pytest.raises(SpoolCorruptError, match="gone"):
        estimator(**SETTINGS).fit(folder, spool=spool, resume=True)


def test_a_fit_that_fails_at_once_leaves_no_spool(folder: Path, tmp_path: Path) -> None:
    broken(folder)
    with pytest.raises(ImageError):
        estimator(**SETTINGS).fit(folder, spool=tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


# -------------------------------------------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_keeps_what_was_done(folder: Path, whole: bytes, tmp_path: Path, small_disk: Path) -> None:
    spool = small_disk / "spool"
    with pytest.raises(SpoolWriteError, match=r"disk is full: at least [\d.]+ kB more are needed.*--resume") as caught:
        estimator(**SETTINGS).fit(folder, spool=spool)
    assert isinstance(caught.value, SaveError)
    assert str(spool) in str(caught.value)
    lines = (spool / "journal").read_bytes().splitlines()
    with pytest.raises(SpoolWriteError):  # still full
        estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
    assert len((spool / "journal").read_bytes().splitlines()) >= len(lines) > 3
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    model = estimator(**SETTINGS).fit(folder, spool=spool, resume=True)
    assert saved(model, tmp_path) == whole
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_under_the_temporary_files(folder: Path, small_disk: Path) -> None:
    model = estimator(**{**SETTINGS, "memory_limit": 2 * TIGHT})
    model.use_scratch(small_disk)
    with pytest.raises(SpoolWriteError, match=r"disk is full.*greater memory_limit"):
        model.fit(pictures(60))
    assert list(small_disk.iterdir()) == []


class NearlyFull:
    """A file on a disk that takes five bytes more, and then none."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, 5

    def write(self, data: Any) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, self.left = min(self.left, len(data)), 0
        return int(self.file.write(data[:taken]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_record_of_which_the_disk_took_a_part_is_no_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", Budget(1 << 20))
    spool.begin(lambda: {"dim": 3})
    journal = spool.journal._file
    spool.journal._file = NearlyFull(journal)  # type: ignore[assignment]
    with pytest.raises(SpoolWriteError, match="disk is full"):
        spool.add({"kind": "image", "number": 0})
    assert spool.journal.records == []
    spool.journal._file = journal  # room was made
    spool.add({"kind": "image", "number": 1})
    spool.close()
    assert Spool(tmp_path / "spool", Budget(1 << 20), resume=True).journal.records == [{"kind": "image", "number": 1}]


def test_rows_of_which_the_disk_took_a_part_leave_those_before(tmp_path: Path) -> None:
    log = RowLog(Workspace(Budget(1 << 20), tmp_path), "rows", 2, most_rows=9, memory=0)
    log.append(np.ones((2, 2), np.float32))
    file = log._file
    log._file = NearlyFull(file)  # type: ignore[assignment]
    with pytest.raises(SpoolWriteError, match=r"disk is full.*use_scratch"):
        log.append(np.full((3, 2), 2, np.float32))
    log._file = file
    log.append(np.full((1, 2), 3, np.float32))
    assert log.read(0, len(log)).tolist() == [[1, 1], [1, 1], [3, 3]]


# ----------------------------------------------------------------------------------------------- memory limit


def test_a_limit_that_is_too_small_is_told_before_anything_is_done(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MemoryLimitError, match=r"5\.0 kB is too little for 10 images of 64 patches.*at least \d+"
    ) as caught:
        estimator(**{**SETTINGS, "memory_limit": "5kB"}).fit(folder, spool=tmp_path / "spool")
    assert not (tmp_path / "spool").exists()
    least = int(str(caught.value).split("(")[1].split(")")[0])
    estimator(**{**SETTINGS, "memory_limit": least}).fit(folder)
    with pytest.raises(MemoryLimitError):
        estimator(**{**SETTINGS, "memory_limit": least - 1}).fit(folder)
    for bad in ("much", 0, -1, 2.5):
        with pytest.raises(ParameterError, match="memory_limit"):
            estimator(memory_limit=bad)


def test_the_limit_is_no_part_of_the_model(folder: Path, whole: bytes, tmp_path: Path) -> None:
    for limit in (TIGHT, "1MB", "1GB"):
        model = estimator(**{**SETTINGS, "memory_limit": limit}).fit(folder)
        assert saved(model, tmp_path) == whole
        assert model.nominal_.patches.flags.writeable is False
    assert np.isfinite(model.threshold_)
