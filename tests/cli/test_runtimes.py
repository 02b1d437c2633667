"""The runtime of the network on the command line: listed, named, compared; and the cache of exported networks."""

from __future__ import annotations

from pathlib import Path

import fake_runtime
import pytest
from cli_cases import FAST, Run, picture, save


def test_runtimes_are_listed_and_the_cache_is_emptied(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INREACH_NETWORK_CACHE", "overwritten by the option")
    folder = tmp_path / "cache"
    entry = folder / ("0" * 64)
    entry.mkdir(parents=True)
    (entry / "network.xml").write_bytes(b"x" * 1000)
    (folder / "mine.txt").write_text("stays")
    told = run("runtimes", "--json", "--network-cache", folder).json
    assert list(told["runtimes"]) == ["openvino", "onnxruntime", "torch", "torch-unfolded"]
    assert told["runtimes"]["torch"]
    assert told["cache"] == {"folder": str(folder), "networks": 1, "bytes": 1000}
    assert told["removed"] == {"networks": 0, "bytes": 0}
    text = run("runtimes", "--empty-cache", "--network-cache", folder).out
    assert "removed: 1 networks, 0.0 MB" in text
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_prediction_by_another_runtime_names_it(run: Run, model: Path, training: Path) -> None:
    image = training / "5.png"
    (own,) = run("predict", model, image).lines
    (other,) = run("predict", model, image, "--backbone-runtime", "torch-unfolded").lines
    assert "runtime" not in own
    assert other["runtime"] == "torch-unfolded"
    assert other["score"] == pytest.approx(own["score"], rel=1e-3)
    failed = run("predict", model, image, "--backbone-runtime", "tensorrt")
    assert failed.code == 2


def test_info_names_the_runtime_and_compares_another(run: Run, model: Path, tmp_path: Path) -> None:
    import torch

    assert run("info", model, "--json").json["runtime"] == {"name": "torch", "version": str(torch.__version__)}
    assert f"torch {torch.__version__}" in run("info", model).out
    for number in range(3):
        save(tmp_path / "good" / f"{number}.png", picture(20 + number))
        save(tmp_path / "scratch" / f"{number}.png", picture(30 + number, defect=True))
    found = run("info", model, "--compare", "torch-unfolded", "--images", tmp_path, "--json").json["compared"]
    assert (found["runtime"], found["own_runtime"], found["images"]) == ("torch-unfolded", "torch", 6)
    assert 0 < found["largest_feature_change"] < 1e-5
    assert found["auroc"] == found["own_auroc"]
    text = run("info", model, "--compare", "torch-unfolded", "--images", tmp_path / "good").out
    assert "largest_feature_change" in text
    assert run("info", model, "--compare", "torch-unfolded").code == 2
    assert "give both" in run("info", model, "--images", tmp_path).error


def test_a_fit_says_what_computed_the_network(
    run: Run, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_runtime.use(monkeypatch, tmp_path / "cache")
    monkeypatch.delenv("INREACH_BACKBONE_RUNTIME")
    result = run("fit", training, "-o", tmp_path / "m", *FAST)
    assert "backbone efficientnet_lite2 by openvino, 8 images" in result.out
    assert "inreach: backbone_runtime: openvino" in result.err
    json = run("fit", training, "-o", tmp_path / "m", *FAST, "--backbone-runtime", "torch", "--json").json
    assert json["runtime"] == "torch"
