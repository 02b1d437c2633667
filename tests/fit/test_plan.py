from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_fits import estimator, pictures

from inreach_fast.errors import EmptyFolderError, ImageError, MemoryLimitError, TooFewImagesError
from inreach_fast.fit.plan import FitPlan

SETTINGS: dict[str, Any] = {"min_channel_length": 1, "threshold_images": 6}
FACTOR = 1.6
"""How far a plan of so few patches may be off in bytes."""


def within(planned: float, actual: float) -> bool:
    return actual / FACTOR < planned < actual * FACTOR


@pytest.mark.parametrize("limit", [1_000_000, None])
def test_bytes_are_about_those_of_the_fit(tmp_path: Path, limit: int | None) -> None:
    images = pictures(40, size=(64, 64))
    model = estimator(memory_limit=limit, image_size=64, **SETTINGS)
    plan = model.plan(images)
    spool = tmp_path / "spool"
    largest = 0

    def watch(stage: str, done: int, total: int) -> None:
        nonlocal largest
        files = [path for path in spool.rglob("*") if path.is_file() and path.name not in ("journal", "lock")]
        largest = max(largest, sum(path.stat().st_size for path in files))

    model.fit(images, spool=spool, progress=watch)
    model.save(tmp_path / "model")
    model.save(tmp_path / "final", final=True)
    assert plan.images == 40
    assert plan.patches == 256
    assert plan.smallest == plan.largest == (64, 64)
    assert within(plan.members, len(model._state.growth.members))
    assert within(plan.disk["model"], (tmp_path / "model").stat().st_size)
    assert within(plan.disk["final_model"], (tmp_path / "final").stat().st_size)
    assert within(plan.disk["spool"], largest)
    seeds = 2 * 256 * plan.dimensions * 4
    assert plan.memory["seeds"] >= seeds
    assert plan.memory["used"] <= plan.memory["limit"]
    assert plan.memory["peak"] >= plan.memory["process"] + seeds
    assert set(plan.seconds) <= {"read", "align", *model.report_.seconds}
    assert all(seconds > 0 for seconds in plan.seconds.values())
    assert plan.total_seconds == pytest.approx(sum(plan.seconds.values()))


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
