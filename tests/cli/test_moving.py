"""Images moved out of a training folder: those above the threshold, or those of a manifest; nothing is overwritten."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_cases import DEFAULT, Run, picture, save

from inreach_fast.cli import exit_codes, moving
from inreach_fast.errors import DataError, ParameterError, SaveError


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(training: Path, tmp_path: Path) -> Path:
    """A copy of the training images that a test may take apart."""
    shutil.copytree(training, tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    for name in ("a/1.png", "b/1.png", "2.png"):
        save(tmp_path / "nested" / name, picture(len(name)))
    return tmp_path / "nested"


def test_an_audit_moves_the_images_above_the_threshold(run: Run, folder: Path, tmp_path: Path) -> None:
    before = content(folder)
    result = run("audit", folder, *DEFAULT, "--move-to", tmp_path / "bad", "--report", tmp_path / "r.html", "--json")
    assert result.code == 0, result.err
    above = sorted(Path(row["file"]).name for row in result.json["ranking"] if row["is_anomalous"])
    assert "5.png" in above
    assert content(tmp_path / "bad") == {name: before[name] for name in above}
    assert content(folder) == {name: data for name, data in before.items() if name not in above}
    assert result.json["moved"] == [
        {"from": str(folder / Path(row["file"]).name), "to": str(tmp_path / "bad" / Path(row["file"]).name)}
        for row in result.json["ranking"]
        if row["is_anomalous"]
    ]
    # A second defect of the same name: it does not replace the first.
    save(folder / "5.png", picture(40, defect=True))
    again = run("audit", folder, *DEFAULT, "--move-to", tmp_path / "bad", "--csv", tmp_path / "r.csv")
    assert again.code == exit_codes.USAGE
    assert f"{tmp_path / 'bad' / '5.png'}: is there already, and nothing was moved" in again.error
    assert (folder / "5.png").exists()
    assert (tmp_path / "bad" / "5.png").read_bytes() == before["5.png"]
    assert (tmp_path / "r.csv").exists()


def test_a_manifest_is_moved_without_a_fit(run: Run, folder: Path, tmp_path: Path) -> None:
    before, manifest = content(folder), tmp_path / "manifest.csv"
    manifest.write_text('file,score\n"3.png",2\n"7.png",1.5\n')
    result = run(
        "audit", folder, "--manifest", manifest, "--move-to", tmp_path / "bad", "--backbone", "no such network"
    )
    assert result.code == 0, result.err
    assert result.out.splitlines() == [
        f"moved: {folder / '3.png'} -> {tmp_path / 'bad' / '3.png'}",
        f"moved: {folder / '7.png'} -> {tmp_path / 'bad' / '7.png'}",
        f"2 images moved to {tmp_path / 'bad'}",
    ]
    assert content(tmp_path / "bad") == {name: before[name] for name in ("3.png", "7.png")}
    manifest.write_text(json.dumps({"folder": "x", "files": [{"file": "0.png", "score": 3}]}))
    result = run("audit", folder, "--manifest", manifest, "--move-to", tmp_path / "bad", "--json")
    assert result.json["moved"] == [{"from": str(folder / "0.png"), "to": str(tmp_path / "bad" / "0.png")}]


def test_images_keep_their_places_below_the_folder(run: Run, nested: Path, tmp_path: Path) -> None:
    before, manifest = content(nested), tmp_path / "m.json"
    manifest.write_text(json.dumps(["b/1.png", str(nested / "2.png")]))
    result = run("audit", nested, "--recursive", "--manifest", manifest, "--move-to", tmp_path / "bad")
    assert result.code == 0, result.err
    assert content(tmp_path / "bad") == {name: before[name] for name in ("b/1.png", "2.png")}
    assert content(nested) == {"a/1.png": before["a/1.png"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file\n../secret.png\n", "is no image of"),
        ("file\n/etc/passwd\n", "is no image of"),
        ("file\n9.png\n", "is no image of"),
        ("file\n", "names no image"),
        ("name\n1.png\n", "is no manifest"),
        ("a,file\nb\n", "is no manifest"),
        ("{", "is no manifest"),
        ('{"files": 3}', "is no manifest"),
        ('[{"file": 3}]', "is no manifest"),
        ("[" * 100_000, "is no manifest"),
        ("", "is no manifest"),
        ("\x00\x01", "is no manifest"),
    ],
)
def test_a_manifest_that_is_none_moves_nothing(run: Run, folder: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "secret.png").write_bytes((folder / "1.png").read_bytes())
    before = content(tmp_path)
    manifest = tmp_path / "manifest"
    manifest.write_text(text)
    result = run("audit", folder, "--manifest", manifest, "--move-to", tmp_path / "bad")
    assert result.code == exit_codes.DATA
    assert words in result.error
    manifest.unlink()
    assert content(tmp_path) == before


def test_options_that_contradict_each_other(run: Run, folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("file\n" + "".join(f"{i}.png\n" for i in range(8)))
    base = ("audit", folder, "--manifest", manifest)
    target = ("--move-to", tmp_path / "bad")
    for options, words in (
        ((), "--move-to"),
        ((*target, "--report", tmp_path / "r.html"), "--report: with --manifest"),
        (target, "lists all images"),
        (("--move-to", folder), "is in"),
        (("--recursive", "--move-to", folder / "bad"), "is in"),
    ):
        result = run(*base, *options)
        assert result.code == exit_codes.USAGE, result.err
        assert words in result.error
    assert run("audit", folder, *DEFAULT, "--move-to", folder).code == exit_codes.USAGE
    (tmp_path / "file").write_text("")
    assert run("audit", folder, *DEFAULT, "--move-to", tmp_path / "file").code == exit_codes.OUTPUT
    missing = run("audit", folder, "--manifest", tmp_path / "none.csv", *target)
    assert missing.code == exit_codes.DATA
    assert str(tmp_path / "none.csv") in missing.error
    assert len(content(folder)) == 8


def test_names_of_any_characters_are_found_again(tmp_path: Path) -> None:
    names = ["a\nb.png", "\udcff.png", "<x>.png", 'q"u,o.png', "=1+1.png"]
    images = [tmp_path / name for name in names]
    shown = [moving.printable(name) for name in names]
    assert moving.chosen_images(tmp_path / "m", shown, tmp_path, images) == images
    with pytest.raises(DataError, match="could be several"):
        moving.chosen_images(tmp_path / "m", [r"a\x0ab.png"], tmp_path, [tmp_path / r"a\x0ab.png", *images])


@pytest.mark.parametrize("linked", [True, False])
def test_a_move_replaces_nothing_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    images = [save(tmp_path / "a" / f"{i}.png", picture(i)) for i in range(3)]
    before = content(tmp_path / "a")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not linked:
        monkeypatch.setattr(moving.os, "link", refuse)
    moves = moving.check_move(images, tmp_path / "a", tmp_path / "b")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(b"somebody was faster")
    with pytest.raises(SaveError, match=r"1 of 3 images were moved"):
        moving.move_images(moves)
    assert content(tmp_path / "b") == {"0.png": before["0.png"], "1.png": b"somebody was faster"}
    assert content(tmp_path / "a") == {name: before[name] for name in ("1.png", "2.png")}
    with pytest.raises(ParameterError, match="is there already"):
        moving.check_move(images[1:], tmp_path / "a", tmp_path / "b")


def test_a_disk_that_is_full_leaves_the_image_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save(tmp_path / "a" / "0.png", picture(0))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(moving.os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EXDEV, "x")))
    monkeypatch.setattr(moving.shutil, "copyfileobj", full)
    with pytest.raises(SaveError, match="0 of 1"):
        moving.move_images([(image, tmp_path / "b" / "0.png")])
    assert image.exists()
    assert list((tmp_path / "b").iterdir()) == []
