"""Each bad input: its exit code, one sentence that names the file, nothing half-written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_cases import FAST, Run, picture, save

from inreach_fast.cli import exit_codes


def test_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("fit", tmp_path / "empty", "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.DATA
    assert str(tmp_path / "empty") in result.error
    assert not (tmp_path / "m").exists()


def test_absent_folder(run: Run, tmp_path: Path) -> None:
    result = run("fit", tmp_path / "absent", "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.DATA
    assert "does not exist" in result.error


def test_one_image(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "one" / "0.png", picture(0))
    result = run("fit", tmp_path / "one", "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.DATA
    assert "at least 2" in result.error


def test_identical_images(run: Run, tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "same" / f"{number}.png", picture(0))
    result = run("fit", tmp_path / "same", "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.DATA
    assert "identical" in result.error


def test_no_living_channel(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--min-channel-length", 100)
    assert result.code == exit_codes.DATA
    assert not (tmp_path / "m").exists()


def test_truncated_training_image(run: Run, training: Path, truncated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(training, folder)
    shutil.copy(truncated, folder / "cut.png")
    result = run("fit", folder, "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.DATA
    assert str(folder / "cut.png") in result.error
    result = run("fit", folder, "-o", tmp_path / "m", *FAST, "--skip-bad", "--json")
    assert result.code == exit_codes.SUCCESS
    assert (result.json["images"], result.json["skipped"]) == (8, 1)
    assert str(folder / "cut.png") in result.err


def test_truncated_image_to_inspect(run: Run, model: Path, training: Path, truncated: Path) -> None:
    result = run("predict", model, truncated, training / "5.png")
    assert result.code == exit_codes.DATA
    assert str(truncated) in result.error
    result = run("predict", model, truncated, training / "5.png", "--skip-bad")
    assert result.code == exit_codes.SUCCESS
    assert set(result.lines[0]) == {"file", "error"}
    assert result.lines[1]["score"] >= 0
    assert "1 passed over" in result.err
    assert run("predict", model, truncated, "--skip-bad").code == exit_codes.DATA


def test_absent_image(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("predict", model, tmp_path / "absent.png")
    assert result.code == exit_codes.DATA
    assert "absent.png" in result.error


def test_mixed_sizes_are_no_error(run: Run, training: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(training, folder)
    save(folder / "large.png", picture(9, (80, 130)))
    assert run("fit", folder, "-o", tmp_path / "m", *FAST).code == 0


@pytest.mark.parametrize("command", ["predict", "info"])
@pytest.mark.parametrize("damage", ["cut", "altered", "newer", "text", "empty", "absent", "folder"])
def test_damaged_model(run: Run, model: Path, training: Path, tmp_path: Path, damage: str, command: str) -> None:
    data = bytearray(model.read_bytes())
    path = tmp_path / "m.inreach"
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "altered":
        data[-5] ^= 1
        path.write_bytes(data)
    elif damage == "newer":
        data[8] += 1
        path.write_bytes(data)
    elif damage == "text":
        path.write_text("not a model\n" * 50)
    elif damage == "empty":
        path.touch()
    elif damage == "folder":
        path.mkdir()
    result = run(command, path, *([training / "0.png"] if command == "predict" else []))
    assert result.code == exit_codes.MODEL
    assert str(path) in result.error
    assert result.out == ""


def test_unwritable_output(run: Run, training: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "m", tmp_path):
        result = run("fit", training, "-o", target, *FAST)
        assert result.code == exit_codes.OUTPUT
        assert str(target) in result.error
    result = run("predict", model, training, "--maps", tmp_path / "file")
    assert result.code == exit_codes.OUTPUT
    assert result.out == ""


def test_a_failed_fit_leaves_the_older_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("older")
    save(tmp_path / "one" / "0.png", picture(0))
    assert run("fit", tmp_path / "one", "-o", tmp_path / "m", *FAST).code == exit_codes.DATA
    assert (tmp_path / "m").read_text() == "older"


def test_wrong_parameters(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", "--neighbourhood", 2)
    assert result.code == exit_codes.USAGE
    assert "neighbourhood" in result.error
    assert run("fit", training, "-o", tmp_path / "m", "--threads", 0).code == exit_codes.USAGE
    assert run("fit", training).code == exit_codes.USAGE
    assert run("nonsense").code == exit_codes.USAGE
    assert run().code == exit_codes.USAGE
    assert "--image-size" in run("fit", training, "-o", "m", "--image-size", "12y3").error


def test_unknown_backbone_and_weights(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", "--backbone", "no_such_net")
    assert result.code == exit_codes.USAGE
    assert "no_such_net" in result.error
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--weights", tmp_path / "absent.pth")
    assert result.code == exit_codes.BACKEND
    assert "absent.pth" in result.error


def test_unknown_backend(run: Run, training: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--backend", "abacus")
    assert result.code == exit_codes.BACKEND
    assert "abacus" in result.error


def test_another_backbone(run: Run, training: Path, tmp_path: Path) -> None:
    """The user's own factory, changed after the fit: the model must refuse it."""
    factory = tmp_path / "net.py"
    source = (
        "import torch\n"
        "from inreach_fast.backbones import BackboneDefinition, Normalisation\n"
        "def build():\n"
        "    torch.manual_seed({seed})\n"
        "    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU())\n"
        "    return BackboneDefinition(module=net, levels=('1',), name='net',\n"
        "        normalisation=Normalisation((0.5,) * 3, (0.5,) * 3))\n"
    )
    factory.write_text(source.format(seed=0))
    options = ("--dim", 8, "--image-size", 48, "--min-channel-length", 1, "--assoc-depth", 3)
    result = run("fit", training, "-o", tmp_path / "m", "--backbone", f"{factory}:build", *options)
    assert result.code == 0, result.err
    assert run("predict", tmp_path / "m", training / "0.png").code == 0
    factory.write_text(source.format(seed=1))
    result = run("predict", tmp_path / "m", training / "0.png")
    assert result.code == exit_codes.MODEL
    assert "fit again" in result.error


def test_what_a_folder_passes_over_is_said(run: Run, training: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(training, folder)
    (folder / "notes.txt").touch()
    (folder / "sub").mkdir()
    (folder / "._0.png").touch()
    os.mkfifo(folder / "fifo.png")
    words = f"{folder}: passed over: 1 file with other suffixes (.txt), 1 sub-folder"
    for command in (
        ["fit", folder, "-o", tmp_path / "m", *FAST],
        ["plan", folder, *FAST],
        ["audit", folder, *FAST],
        ["predict", model, folder],
    ):
        result = run(*command)
        assert result.code == 0, result.err
        assert words in result.err
        assert "1 entry that are no files" in result.err
        assert "1 hidden" in result.err
    assert words not in run("predict", model, folder, "--quiet").err


def test_12_bits_in_16(run: Run, tmp_path: Path) -> None:
    deep, eight = tmp_path / "deep", tmp_path / "eight"
    for number in range(6):
        values = np.clip(picture(number, defect=number == 5)[:, :, 0].astype(np.uint16) * 16 + number, 0, 4095)
        save(deep / f"{number}.png", values.astype(np.uint16))
        save(eight / f"{number}.png", np.rint(values * (255 / 4095)).astype(np.uint8))
    result = run("fit", deep, "-o", tmp_path / "m", *FAST)
    assert result.err.count("give bit_depth=12 (--bit-depth 12)") == 1
    assert "Warning" not in result.err
    result = run("fit", deep, "-o", tmp_path / "m", *FAST, "--bit-depth", 12)
    assert "bit_depth=12" not in result.err
    expected = run("fit", eight, "-o", tmp_path / "e", *FAST, "--json").json["threshold"]
    assert run("info", tmp_path / "m", "--json").json["threshold"] == expected
    scores = [[row["score"] for row in run("predict", tmp_path / name, folder).lines]
              for name, folder in (("m", deep), ("e", eight), ("m", eight))]  # fmt: skip
    assert scores[0] == scores[1] == scores[2]
    assert run("fit", deep, "-o", tmp_path / "m", *FAST, "--bit-depth", 11).code == exit_codes.USAGE
    result = run("fit", deep, "-o", tmp_path / "m", *FAST, "--bit-depth", 8)
    assert (result.code, "do not fit 8 bits" in result.error) == (exit_codes.DATA, True)


def test_the_pixel_limit(run: Run, training: Path, model: Path, tmp_path: Path) -> None:
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--max-pixels", 2000)
    assert result.code == exit_codes.DATA
    assert "48x48 is 2,304 pixels, more than max_pixels=2,000" in result.error
    result = run("predict", model, training / "0.png", "--max-pixels", 2000, "--skip-bad")
    assert (result.code, "max_pixels" in result.lines[0]["error"]) == (exit_codes.DATA, True)
    assert run("predict", model, training / "0.png", "--max-pixels", 2304).code == 0
