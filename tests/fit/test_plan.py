from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_fits import estimator, pictures

from inreach_fast import InReaCh
from inreach_fast.errors import EmptyFolderError, FinalModelError, ImageError, MemoryLimitError, TooFewImagesError
from inreach_fast.executors import ProcessExecutor, RayExecutor
from inreach_fast.fit import plan as plan_module
from inreach_fast.fit.plan import FitPlan
from inreach_fast.storage import partition

SETTINGS: dict[str, Any] = {"min_channel_length": 1, "threshold_images": 6}


def within(planned: float, actual: float, share: float = 0.2) -> bool:
    return abs(planned / actual - 1) <= share


class Watched:
    """The largest size of some folders, looked at in the calls of progress and at will."""

    def __init__(self, *folders: Path) -> None:
        self.folders, self.largest = folders, 0

    def __call__(self, *_: Any) -> None:
        found = {}
        for folder in self.folders:
            for path in folder.rglob("*"):
                if path.is_file() and path.name not in ("journal", "lock"):
                    status = path.stat()  # a hole takes no space; a file of two names takes it once
                    found[status.st_ino] = min(status.st_size, 512 * status.st_blocks)
        self.largest = max(self.largest, sum(found.values()))


# Filters that leave most members, and some of them; and a limit beyond which rows go to files.
FILTERS: list[dict[str, Any]] = [
    {"min_channel_length": 1},
    {"min_channel_length": 6, "max_channel_std": 2.5, "spread_rule": "literal"},
]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("limit", [1_000_000, None])
@pytest.mark.parametrize("count", [16, 40])
def test_bytes_are_about_those_of_the_fit(
    tmp_path: Path, limit: int | None, filters: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "BLOCK_BYTES", 1 << 15)
    monkeypatch.setattr(plan_module, "BLOCK_BYTES", 1 << 15)
    images = pictures(count, size=(64, 64))
    model = estimator(memory_limit=limit, image_size=64, **SETTINGS | filters)
    plan = model.plan(images)
    for name in ("spool", "saved"):
        (tmp_path / name).mkdir()
    spool = Watched(tmp_path / "spool")
    model.fit(images, spool=tmp_path / "spool", keep_spool=True, progress=spool)
    spool()
    both = Watched(tmp_path / "spool", tmp_path / "saved")
    model.save(tmp_path / "saved" / "model")
    both()
    model.remove_spool()
    model.save(tmp_path / "model")
    model.save(tmp_path / "final", final=True)
    few = len(model.nominal_) < 0.6 * len(model._state.growth.members)
    assert few == ("max_channel_std" in filters)
    assert within(plan.nominal, len(model.nominal_))
    assert within(plan.disk["peak"], both.largest, 0.25)
    assert plan.images == count
    assert plan.patches == 256
    assert plan.smallest == plan.largest == (64, 64)
    assert within(plan.members, len(model._state.growth.members))
    assert within(plan.disk["model"], (tmp_path / "model").stat().st_size)
    assert within(plan.disk["final_model"], (tmp_path / "final").stat().st_size)
    assert within(plan.disk["spool"], spool.largest)
    seeds = 2 * 256 * plan.dimensions * 4
    assert plan.memory["seeds"] >= seeds
    assert plan.memory["used"] <= plan.memory["limit"]
    assert plan.memory["peak"] >= plan.memory["process"] + seeds
    assert set(plan.seconds) <= {"read", "align", *model.report_.seconds}
    assert all(seconds > 0 for seconds in plan.seconds.values())
    assert plan.total_seconds == pytest.approx(sum(plan.seconds.values()))


def test_of_few_images_that_are_all_measured_the_model_is_known() -> None:
    images = pictures(12)
    plan = estimator(**SETTINGS).plan(images)
    model = estimator(**SETTINGS).fit(images)
    assert plan.measured_images == 12
    assert plan.members == len(model._state.growth.members)
    assert plan.nominal == len(model.nominal_)


@pytest.mark.parametrize("limit", [400_000, None])
def test_adding_images(tmp_path: Path, limit: int | None) -> None:
    images = pictures(40, size=(64, 64))
    model = estimator(image_size=64, **SETTINGS).fit(images[:20])
    model.save(tmp_path / "old")
    model = InReaCh.load(tmp_path / "old", backbone=model.backbone)
    model.memory_limit = limit
    before = (tmp_path / "old").read_bytes()
    plan = model.plan_partial_fit(images[20:])
    assert (tmp_path / "old").read_bytes() == before
    assert model.n_images_ == 20
    assert plan.images == 40
    assert plan.measured_images == 16
    model.partial_fit(images[20:])
    model.save(tmp_path / "new")
    model.save(tmp_path / "final", final=True)
    assert within(plan.members, len(model._state.growth.members))
    assert within(plan.nominal, len(model.nominal_))
    assert within(plan.disk["model"], (tmp_path / "new").stat().st_size)
    assert within(plan.disk["final_model"], (tmp_path / "final").stat().st_size)
    assert (plan.disk["spool"] > 0) == (limit is not None)
    assert plan.disk["peak"] >= plan.disk["model"]


def test_adding_to_a_model_that_cannot_grow(tmp_path: Path) -> None:
    model = estimator(**SETTINGS).fit(pictures(6)).compress(to=0.5)
    with pytest.raises(FinalModelError):
        model.plan_partial_fit(pictures(2))


def test_workers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    images, model = pictures(30), estimator(**SETTINGS)
    alone = model.plan(images)
    assert alone.workers == alone.memory["worker"] == 0
    assert "workers" not in str(alone)
    monkeypatch.setattr(ProcessExecutor, "usable", 4)
    model.executor = "processes:3"
    plan = model.plan(images)
    parts = sum(plan.memory[name] for name in ("process", "seeds", "image", "used", "numbers"))
    assert plan.workers == 3
    assert plan.memory["worker"] > plan.memory["process"]
    assert plan.memory["peak"] == parts + 3 * plan.memory["worker"]
    assert "workers  3; each takes" in str(plan)
    model.executor = RayExecutor.__new__(RayExecutor)  # made without Ray
    object.__setattr__(model.executor, "workers", None)
    plan = model.plan(images)
    assert plan.workers is None
    assert plan.memory["peak"] == sum(plan.memory[name] for name in ("process", "seeds", "image", "used", "numbers"))
    assert "as many as the cluster has room for" in str(plan)


def test_it_says_so_in_words_and_in_json() -> None:
    images = [*pictures(5), *pictures(1, size=(64, 80))]
    plan = estimator(**SETTINGS).plan(images, seeds=[5])
    text = str(plan)
    for word in ("6 of 40x36 to 64x80 pixels", "64 patches", "join a channel", "memory   peak", "spool up to", "about"):
        assert word in text
    record = json.loads(json.dumps(plan.as_dict()))
    assert record["largest"] == [64, 80]
    assert record["total_seconds"] > 0
    assert FitPlan(**{k: v for k, v in plan.as_dict().items() if k != "total_seconds"}).members == plan.members


def test_it_changes_nothing_and_passes_over_broken_images(tmp_path: Path) -> None:
    for i, image in enumerate(pictures(6)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    before = sorted(tmp_path.iterdir())
    told: list[tuple[str, int, int]] = []
    model = estimator(**SETTINGS)
    assert model.plan(tmp_path, progress=lambda *step: told.append(step)).images == 6
    assert sorted(tmp_path.iterdir()) == before
    assert not hasattr(model, "nominal_")
    assert told[-1][1] == told[-1][2]
    two = estimator(**SETTINGS).plan(pictures(2))  # all are seeds
    assert np.isfinite(two.join_rate)


def test_turning_the_images_is_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from inreach_fast.fit import plan

    now, decide = [0.0], plan.decide_positions
    turned: list[int] = []

    def decided(inputs: Any, *arguments: Any) -> Any:
        found = decide(inputs, *arguments)
        turned.append(len(found[0].searched))
        now[0] += 3.0
        return found

    monkeypatch.setattr(plan, "decide_positions", decided)
    monkeypatch.setattr(plan, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    found = estimator(align="auto", transpose_threshold=1e9, **SETTINGS).plan(pictures(20))
    assert turned == [found.measured_images]
    assert 0 < turned[0] < 20
    assert found.seconds["align"] == pytest.approx(3.0 / turned[0] * 20)


def test_a_limit_that_the_fit_would_refuse_is_refused() -> None:
    images = pictures(6)
    for seeds in (None, [0, 1, 2, 3]):
        with pytest.raises(MemoryLimitError, match=r"1\.0 kB is too little for 6 images") as caught:
            estimator(memory_limit="1kB", **SETTINGS).plan(images, seeds=seeds)
        with pytest.raises(MemoryLimitError) as again:
            estimator(memory_limit="1kB", **SETTINGS).fit(images, seeds=seeds)
        assert str(again.value) == str(caught.value)
        assert f"{len(seeds or [0, 1])} seed images" in str(caught.value)
        least = int(str(caught.value).split("(")[1].split(")")[0])
        assert estimator(memory_limit=least, **SETTINGS).plan(images, seeds=seeds).memory["limit"] == least


def test_nothing_to_plan(tmp_path: Path) -> None:
    with pytest.raises(EmptyFolderError):
        estimator().plan(tmp_path)
    with pytest.raises(TooFewImagesError):
        estimator().plan(pictures(1))
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"\.png"):
        estimator().plan(tmp_path)


@pytest.mark.parametrize("bank_images", [None, 12])
def test_a_plan_of_the_default_preset(tmp_path: Path, bank_images: int | None) -> None:
    images = pictures(30, size=(64, 64))
    model = estimator(preset="default", image_size=64, dim=24, pca_dim=8, bank_images=bank_images)
    plan = model.plan(images)
    model.fit(images)
    assert (plan.dimensions, plan.patches) == (8, model.grid_[0] * model.grid_[1])
    assert plan.nominal == plan.members == len(model.nominal_)
    model.save(tmp_path / "model")
    model.save(tmp_path / "final", final=True)
    assert within(plan.disk["model"], (tmp_path / "model").stat().st_size)
    assert within(plan.disk["final_model"], (tmp_path / "final").stat().st_size)
    assert "confirm" in plan.seconds
    grown = model.plan_partial_fit(pictures(6, size=(64, 64), seed=1))
    assert grown.images == 36
    assert grown.nominal == plan.patches * (bank_images or 36)
