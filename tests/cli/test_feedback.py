"""`inreach accept`, `reject` and `feedback`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_cases import Run, picture, save

from inreach_fast.cli import exit_codes


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(model, tmp_path / "m.inreach"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save(tmp_path / "new.png", picture(40, defect=True))


def test_a_false_alarm_is_accepted_listed_and_undone(run: Run, copy: Path, image: Path) -> None:
    before = copy.read_bytes()
    assert run("threshold", copy, "1e-6").code == 0
    changed = copy.read_bytes()
    found = run("accept", copy, image, "--json").json
    assert (found["id"], found["kind"], found["region"]) == (1, "accept", None)
    assert found["score"] == 0
    assert not found["is_anomalous"]
    line = run("predict", copy, image).lines[0]
    assert line["feedback"] == [1]
    assert not line["is_anomalous"]
    listed = run("feedback", copy).out
    assert "accepted" in listed
    assert "the whole image" in listed
    assert len(run("info", copy, "--json").json["feedback"]) == 1
    assert run("feedback", copy, "--undo", "1", "--json").json["feedback"] == []
    assert copy.read_bytes() == changed != before
    assert "no feedback" in run("feedback", copy).out


def test_a_missed_defect_is_rejected(run: Run, copy: Path, image: Path, tmp_path: Path) -> None:
    assert run("threshold", copy, "1e6").code == 0
    assert not run("predict", copy, image).lines[0]["is_anomalous"]
    other = tmp_path / "other.inreach"
    found = run("reject", copy, image, "--region", "16,16,8,8", "-o", other, "--json").json
    assert found["region"] == [16, 16, 8, 8]
    assert found["is_anomalous"]
    assert run("predict", other, image).lines[0]["is_anomalous"]
    assert not run("predict", copy, image).lines[0]["is_anomalous"]


@pytest.mark.parametrize("command", ["accept", "reject"])
def test_a_region_outside_of_the_image(run: Run, copy: Path, image: Path, command: str) -> None:
    before = copy.read_bytes()
    result = run(command, copy, image, "--region", "40,40,9,9")
    assert result.code == exit_codes.DATA
    assert "does not lie within the image of 48 x 48 pixels" in result.error
    mask = save(image.with_name("mask.png"), picture(1, (20, 20)))
    result = run(command, copy, image, "--region", mask)
    assert result.code == exit_codes.DATA
    assert "the mask has 20 x 20 pixels" in result.error
    assert copy.read_bytes() == before


def test_no_such_feedback(run: Run, copy: Path) -> None:
    result = run("feedback", copy, "--undo", "3")
    assert result.code == exit_codes.USAGE
    assert "no feedback 3" in result.error
