"""The journal of verdicts: whatever byte a process is killed at, lines are whole and each is there once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from inreach_fast.errors import SaveError
from inreach_fast.serving.arrivals import Arrival
from inreach_fast.serving.verdicts import NAME, VerdictJournal

FIRST, SECOND = Arrival("a.png", 10, 1000), Arrival("ä\udcff\n.png", 20, 2000)
ROW = {"file": "other", "score": 1.25, "is_anomalous": False}


def test_lines_are_verdicts_with_their_version(tmp_path: Path) -> None:
    with VerdictJournal(tmp_path / "new" / "out") as journal:
        written = journal.append(FIRST, ROW)
        journal.append(SECOND, {"error": "bad"})
        journal.sync()
    lines = (tmp_path / "new" / "out" / NAME).read_bytes().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0] == written
    assert rows[0] | {"time": ""} == {
        "file": "a.png", "score": 1.25, "is_anomalous": False, "version": "10-1000", "time": "",
    }  # fmt: skip
    assert rows[1]["file"] == SECOND.name


def test_a_journal_is_continued(tmp_path: Path) -> None:
    with VerdictJournal(tmp_path) as journal:
        journal.append(FIRST, ROW)
    with VerdictJournal(tmp_path) as journal:
        assert journal.done == {FIRST.key}
        journal.append(SECOND, ROW)
    with VerdictJournal(tmp_path) as journal:
        assert journal.done == {FIRST.key, SECOND.key}


def test_killed_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with VerdictJournal(tmp_path) as journal:
        journal.append(FIRST, ROW)
        one = path.stat().st_size
        journal.append(SECOND, ROW)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with VerdictJournal(tmp_path) as journal:
            assert journal.done == ({FIRST.key} if size >= one else set()) | (
                {SECOND.key} if size == len(whole) else set()
            )
            for arrival in (FIRST, SECOND):
                if arrival.key not in journal.done:
                    journal.append(arrival, ROW)
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert [row["file"] for row in rows] == [FIRST.name, SECOND.name]


@pytest.mark.parametrize("line", [b"not JSON", b"[]", b"{}", b'{"file": 3, "version": "1-1"}', b"\0\0", b""])
def test_strange_lines_are_passed_over_and_said(tmp_path: Path, line: bytes, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, logger="inreach_fast.line")
    with VerdictJournal(tmp_path) as journal:
        journal.append(FIRST, ROW)
    with (tmp_path / NAME).open("ab") as file:
        file.write(line + b"\n")
    with VerdictJournal(tmp_path) as journal:
        journal.append(SECOND, ROW)
    with VerdictJournal(tmp_path) as journal:
        assert journal.done == {FIRST.key, SECOND.key}
    event = json.loads(caplog.records[0].getMessage())
    assert (event["event"], event["lines"]) == ("strange_lines", 1)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with VerdictJournal(tmp_path), pytest.raises(SaveError, match="another process writes verdicts there"):
        VerdictJournal(tmp_path)
    VerdictJournal(tmp_path).close()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SaveError, match=r"file.*cannot be written"):
        VerdictJournal(tmp_path / "file")

    class Full:
        """Takes a part of a line, as a disk does that is nearly full."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, line: bytes) -> int:
            return int(self._file.write(line[:5]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    with VerdictJournal(tmp_path) as journal:
        journal.append(FIRST, ROW)
        before = (tmp_path / NAME).read_bytes()
        good = journal._file
        journal._file = Full(good)  # type: ignore[assignment]
        with pytest.raises(SaveError, match="cannot be written"):
            journal.append(SECOND, ROW)
        assert (tmp_path / NAME).read_bytes() == before
        assert SECOND.key not in journal.done
        journal._file = good
        journal.append(SECOND, ROW)
    assert len((tmp_path / NAME).read_bytes().splitlines()) == 2
