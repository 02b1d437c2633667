"""fit, predict and info, as a user and a script see them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_cases import FAST, Run, picture, save
from PIL import Image

from inreach_fast import InReaCh
from inreach_fast.cli import exit_codes


def test_fit_reports_and_saves(run: Run, training: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "m.inreach"
    result = run("fit", training, "-o", target, *FAST, "--json")
    assert result.code == 0
    record = result.json
    assert target.stat().st_size == record["bytes"]
    assert record["images"] == 8
    assert record["skipped"] == 0
    assert record["backbone"] == "efficientnet_lite2"
    assert record["threshold"] > 0
    assert 0 < record["nominal_patches"] <= 8 * record["grid"][0] * record["grid"][1]
    assert record["parameters"]["assoc_depth"] == 3
    assert "associate" in record["report"]["seconds"]
    assert [path.name for path in target.parent.iterdir()] == ["m.inreach"]


def test_fit_says_what_it_did_and_quiet_does_not(run: Run, training: Path, tmp_path: Path) -> None:
    loud = run("fit", training, "-o", tmp_path / "a", *FAST)
    assert "nominal patches" in loud.out
    quiet = run("fit", training, "-o", tmp_path / "b", *FAST, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_progress_only_on_stderr(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--json", "--progress")
    assert "describe" in result.err
    assert json.loads(result.out)["images"] == 8
    assert run("fit", training, "-o", tmp_path / "m", *FAST, "--json").err == ""


def test_predict_lines(run: Run, model: Path, training: Path) -> None:
    result = run("predict", model, training)
    assert result.code == 0
    assert len(result.lines) == 8
    for line in result.lines:
        assert set(line) == {"file", "score", "threshold", "is_anomalous", "seconds"}
        assert line["is_anomalous"] == (line["score"] > line["threshold"])
    assert [Path(line["file"]).name for line in result.lines] == [f"{i}.png" for i in range(8)]
    assert "8 inspected" in result.err


def test_predict_takes_what_the_model_cannot_know(run: Run, model: Path, training: Path) -> None:
    image = training / "0.png"
    plain = run("predict", model, image).lines[0]["score"]
    same = ("--backbone", "efficientnet_lite2", "--weights", "random", "--device", "cpu", "--backend", "torch")
    assert run("predict", model, image, *same).lines[0]["score"] == plain
    assert run("predict", model, image, "--weights", "absent.pth").code == exit_codes.BACKEND
    assert run("predict", model, image, "--backend", "absent").code == exit_codes.BACKEND


def test_predict_fail_on_anomaly(run: Run, model: Path, tmp_path: Path) -> None:
    bad = save(tmp_path / "bad.png", np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8))
    assert run("predict", model, bad).code == 0
    result = run("predict", model, bad, "--fail-on-anomaly", "--quiet")
    assert result.lines[0]["is_anomalous"]
    assert (result.code, result.err) == (10, "")


def test_maps_have_the_frame_of_the_input(run: Run, model: Path, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "wide.png", picture(3, (40, 90)))
    result = run(
        "predict", model, image, "--maps", tmp_path / "maps", "--map-format", "npy,tiff",
        "--overlays", tmp_path / "pictures",
    )  # fmt: skip
    outputs = result.lines[0]["outputs"]
    array = np.load(outputs["map_npy"])
    assert (array.shape, array.dtype) == ((40, 90), np.float32)
    assert np.array_equal(np.asarray(Image.open(outputs["map_tiff"])), array)
    # Bilinear resampling cannot exceed the maximum, which is the score.
    assert array.max() <= result.lines[0]["score"] * 1.0001
    with Image.open(outputs["overlay"]) as shown:
        assert shown.format == "PNG"
        assert shown.width > 2 * 90
    assert not list(tmp_path.rglob("*.part"))


def test_equal_names_in_several_folders_do_not_collide(run: Run, model: Path, tmp_path: Path) -> None:
    inputs = [
        save(tmp_path / "in" / "a" / "0.png", picture(0)),
        save(tmp_path / "in" / "b" / "0.png", picture(1)),
        save(tmp_path / "in" / "b" / "0.bmp", picture(2)),
    ]
    result = run("predict", model, *inputs, "--maps", tmp_path / "maps")
    files = [line["outputs"]["map_npy"] for line in result.lines]
    assert len(set(files)) == 3
    assert all(Path(file).is_file() for file in files)


def test_a_file_named_twice_is_inspected_once(run: Run, model: Path, training: Path) -> None:
    assert len(run("predict", model, training, training / "3.png").lines) == 8


def test_sub_folders_on_request(run: Run, model: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "0.png", picture(0))
    save(tmp_path / "in" / "deep" / "1.png", picture(1))
    assert len(run("predict", model, tmp_path / "in").lines) == 1
    assert len(run("predict", model, tmp_path / "in", "--recursive").lines) == 2


def test_outputs_never_overwrite_inputs(run: Run, model: Path, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "0.png", picture(0))
    before = image.read_bytes()
    result = run("predict", model, image, "--overlays", tmp_path / "in")
    assert result.code == 2
    assert "overwrite an input" in result.error
    assert image.read_bytes() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_scores(run: Run, model: Path, training: Path, threads: int) -> None:
    import torch

    from inreach_fast import get_num_threads, set_num_threads

    before, torch_before = get_num_threads(), torch.get_num_threads()
    try:
        scores = [line["score"] for line in run("predict", model, training, "--threads", threads).lines]
        assert get_num_threads() == threads
    finally:
        set_num_threads(before)
        torch.set_num_threads(torch_before)
    assert scores == pytest.approx([line["score"] for line in run("predict", model, training).lines], rel=1e-4)


def test_info(run: Run, model: Path) -> None:
    result = run("info", model, "--json")
    record = result.json
    assert result.code == 0
    assert record["backbone"]["name"] == "efficientnet_lite2"
    assert len(record["backbone"]["fingerprint"]) == 64
    assert record["images"] == 8
    assert record["parameters"]["min_channel_length"] == 1
    assert record["image_names"] == InReaCh.load(model).image_names_
    assert record["seed_images"] == InReaCh.load(model).seed_images_.tolist()
    assert record["can_grow"] is True
    words = run("info", model).out
    assert "can grow    yes, and holds the training images" in words
    for word in ("efficientnet_lite2", "threshold", "assoc_depth", "nominal"):
        assert word in words


def test_a_region_and_tiles(run: Run, training: Path, tmp_path: Path) -> None:
    """Maps and overlays are in the image's frame, and empty outside of the region."""
    mask = np.zeros((48, 48, 3), np.uint8)
    mask[:, :24] = 255
    region = save(tmp_path / "mask.png", mask)
    path = tmp_path / "m.inreach"
    tiles = ("--tile", "1x2", "--tile-overlap", "16", "--roi", region)
    fitted = run("fit", training, "-o", path, "--json", *FAST, *tiles).json
    assert fitted["parameters"]["tile"] == [1, 2]
    assert fitted["parameters"]["roi"].startswith("mask:48x48:")
    assert fitted["grid"][1] > fitted["grid"][0]
    line = run("predict", path, training / "0.png", "--maps", tmp_path / "maps", "--overlays", tmp_path / "seen").lines[
        0
    ]
    values = np.load(line["outputs"]["map_npy"])
    assert values.shape == (48, 48)
    assert np.isfinite(values[:, :20]).all()
    assert np.isnan(values[:, 28:]).all()
    assert Path(line["outputs"]["overlay"]).is_file()
    assert len(run("info", path).out) < 10_000
    plan = run("plan", training, "--json", *FAST, *tiles).json
    assert plan["patches"] < fitted["grid"][0] * fitted["grid"][1]
    ranked = run("audit", training, "--json", *FAST, *tiles, "--overlays", tmp_path / "audit", "--sort", "rejected")
    assert ranked.code == 0, ranked.err
    assert ranked.json["ranking"][0]["patches"] == plan["patches"]
    polygon = run("fit", training, "-o", path, "--json", *FAST, "--roi", "0,0;0.5,0;0.5,1;0,1").json
    assert polygon["parameters"]["roi"].startswith("polygon:")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--roi", "nowhere.png"), exit_codes.DATA, "nowhere.png: no such file"),
        (("--roi", "0,0;3,0;3,3"), exit_codes.DATA, "roi: a polygon's x and y are shares"),
        (("--tile", "0"), exit_codes.USAGE, "'0' is no number of tiles"),
        (("--tile", "2", "--tile-overlap", "30"), exit_codes.USAGE, "tile_overlap: expected at most half"),
    ],
)
def test_no_region_and_no_tiles(
    run: Run, training: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    result = run("fit", training, "-o", tmp_path / "m", *FAST, *options)
    assert result.code == code
    assert message in result.error
