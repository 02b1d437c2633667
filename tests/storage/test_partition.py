from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_fits import estimator, pictures, saved

from inreach_fast import InReaCh, kernels
from inreach_fast.errors import SpoolCorruptError, SpoolWriteError
from inreach_fast.fit import model_building
from inreach_fast.method.scoring import Scorer
from inreach_fast.storage import partition
from inreach_fast.storage.row_log import RowLog
from inreach_fast.storage.rows import GatheredRows
from inreach_fast.storage.spool import Spool
from inreach_fast.storage.workspace import Budget, Workspace
from inreach_fast.system import memory
from inreach_fast.system.progress import no_progress

IMAGES = pictures(10)
SETTINGS: dict[str, Any] = {
    "min_channel_length": 2,
    "max_channel_std": 2.0,
    "threshold_images": 4,
    "position": "always",
}
LIMIT = 60_000
ROW_BYTES = 4 * 26  # with position channels
BLOCK = 40 * ROW_BYTES


class Stopped(Exception):
    """A fit that a test ends."""


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "BLOCK_BYTES", BLOCK)


def fit(spool: Path, progress: Callable[[str, int, int], None] | None = None) -> Any:
    model = estimator(**SETTINGS, memory_limit=LIMIT)
    return model.fit(IMAGES, spool=spool, resume=True, progress=progress)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """What a fit in memory gives."""
    return saved(estimator(**SETTINGS).fit(IMAGES), tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    dim=st.sampled_from([1, 3, 24]),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    limit=st.sampled_from([8, 10**7]),
    block=st.integers(1, 40),
    logged=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_row_gets_to_its_place(
    count: int, dim: int, share: float, limit: int, block: int, logged: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, dim), dtype=np.float32)
    chosen = random.random(count) < share
    workspace = Workspace(Budget(limit))
    source: Any = GatheredRows.split(chosen, rows[chosen], rows[~chosen])
    if logged:
        source = RowLog(workspace, "members", dim, most_rows=count, memory=workspace.budget.members)
        source.append(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "BLOCK_BYTES", 4 * dim * block)
        nominal, others = partition.partition(source, chosen, workspace, no_progress)
    assert np.array_equal(nominal, rows[chosen])
    assert np.array_equal(others, rows[~chosen])


def test_rows_never_lie_on_disk_twice(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    seen: list[int] = []
    members = 0

    def watch(stage: str, done: int, total: int) -> None:
        nonlocal members
        if stage == "associate":
            members = (spool / "members").stat().st_size
        if stage == "place":
            left = (spool / "members").stat().st_size
            assert left == (total - done) * ROW_BYTES
            seen.append(left)

    model = fit(spool, watch)
    assert len(model.nominal_) < members // ROW_BYTES == len(model._state.growth.members)
    assert len(seen) == -(-members // BLOCK) > 3
    assert seen[-1] == 0


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("where", ["written", "recorded", "cut"])
def test_stopped_between_any_two_steps_of_a_block(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, where: str, step: int
) -> None:
    count = 0

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise Stopped

    add, cut = Spool.add, RowLog.cut

    def stopping_add(self: Spool, record: dict[str, Any], **options: Any) -> None:
        if record["kind"] == "moved" and where == "written":
            stop()
        add(self, record, **options)

    def stopping_cut(self: RowLog, rows: int) -> None:
        if where == "recorded":
            stop()
        cut(self, rows)
        if where == "cut":
            stop()

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "add", stopping_add)
        patch.setattr(RowLog, "cut", stopping_cut)
        with pytest.raises(Stopped):
            fit(tmp_path / "spool")
    told: list[tuple[str, int]] = []
    model = fit(tmp_path / "spool", lambda stage, done, total: told.append((stage, done)))
    assert saved(model, tmp_path) == whole
    assert "associate" not in dict(told)  # nothing is done twice


def test_a_full_disk_in_the_middle_keeps_both_ends(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at, count = partition.write_at, 0

    def full(file: Any, offset: int, array: NDArray[np.float32]) -> None:
        nonlocal count
        count += 1
        if count == 7:
            write_at(file, offset, array[: len(array) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_at(file, offset, array)

    monkeypatch.setattr(partition, "write_at", full)
    with pytest.raises(SpoolWriteError, match=r"disk is full.*--resume"):
        fit(tmp_path / "spool")
    assert saved(fit(tmp_path / "spool"), tmp_path) == whole


@pytest.mark.parametrize(
    ("name", "words"), [("members", "were altered"), ("selection", "result was altered"), ("nominal", "are gone")]
)
def test_rows_that_were_lost_on_the_way_are_told(tmp_path: Path, name: str, words: str) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "place" and done >= total // 2:
            raise Stopped

    spool = tmp_path / "spool"
    with pytest.raises(Stopped):
        fit(spool, stop)
    os.truncate(spool / name, 100)
    with pytest.raises(SpoolCorruptError, match=words):
        fit(spool)
    assert (spool / "journal").is_file()


# ------------------------------------------------------------------------------------------- saved from a spool


def kept(spool: Path) -> Any:
    model = estimator(**SETTINGS, memory_limit=LIMIT)
    return model.fit(IMAGES, spool=spool, resume=True, keep_spool=True)


def test_a_saved_model_takes_over_the_spools_rows(tmp_path: Path, whole: bytes) -> None:
    spool, path = tmp_path / "spool", tmp_path / "model"
    model = kept(spool)
    model.save(path)
    assert path.read_bytes() == whole
    assert path.samefile(spool / "nominal")
    model.save(tmp_path / "final", final=True)  # a copy: the rows are given away
    again = kept_after_a_kill(model, spool)  # between saving and removing the spool
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes() == whole
    again.remove_spool()
    assert not spool.exists()
    assert saved(model, tmp_path) == saved(again, tmp_path) == whole  # what is mapped stays readable
    assert len(InReaCh.load(tmp_path / "final").nominal_) == len(model.nominal_)


def kept_after_a_kill(model: Any, spool: Path) -> Any:
    model._spool.close()
    return kept(spool)


def test_pages_that_a_score_looked_at_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nominal = kept(tmp_path / "spool").nominal_
    p = estimator(**SETTINGS).parameters
    scorer = Scorer(nominal.bank, lambda: np.zeros(len(nominal), np.int64), p.score, p.distance, kernels.backend_of(p))
    rows, passing = np.random.default_rng(0).random((64, 26), dtype=np.float32), np.zeros(3)
    expected = model_building.leave_one_out_values(scorer, rows, 0)
    released: list[Any] = []
    monkeypatch.setattr(memory, "release_pages", released.append)
    assert np.array_equal(model_building.leave_one_out_values(scorer, rows, 0, [passing]), expected)
    assert [array is passing for array in released] == [False, True] * (64 // memory.MAPPED_QUERIES)
    released.clear()
    confirmed = nominal.confirmed(1, "auto", no_progress, [passing])
    runs = int(np.ceil(np.bincount(nominal.image_index) / memory.MAPPED_QUERIES).sum())
    assert [array is passing for array in released] == [False, True] * runs
    in_memory = replace(nominal, patches=np.array(nominal.patches))
    assert np.array_equal(in_memory.confirmed(1, "auto", no_progress).confirmation, confirmed.confirmation)


def test_a_grown_model_is_not_the_spools(tmp_path: Path) -> None:
    model = kept(tmp_path / "spool")
    forgotten = int(np.setdiff1d(np.arange(10), model.seed_images_)[0])
    model.forget(forgotten)
    model.save(tmp_path / "model")
    assert (tmp_path / "spool" / "nominal").stat().st_nlink == 1
    left = [image for i, image in enumerate(IMAGES) if i != forgotten]
    fresh = estimator(**SETTINGS).fit(left, seeds=model.seed_images_)
    assert (tmp_path / "model").read_bytes() == saved(fresh, tmp_path)


def test_a_new_fit_in_the_folder_leaves_the_saved_model_alone(tmp_path: Path, whole: bytes) -> None:
    spool, path = tmp_path / "spool", tmp_path / "model"
    model = kept(spool)
    model.save(path)
    model._spool.close()
    (spool / "journal").unlink()  # killed while it removed the spool
    kept(spool)
    assert path.read_bytes() == whole
    assert not path.samefile(spool / "nominal")
