"""The frame around the commands: version, help, interrupts, pipes, internal errors."""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_cases import Run

import inreach_fast
from inreach_fast.cli import exit_codes
from inreach_fast.cli.commands import fit
from inreach_fast.cli.main import build_parser
from inreach_fast.cli.options import PARAMETER_OPTIONS, parameters_of
from inreach_fast.estimator import InReaCh
from inreach_fast.parameters import Parameters


def _commands() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(subparsers.choices)


def _value_is_optional(parser: argparse.ArgumentParser, action: argparse.Action) -> bool:
    """Whether the option takes a value, or is on or off, and may be left out."""
    groups = parser._mutually_exclusive_groups
    required = action.required or any(group.required and action in group._group_actions for group in groups)
    return bool(action.option_strings) and not required and (action.nargs != 0 or "--no-" in str(action.option_strings))


@pytest.mark.parametrize("command", _commands())
def test_every_option_has_a_help_text_that_stands_alone(command: str) -> None:
    parser = _commands()[command]
    assert parser.description
    for action in parser._actions:
        name, words = "/".join(action.option_strings) or action.dest, action.help or ""
        assert re.match(r"[a-z]|CPU |PNG |JSON ", words), f"{command} {name}: {words!r}"
        assert not words.endswith("."), f"{command} {name}: {words!r}"
        optional = _value_is_optional(parser, action)
        assert optional == (re.search(r" \(default: [^)]+\)$", words) is not None), f"{command} {name}: {words!r}"
        if optional and isinstance(action.default, (str, int)) and action.default != argparse.SUPPRESS:
            assert f"(default: {action.default})" in words


def test_help_imports_nothing_slow() -> None:
    slow = ("torch", "scipy", "skimage", "sklearn", "matplotlib", "tqdm", "PIL")
    program = (
        "import sys; from inreach_fast.cli.main import main; main(['--help']); "
        f"sys.exit(', '.join(name for name in {slow} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_version_and_help(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out.strip()) == (0, f"inreach_fast {inreach_fast.__version__}")
    for command in _commands():
        assert run(command, "--help").code == 0
        assert command in run("--help").out


def test_every_parameter_of_the_estimator_has_an_option() -> None:
    assert set(PARAMETER_OPTIONS) == {field.name for field in dataclasses.fields(Parameters)}
    given = [
        "--preset", "paper", "--backbone", "b", "--weights", "random", "--depth", "layer1.0,layer2.1",
        "--device", "cpu", "--neighbourhood", "1", "--dim", "7", "--image-size", "64x96", "--resize", "128",
        "--normalisation", "reference", "--position", "never", "--position-weight", "2",
        "--transpose-threshold", "3", "--align", "auto", "--assoc-depth", "4", "--seed-selection", "first",
        "--seed", "5", "--assoc-pairs", "later", "--no-span-filter", "--no-spread-filter",
        "--min-channel-length", "6", "--max-channel-std", "7", "--score", "patchcore", "--distance", "l2",
        "--smoothing-sigma", "8", "--threshold-images", "9", "--batch-size", "10", "--backend", "torch",
    ]  # fmt: skip
    args = build_parser().parse_args(["fit", "folder", "-o", "m", *given])
    assert parameters_of(args) == {
        "preset": "paper", "backbone": "b", "weights": "random", "depth": ("layer1.0", "layer2.1"),
        "device": "cpu", "neighbourhood": 1, "dim": 7, "image_size": (64, 96), "resize": 128,
        "normalisation": "reference", "position": "never", "position_weight": 2.0,
        "transpose_threshold": 3.0, "align": "auto", "assoc_depth": 4, "seed_selection": "first",
        "random_state": 5, "assoc_pairs": "later", "span_filter": False, "spread_filter": False,
        "min_channel_length": 6, "max_channel_std": 7.0, "score": "patchcore", "distance": "l2",
        "smoothing_sigma": 8.0, "threshold_images": 9, "batch_size": 10, "backend": "torch",
    }  # fmt: skip


def test_what_is_not_given_is_left_to_the_preset() -> None:
    assert parameters_of(build_parser().parse_args(["fit", "folder", "-o", "m"])) == {}


def test_backends(run: Run) -> None:
    record = run("backends", "--json").json
    assert record["backends"] == list(inreach_fast.kernels.available_backends())
    assert record["backends"][0] in run("backends").out
    if "native" in record["backends"]:
        assert record["native"]["isa"] in record["native"]["isas"]
        assert record["native"]["threads"] >= 1


def test_interrupt(run: Run, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "fit_folder", interrupted)
    result = run("fit", training, "-o", tmp_path / "m")
    assert result.code == exit_codes.INTERRUPTED
    assert "interrupted" in result.error
    assert list(tmp_path.iterdir()) == []


def test_internal_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("a bug\nin two lines")

    monkeypatch.setattr(InReaCh, "load", broken)
    result = run("info", tmp_path / "m")
    assert result.code == exit_codes.INTERNAL
    assert "ZeroDivisionError: a bug in two lines" in result.error
    assert "Traceback" in run("info", tmp_path / "m", "--debug").err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_broken_pipe(model: Path, training: Path) -> None:
    command = [sys.executable, "-m", "inreach_fast.cli", "predict", str(model), str(training)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert process.returncode == exit_codes.BROKEN_PIPE, err
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err
