"""`inreach threshold`, and what `inreach fit` says of thresholds, copies, useless models and left-over spools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_cases import FAST, Run, picture, save

from inreach_fast import InReaCh
from inreach_fast.cli import exit_codes


def test_the_threshold_is_shown(run: Run, model: Path) -> None:
    before = model.read_bytes()
    loaded = InReaCh.load(model)
    record = run("threshold", model, "--json").json
    assert record == {
        "model": str(model),
        "threshold": loaded.threshold_,
        "before": loaded.threshold_,
        "chosen_by_fit": loaded.threshold_,
        "scored_images": 8,
        "scored_images_above": int((loaded.training_scores() > loaded.threshold_).sum()),
    }
    assert "the fit's rule gives" in run("threshold", model).out
    assert model.read_bytes() == before


def test_the_threshold_is_set_and_chosen_again(run: Run, model: Path, training: Path, tmp_path: Path) -> None:
    mine, chosen = tmp_path / "mine.inreach", InReaCh.load(model).threshold_
    shutil.copy(model, mine)
    assert run("threshold", mine, "12.5", "--json").json["threshold"] == 12.5
    assert run("info", mine, "--json").json["threshold"] == 12.5
    assert {line["threshold"] for line in run("predict", mine, training).lines} == {12.5}
    assert InReaCh.load(mine).can_grow
    assert "(was 12.50)" in run("threshold", mine, "auto").out
    assert InReaCh.load(mine).threshold_ == chosen
    assert mine.read_bytes() == model.read_bytes()
    other = tmp_path / "new" / "other.inreach"
    assert run("threshold", mine, "0", "-o", other).code == 0
    assert InReaCh.load(other).threshold_ == 0.0
    assert mine.read_bytes() == model.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.inreach", "new"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "much", "1e999", ""])
def test_thresholds_that_are_none(run: Run, model: Path, value: str) -> None:
    before = model.read_bytes()
    result = run("threshold", model, value)
    assert result.code == exit_codes.USAGE
    assert "is not a finite number of at least 0" in result.error
    assert model.read_bytes() == before


def test_a_threshold_of_no_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model")
    assert run("threshold", tmp_path / "text", "3").code == exit_codes.MODEL
    assert (tmp_path / "text").read_text() == "no model"


def test_fit_says_which_images_lie_above_the_threshold(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", *FAST)
    loaded = InReaCh.load(tmp_path / "m")
    above = loaded.report_["above_threshold"]
    assert [Path(name).name for name in above] == ["5.png"]
    assert f"training images above the threshold, of 8 that were scored: 1 ({above[0]})" in result.out
    record = run("fit", training, "-o", tmp_path / "m", "--json", *FAST).json
    assert record["report"]["above_threshold"] == above
    clean = tmp_path / "clean"
    for number in range(6):
        save(clean / f"{number}.png", picture(number))
    assert "above the threshold: none of the 6 that were scored" in run("fit", clean, "-o", tmp_path / "c", *FAST).out


def test_fit_counts_copies_and_prints_warnings(run: Run, training: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(training, folder)
    for path in training.iterdir():
        shutil.copy(path, folder / f"copy-of-{path.name}")
    once, twice = (run("fit", f, "-o", tmp_path / f"{f.name}.inreach", *FAST) for f in (training, folder))
    assert "8 copies of others" in twice.out
    assert "inreach: warning: images that show exactly what another one shows: 8 (" in twice.err
    assert "warning" not in once.err
    a, b = (InReaCh.load(tmp_path / f"{f.name}.inreach") for f in (training, folder))
    assert a.threshold_ == b.threshold_
    assert "warning: images that show exactly" in run("info", tmp_path / "twice.inreach").out
    ranking = run("audit", folder, "--json", *FAST).json["ranking"]
    rejected = {Path(row["file"]).name: row["rejected_patches"] for row in ranking}
    scores = {Path(row["file"]).name: row["score"] for row in ranking}
    assert all(rejected[f"{i}.png"] == rejected[f"copy-of-{i}.png"] for i in range(8))
    assert all(scores[f"{i}.png"] == scores[f"copy-of-{i}.png"] for i in range(8))


def test_after_a_fit_without_channels_the_advice_helps(run: Run, training: Path, tmp_path: Path) -> None:
    few, target = tmp_path / "few", tmp_path / "m.inreach"
    for number in range(3):
        save(few / f"{number}.png", picture(number))
    options = [word if word != "1" else "3" for word in FAST]  # more than three members
    failed = run("fit", few, "-o", target, *options)
    assert failed.code == exit_codes.DATA
    assert "give more than 3 different images, or lower min_channel_length (--min-channel-length) to 2" in failed.error
    assert "a fit of the same images uses it" in failed.err
    lower = [word if word != "1" else "2" for word in FAST]
    assert run("fit", few, "-o", target, *lower).code == 0  # with what was described
    assert not (tmp_path / "m.inreach.spool").exists()
    for resume in ((), ("--resume",)):
        assert run("fit", few, "-o", target, *options).code == exit_codes.DATA
        for number in range(3, 6):
            save(few / f"{number}.png", picture(number))
        assert run("fit", few, "-o", target, *resume, *options).code == 0
        assert not (tmp_path / "m.inreach.spool").exists()
        for number in range(3, 6):
            (few / f"{number}.png").unlink()
