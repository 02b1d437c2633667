"""The benches of compression and of limited searches, on a small model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from descriptor_sets import shared_patches

from inreach_fast import InReaCh

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

from bench import compression, limited_search, serving  # noqa: E402

GRID = (6, 6)


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return InReaCh("channels", image_size=24, assoc_depth=3).fit_descriptors(shared_patches(8, 36, 8, seed=5), GRID)


def images() -> list[Any]:
    good, bad = shared_patches(3, 36, 8, seed=5), shared_patches(3, 36, 8, seed=5)
    bad[:, 7:9] += 5
    return [*good, *bad]


def test_compression_is_measured_step_by_step(model: InReaCh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def described(_model: Any, files: list[Path]) -> Iterator[Any]:
        yield from (images()[int(file.name)] for file in files)

    files = [Path(str(i)) for i in range(6)]
    monkeypatch.setattr(serving, "test_files", lambda _: (files, [False] * 3 + [True] * 3))
    monkeypatch.setattr(serving, "descriptors", described)
    found = compression.measure(model, "part", shares=(0.5, 0.1))
    steps = found["steps"]
    assert [step["kept"] for step in steps] == [
        len(model.nominal_),
        len(model.nominal_) // 2,
        len(model.nominal_) // 10,
    ]
    assert steps[0]["epsilon"] == 0 < steps[1]["epsilon"] < steps[2]["epsilon"]
    assert steps[0]["image_auroc"] == 1.0
    text = compression.table("part", found)
    assert text.count("\n| ") == 4
    assert "100.00%" in text
    pytest.importorskip("matplotlib")
    compression.draw({"part": found, "other": found}, tmp_path / "new" / "chart.png")
    assert (tmp_path / "new" / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_limited_searches_are_measured_against_the_full_one(model: InReaCh) -> None:
    found = limited_search.measure(model, images(), [False] * 3 + [True] * 3)
    ways = found["ways"]
    assert ways["whole search"]["complete"] == ways["whole search"]["certain"] == 1.0
    assert ways["threshold"]["certain"] == 1.0
    for way in ways.values():
        assert way["bounds_held"] == "6 of 6"
        equal, of = way["certain_verdicts_equal"].split(" of ")
        assert equal == of
    assert limited_search.table("part", found).count("\n| ") == 1 + len(ways)


def test_missing_classes_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INREACH_BENCH_DATA", str(tmp_path))
    assert not serving.available("bottle")
    for main in (compression.main, limited_search.main):
        with pytest.raises(SystemExit):
            main(["--classes", "bottle"])
        assert "bottle: images or the ResNet-50's weights are missing" in capsys.readouterr().err
