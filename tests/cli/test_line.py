"""`inreach watch` and `inreach serve`, as a user and a service manager see them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Run

import inreach_fast
from inreach_fast.cli import exit_codes


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`inreach` in a process of its own."""
    folders = [str(Path(inreach_fast.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, "-m", "inreach_fast.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def events_of(child: subprocess.Popen[str], *, until: str) -> list[dict[str, Any]]:
    """Events on stderr, up to one of that name."""
    assert child.stderr is not None
    events = []
    for line in child.stderr:
        events.append(json.loads(line))
        if events[-1]["event"] == until:
            return events
    raise AssertionError(f"no event {until!r} in {events}")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "verdicts.jsonl").read_bytes().splitlines()]


def test_watch_once(run: Run, model: Path, training: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arriving"
    shutil.copytree(training, folder)
    (folder / "bad.png").write_bytes(b"no image")
    result = run("watch", model, folder, "--once", "--overlays", tmp_path / "pictures", "--settle", 0, "--poll", 0.01)
    assert result.code == exit_codes.SUCCESS
    predicted = {Path(line["file"]).name: line for line in run("predict", model, training).lines}
    assert len(result.lines) == 9
    for row in result.lines:
        if row["file"] == "bad.png":
            assert "not a PNG" in row["error"]
            continue
        expected = predicted[row["file"]]
        assert {key: row[key] for key in expected if key not in ("file", "seconds")} == {
            key: expected[key] for key in expected if key not in ("file", "seconds")
        }
        assert Path(row["outputs"]["overlay"]).read_bytes().startswith(b"\x89PNG")
    assert rows_of(tmp_path / "arriving.verdicts") == result.lines
    names = [json.loads(line)["event"] for line in result.err.splitlines()]
    assert (names[0], names[-1]) == ("started", "stopped")
    assert {"ready", "failed"} <= set(names)
    assert "inspected" not in names
    again = run("watch", model, folder, "--once", "--quiet", "--settle", 0, "--poll", 0.01)
    assert (again.code, again.out, again.err) == (0, "", "")


def test_watch_options_that_cannot_work(run: Run, model: Path, training: Path, tmp_path: Path) -> None:
    assert run("watch", model, tmp_path / "absent").code == exit_codes.DATA
    assert run("watch", tmp_path / "absent", training, "--out", tmp_path / "out").code == exit_codes.MODEL
    same = run("watch", model, training, "--overlays", training, "--out", tmp_path / "out")
    assert same.code == exit_codes.USAGE
    assert "--overlays: " in same.error
    below = run("watch", model, training, "--recursive", "--out", training / "out")
    assert below.code == exit_codes.USAGE
    (tmp_path / "file").write_bytes(b"")
    assert run("watch", model, training, "--out", tmp_path / "file").code == exit_codes.OUTPUT
    assert not (training / "out").exists()


def test_one_watch_at_a_time(run: Run, model: Path, training: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from inreach_fast.serving.verdicts import VerdictJournal

    with VerdictJournal(tmp_path / "out"):
        result = run("watch", model, training, "--out", tmp_path / "out", "--once")
    assert result.code == exit_codes.OUTPUT
    assert "another process" in result.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_watch_ends_when_it_is_asked_to(model: Path, training: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arriving"
    folder.mkdir()
    for number, (asked, code) in enumerate(
        [(signal.SIGTERM, exit_codes.SUCCESS), (signal.SIGINT, exit_codes.INTERRUPTED)]
    ):
        with process("watch", model, folder, "--poll", 0.02, "--settle", 0.02) as child:
            events_of(child, until="ready")
            assert child.stdout is not None
            shutil.copy(training / "0.png", folder / f"{number}.png")
            assert json.loads(child.stdout.readline())["file"] == f"{number}.png"
            child.send_signal(asked)
            assert events_of(child, until="stopped")[-1]["reported"] == 1
            assert child.wait(60) == code
    assert [row["file"] for row in rows_of(tmp_path / "arriving.verdicts")] == ["0.png", "1.png"]


def test_serve_answers_and_ends_when_it_is_asked_to(model: Path, training: Path, run: Run) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
    expected = run("predict", model, training / "5.png").lines[0]
    with process("serve", model, "--port", 0) as child:
        address = events_of(child, until="listening")[-1]["url"].removeprefix("http://").rstrip("/")
        assert address.startswith("127.0.0.1:")
        events_of(child, until="ready")
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/inspect?map=1", (training / "5.png").read_bytes())
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert (answer["score"], answer["is_anomalous"]) == (expected["score"], expected["is_anomalous"])
        assert answer["map"].startswith("data:image/png;base64,")
        child.terminate()
        if os.name != "nt":
            assert events_of(child, until="closed")[-1]["inspected"] == 1
            assert child.wait(60) == exit_codes.SUCCESS


def test_serve_options_that_cannot_work(run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
    from inreach_fast.serving.server import listen

    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        taken = run("serve", model, "--port", bound.getsockname()[1])
    assert taken.code == exit_codes.USAGE
    assert "cannot be bound" in taken.err
    assert run("serve", model, "--port", 70000).code == exit_codes.USAGE
    assert run("serve", model, "--port", 0, "--host", "no.such.host.invalid").code == exit_codes.USAGE
    assert run("serve", model, "--port", 0, "--max-body", "many").code == exit_codes.USAGE
    assert run("serve", tmp_path / "absent", "--port", 0).code == exit_codes.MODEL


def test_serve_says_what_it_lacks(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("app", "server"):
        monkeypatch.delitem(sys.modules, f"inreach_fast.serving.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = run("serve", model)
    assert result.code == exit_codes.BACKEND
    assert "pip install 'inreach_fast[serve]'" in result.error


def test_serve_warns_where_others_reach_it(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
    from inreach_fast.serving import server

    async def unserved(*_: Any) -> None:
        pass

    monkeypatch.setattr(server, "_serve", unserved)
    for host, exposed in (("127.0.0.1", False), ("0.0.0.0", True)):
        result = run("serve", model, "--host", host, "--port", 0)
        assert result.code == 0
        assert ("no password" in result.err) == exposed
