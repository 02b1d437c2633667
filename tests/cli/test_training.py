"""plan, fit with a spool, add and forget, as a user and a script see them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cli_cases import FAST, Run, picture, save

from inreach_fast import InReaCh
from inreach_fast.cli import exit_codes


def test_plan_says_what_a_fit_takes_and_writes_nothing(run: Run, training: Path) -> None:
    before = sorted(training.iterdir())
    result = run("plan", training, *FAST, "--memory-limit", "1GB", "--json")
    assert result.code == 0
    record = result.json
    assert record["images"] == 8
    assert record["memory"]["limit"] == 10**9
    assert record["memory"]["peak"] > 0
    assert record["disk"]["model"] > 0
    assert record["total_seconds"] > 0
    words = run("plan", training, *FAST).out
    for word in ("images", "memory", "disk", "time"):
        assert word in words
    result = run("plan", training, *FAST, "--memory-limit", "1kB")
    assert result.code == exit_codes.USAGE
    assert "too little" in result.error
    assert sorted(training.iterdir()) == before


def test_plan_knows_workers_and_adding(run: Run, training: Path, tmp_path: Path) -> None:
    record = run("plan", training, *FAST, "--workers", "2", "--json").json
    assert record["workers"] == 2
    assert record["memory"]["worker"] > 0
    model, more = tmp_path / "m", tmp_path / "more"
    assert run("fit", training, "-o", model, *FAST).code == 0
    for number in (8, 9):
        save(more / f"{number}.png", picture(number))
    before = model.read_bytes()
    record = run("plan", more, "--add", model, "--json").json
    assert record["images"] == 10
    assert record["measured_images"] == 2
    assert model.read_bytes() == before
    assert run("add", model, more).code == 0
    assert abs(record["disk"]["model"] / model.stat().st_size - 1) < 0.2
    result = run("plan", more, "--add", model, "--dim", "64")
    assert result.code == exit_codes.USAGE
    assert "dim: with --add they are the model's" in result.error


def test_fit_says_what_the_file_holds(run: Run, training: Path, tmp_path: Path) -> None:
    assert run("fit", training, "-o", tmp_path / "final", *FAST, "--final", "--json").json["growth_bytes"] == 0
    words = run("fit", training, "-o", tmp_path / "whole", *FAST).out
    found = re.search(r"([0-9.]+) MB of the file, the training images .*; --final leaves them out", words)
    assert found
    left_out = (tmp_path / "whole").stat().st_size - (tmp_path / "final").stat().st_size
    assert abs(1e6 * float(found[1]) - left_out) < 60_000  # a digit, and the header's entries
    words = run("forget", tmp_path / "whole", "--refit", "7.png", "--final").out
    assert "the file holds no training images" in words


@pytest.fixture
def grown(run: Run, training: Path, tmp_path: Path) -> Path:
    """Two more images."""
    for number in (8, 9):
        save(tmp_path / "more" / f"{number}.png", picture(number))
    return tmp_path / "more"


def test_add_and_forget_rewrite_the_model(run: Run, model: Path, grown: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(model, tmp_path / "mine"))
    (grown / "bad.png").write_bytes(b"no image")
    assert run("add", mine, grown).code == exit_codes.DATA
    assert mine.read_bytes() == model.read_bytes()
    result = run("add", mine, grown, "--skip-bad", "-o", tmp_path / "new", "--json")
    assert result.code == 0
    assert "bad.png" in result.err
    assert result.json["images"] == 10
    assert mine.read_bytes() == model.read_bytes()
    (grown / "bad.png").unlink()
    assert "2 images added; the model has 10 images" in run("add", mine, grown).out
    seeds = InReaCh.load(mine).seed_images_.tolist()
    other = next(i for i in range(8) if i not in seeds)
    result = run("forget", mine, "8.png", other, "9.png")
    assert "3 images forgotten; the model has 7 images" in result.out
    assert len(list(tmp_path.glob("*"))) == 3  # mine, new, more: no temporary file is left
    assert run("forget", mine, other, "-o", tmp_path / "final", "--final").code == 0
    assert not InReaCh.load(tmp_path / "final").can_grow
    assert InReaCh.load(mine).can_grow


def test_what_cannot_be_added_or_forgotten(run: Run, model: Path, training: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(model, tmp_path / "mine"))
    seed = InReaCh.load(mine).seed_images_[0]
    result = run("forget", mine, f"{seed}.png")
    assert result.code == exit_codes.MODEL
    assert "seed image" in result.error
    result = run("forget", mine, "absent.png")
    assert result.code == exit_codes.USAGE
    assert "inreach info --json" in result.error
    assert mine.read_bytes() == model.read_bytes()
    assert run("forget", mine, f"{seed}.png", "--refit").code == 0
    assert run("fit", training, "-o", tmp_path / "final", "--final", *FAST).code == 0
    assert (tmp_path / "final").stat().st_size < model.stat().st_size
    result = run("add", tmp_path / "final", training)
    assert result.code == exit_codes.MODEL
    assert "final=True" in result.error


def test_an_interrupted_fit_is_resumed(
    run: Run, model: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inreach_fast.storage.members import MemberStore

    append = MemberStore.append

    def interrupted(store: MemberStore, found: object) -> None:
        if store.done == 4:
            raise KeyboardInterrupt
        append(store, found)  # type: ignore[arg-type]

    monkeypatch.setattr(MemberStore, "append", interrupted)
    result = run("fit", training, "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.INTERRUPTED
    assert f"kept in {tmp_path / 'm.spool'}" in result.err
    monkeypatch.undo()
    result = run("fit", training, "-o", tmp_path / "m", *FAST)
    assert result.code == exit_codes.OUTPUT
    assert "--resume" in result.error
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--depth", 2, "--resume")
    assert result.code == exit_codes.OUTPUT
    assert "depth" in result.error
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--resume")
    assert result.code == 0
    assert "unfinished" not in result.err
    assert (tmp_path / "m").read_bytes() == model.read_bytes()
    assert not (tmp_path / "m.spool").exists()
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--resume")
    assert result.code == 0
    assert f"{tmp_path / 'm.spool'}: no unfinished fit" in result.err
    assert (tmp_path / "m").read_bytes() == model.read_bytes()


def test_memory_limits_and_spools_that_are_none(run: Run, training: Path, tmp_path: Path) -> None:
    assert run("fit", training, "-o", tmp_path / "m", *FAST, "--memory-limit", "much").code == exit_codes.USAGE
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--memory-limit", "1kB")
    assert result.code == exit_codes.USAGE
    assert "too little" in result.error
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--spool", training)
    assert result.code == exit_codes.OUTPUT
    assert "is not a spool" in result.error
    assert list(tmp_path.iterdir()) == []
    result = run("fit", training, "-o", tmp_path / "m", *FAST, "--spool", tmp_path / "s", "--memory-limit", "1MB")
    assert result.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
