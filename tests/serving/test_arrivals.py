"""What arrives in a folder: files are complete once they stop changing, and nothing else is taken."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from inreach_fast.errors import DataError
from inreach_fast.serving import arrivals as module
from inreach_fast.serving.arrivals import Arrivals, arrival_at, key_of


def write(folder: Path, name: str, content: bytes = b"x", modified: int = 1_000_000_000) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    os.utime(folder / name, ns=(modified, modified))


def names(arrivals: Arrivals, now: float, taken: Any = (), most: int = 10) -> list[str]:
    return [arrival.name for arrival in arrivals.look(now, taken, most).complete]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="inreach_fast.line")
    return lambda: [json.loads(record.getMessage()) for record in caplog.records]


def test_a_file_is_complete_when_two_looks_agree(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, settle=1.0)
    write(tmp_path, "a.png")
    assert names(arrivals, 0.0) == []
    assert names(arrivals, 0.9) == []
    assert names(arrivals, 1.0) == ["a.png"]
    assert names(arrivals, 1.1) == ["a.png"]  # until it is taken


def test_without_a_time_to_settle_there_are_still_two_looks(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, settle=0.0)
    write(tmp_path, "a.png")
    assert names(arrivals, 0.0) == []
    assert names(arrivals, 0.01) == ["a.png"]


@pytest.mark.parametrize(
    "change", [{"content": b"xy"}, {"modified": 2_000_000_000}, {"content": b"xy", "modified": 500_000_000}]
)
def test_a_file_that_changes_begins_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    arrivals = Arrivals(tmp_path, settle=1.0)
    write(tmp_path, "a.png")
    assert names(arrivals, 0.0) == []
    write(tmp_path, "a.png", **change)
    assert names(arrivals, 1.0) == []
    assert names(arrivals, 2.0) == ["a.png"]


def test_the_oldest_come_first_and_no_more_than_asked_for(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, settle=1.0)
    for number in range(30):
        write(tmp_path, f"{number}.png", modified=10**9 - number // 10)
    assert names(arrivals, 0.0, most=4) == []
    look = arrivals.look(1.0, (), 4)
    assert [arrival.name for arrival in look.complete] == ["20.png", "21.png", "22.png", "23.png"]
    assert (look.waiting, look.oldest) == (30, 10**9 - 2)
    assert len(arrivals._followed) <= 4 * module._TRACKED  # whatever the folder holds
    taken = {arrival.key for arrival in look.complete}
    assert names(arrivals, 2.0, taken, most=4) == ["24.png", "25.png", "26.png", "27.png"]


def test_natural_order_among_files_of_one_moment(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, settle=0.0)
    for name in ("10.png", "9.png", "b/1.png"):
        write(tmp_path, name)
    arrivals.look(0.0, (), 9)
    assert names(arrivals, 1.0) == ["9.png", "10.png"]
    deep = Arrivals(tmp_path, recursive=True, settle=0.0)
    deep.look(0.0, (), 9)
    assert names(deep, 1.0) == ["9.png", "10.png", "b/1.png"]


def test_what_is_no_image_file_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.txt", ".hidden.png", "a.png.part", "Thumbs.db", ".tmp/b.png"):
        write(tmp_path, name)
    (tmp_path / "folder.png").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "absent")
    (tmp_path / "loop").symlink_to(tmp_path)
    arrivals = Arrivals(tmp_path, recursive=True, settle=0.0)
    arrivals.look(0.0, (), 9)
    look = arrivals.look(1.0, (), 9)
    assert (look.complete, look.waiting) == ([], 0)


@pytest.mark.parametrize("content", [b"", b"grows"])
def test_a_file_that_never_completes_is_logged_once_and_the_rest_goes_on(
    tmp_path: Path, content: bytes, events: Any
) -> None:
    arrivals = Arrivals(tmp_path, settle=1.0, patience=10.0)
    write(tmp_path, "never.png", content)
    write(tmp_path, "good.png", modified=2 * 10**9)
    done: list[str] = []
    for now in range(40):
        if content:
            write(tmp_path, "never.png", content + b"." * now, modified=10**9 + now)
        done += names(arrivals, float(now), done and {arrival_at(tmp_path, "good.png").key})  # type: ignore[union-attr]
    assert done == ["good.png"]
    (event,) = events()
    assert (event["event"], event["level"], event["file"]) == ("incomplete", "warning", "never.png")
    assert "never.png: " in event["error"]
    if not content:
        assert arrivals.look(41.0, done, 9).waiting == 1  # good.png alone
    write(tmp_path, "never.png", b"whole at last", modified=3 * 10**9)
    names(arrivals, 50.0)
    assert "never.png" in names(arrivals, 51.0)


def test_only_those_that_are_here(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, settle=0.0)
    write(tmp_path, "here.png")
    arrivals.only_those_here()
    write(tmp_path, "later.png")
    arrivals.look(0.0, (), 9)
    look = arrivals.look(1.0, (), 9)
    assert ([arrival.name for arrival in look.complete], look.waiting) == (["here.png"], 1)


def test_a_folder_that_goes_away_is_said_once_and_tried_again(tmp_path: Path, events: Any) -> None:
    folder = tmp_path / "camera"
    write(folder, "a.png")
    arrivals = Arrivals(folder, settle=0.0)
    arrivals.look(0.0, (), 9)
    folder.rename(tmp_path / "away")
    assert arrivals.look(1.0, (), 9).waiting == 0
    assert arrivals.look(2.0, (), 9).waiting == 0
    (tmp_path / "away").rename(folder)
    arrivals.look(3.0, (), 9)
    assert names(arrivals, 4.0) == ["a.png"]
    assert [event["event"] for event in events()] == ["unreadable", "readable"]
    assert str(folder) in events()[0]["error"]


def test_a_folder_that_cannot_be_watched_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: does not exist"):
        Arrivals(tmp_path / "absent")
    write(tmp_path, "file.png")
    with pytest.raises(DataError, match=r"file\.png: is not a folder"):
        Arrivals(tmp_path / "file.png")


def test_keys_tell_names_and_versions_apart(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    arrival = arrival_at(tmp_path, "a.png")
    assert arrival is not None
    assert arrival.key == key_of("a.png", arrival.version)
    assert len({key_of(*pair) for pair in (("a", "1-1"), ("a", "1-2"), ("b", "1-1"), ("a1", "-1"))}) == 4
    assert key_of("\udcff.png", "1-1")  # a name that is not UTF-8
