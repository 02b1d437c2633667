"""`inreach compress`, and `inreach predict` with a threshold or a budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_cases import Run, picture, save
from descriptor_sets import shared_patches

from inreach_fast import InReaCh
from inreach_fast.cli import exit_codes


def test_compress_to_a_share(run: Run, model: Path, training: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "small.inreach"
    result = run("compress", model, "-o", target, "--to", "25%", "--json")
    assert result.code == 0
    record = result.json
    before = len(InReaCh.load(model).nominal_)
    assert record["before"] == record["compression"]["of"] == before
    assert record["compression"]["kept"] == before // 4
    assert record["compression"]["epsilon"] > 0
    assert record["bytes"] == target.stat().st_size < model.stat().st_size
    assert [path.name for path in target.parent.iterdir()] == ["small.inreach"]
    for full, less in zip(run("predict", model, training).lines, run("predict", target, training).lines, strict=True):
        assert full["score"] <= less["score"] <= (full["score"] ** 0.5 + record["compression"]["epsilon"]) ** 2 * 1.0001
        assert full["threshold"] == less["threshold"]
    info = run("info", target, "--json").json
    assert info["compression"] == record["compression"]
    assert "compressed" in run("info", target).out
    assert run("info", model, "--json").json["compression"] is None


def test_compress_by_epsilon_says_what_it_did(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("compress", model, "-o", tmp_path / "a", "--epsilon", "0.05")
    assert result.code == 0
    assert "no distance grown by more than" in result.out
    again = run("compress", model, "-o", tmp_path / "b", "--epsilon", "0.05", "--quiet", "--backend", "torch")
    assert again.code == 0
    kept = [InReaCh.load(tmp_path / name).nominal_.patches for name in "ab"]
    assert np.array_equal(*kept)


def test_a_model_of_all_patches_says_that_scores_change_either_way(run: Run, tmp_path: Path) -> None:
    x = shared_patches(8, 9, 6, seed=1)
    InReaCh(association="all", score="reachability", image_size=9).fit_descriptors(x, (3, 3)).save(tmp_path / "all")
    result = run("compress", tmp_path / "all", "-o", tmp_path / "small", "--to", "50%")
    assert result.code == 0
    assert "no distance changed by more than" in result.out
    assert "distances changed by at most" in run("info", tmp_path / "small").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "required"),
        (("--epsilon", "1", "--to", "3"), "not allowed"),
        (("--epsilon", "-1"), "epsilon"),
        (("--epsilon", "nan"), "epsilon"),
        (("--to", "0"), "--to"),
        (("--to", "1.5"), "--to"),
        (("--to", "200%"), "--to"),
        (("--to", "half"), "--to"),
    ],
    ids=str,
)
def test_compress_wants_one_sensible_target(
    run: Run, model: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = run("compress", model, "-o", tmp_path / "out", *options)
    assert result.code == exit_codes.USAGE
    assert words in result.error
    assert list(tmp_path.iterdir()) == []


def test_compress_of_what_is_no_model(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("compress", tmp_path / "absent", "-o", tmp_path / "out", "--to", "3").code == exit_codes.MODEL
    assert run("compress", model, "-o", tmp_path, "--to", "3").code == exit_codes.OUTPUT


def test_predict_decides_against_a_threshold(run: Run, model: Path, training: Path) -> None:
    plain = run("predict", model, training).lines
    threshold = sorted(line["score"] for line in plain)[5]
    result = run("predict", model, training, "--threshold", threshold)
    assert result.code == 0
    for line, full in zip(result.lines, plain, strict=True):
        assert line["threshold"] == threshold
        assert line["is_anomalous"] == (full["score"] > threshold)
        assert line["certain"]
        assert line["score_lower"] <= full["score"] <= line["score_upper"]
        assert line["score_lower"] <= line["score"] <= line["score_upper"]
    assert f"{sum(line['is_anomalous'] for line in result.lines)} anomalous" in result.err
    code = run("predict", model, training, "--threshold", threshold, "--fail-on-anomaly", "--quiet").code
    assert code == exit_codes.ANOMALY
    assert run("predict", model, training, "--threshold", 1e30, "--fail-on-anomaly").code == 0


def test_predict_within_a_budget(run: Run, model: Path, training: Path) -> None:
    plain = run("predict", model, training).lines
    long = run("predict", model, training, "--budget-ms", 3_600_000).lines
    short = run("predict", model, training, "--budget-ms", 1e-3).lines
    for line, full, little in zip(long, plain, short, strict=True):
        assert line["complete"]
        assert line["score"] == full["score"] == line["score_lower"] == line["score_upper"]
        assert line["is_anomalous"] == full["is_anomalous"]
        assert little["score_lower"] <= full["score"] <= little["score_upper"]
        assert set(line) == set(full) | {"score_lower", "score_upper", "certain", "complete"}


def test_maps_are_whole_where_only_a_verdict_was_asked(run: Run, model: Path, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "0.png", picture(0, defect=True))
    whole = run("predict", model, image, "--maps", tmp_path / "a").lines[0]
    line = run("predict", model, image, "--maps", tmp_path / "b", "--threshold", 1e-6).lines[0]
    assert line["complete"]
    assert line["is_anomalous"]
    assert np.array_equal(np.load(whole["outputs"]["map_npy"]), np.load(line["outputs"]["map_npy"]))


@pytest.mark.parametrize("option", [("--threshold", "nan"), ("--budget-ms", "0"), ("--budget-ms", "-5"),
                                    ("--budget-ms", "nan"), ("--budget-ms", "soon")], ids=str)  # fmt: skip
def test_predict_refuses_limits_that_are_none(run: Run, model: Path, training: Path, option: tuple[str, str]) -> None:
    result = run("predict", model, training, *option)
    assert result.code == exit_codes.USAGE
    assert result.out == ""
    assert option[0].strip("-").split("-")[0] in result.error
