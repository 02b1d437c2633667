"""`inreach watch` and `inreach serve`, as a user and a service manager see them."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_cases import FAST, Run

from inreach_fast.cli import exit_codes
from inreach_fast.serving.signals import stop_on_signals


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


def test_watch_a_region_of_interest_in_tiles_with_feedback(run: Run, training: Path, tmp_path: Path) -> None:
    path, region = tmp_path / "m.inreach", ("--roi", "0.2,0.2;0.8,0.2;0.8,0.8", "--tile", "2", "--tile-overlap", "16")
    assert run("fit", training, "-o", path, "--quiet", *FAST, *region).code == 0
    assert run("accept", path, training / "5.png", "--region", "16,16,8,8").code == 0
    expected = {Path(line["file"]).name: line for line in run("predict", path, training).lines}
    settings = ("--once", "--settle", 0, "--poll", 0.01, "--out", tmp_path / "out", "--overlays", tmp_path / "pictures")
    result = run("watch", path, training, *settings)
    assert result.code == exit_codes.SUCCESS, result.err
    assert len(result.lines) == 8
    for row in result.lines:
        assert {name: row[name] for name in ("score", "is_anomalous", "feedback")} == {
            name: expected[row["file"]][name] for name in ("score", "is_anomalous", "feedback")
        }
        assert Path(row["outputs"]["overlay"]).is_file()
    assert any(row["feedback"] == [1] for row in result.lines)


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


# The signals go to processes of their own, as from a terminal or a service manager: what this test process does with
# them, and what other tests left in it, has no say.
ENDINGS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, exit_codes.SUCCESS), (signal.SIGINT, exit_codes.INTERRUPTED)]
)
posix_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")


@contextlib.contextmanager
def running(*arguments: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """`inreach` in a process of its own, its stderr in the file ``log``; killed if the block fails."""
    command = [sys.executable, "-X", "faulthandler", "-m", "inreach_fast.cli", *map(str, arguments)]
    with (
        log.open("w") as err,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def events_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@posix_signals
@ENDINGS
def test_watch_ends_when_it_is_asked_to(model: Path, training: Path, tmp_path: Path, number: int, code: int) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    with running("watch", model, training, "--out", out, "--poll", 0.01, "--settle", 0, log=log) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        rest, _ = process.communicate(timeout=120)
    assert process.returncode == code, log.read_text()
    assert [event["event"] for event in events_of(log)] == ["started", "ready", "closed", "stopped"]
    rows = [json.loads(line) for line in (first + rest).splitlines()]
    assert rows == rows_of(out)
    assert 1 <= len(rows) <= 8


def test_a_second_interrupt_does_not_wait() -> None:
    def interrupt_twice() -> None:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.interrupted
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()


@posix_signals
@ENDINGS
def test_serve_answers_and_ends_when_it_is_asked_to(
    run: Run, model: Path, training: Path, tmp_path: Path, number: int, code: int
) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
    expected, log = run("predict", model, training / "5.png").lines[0], tmp_path / "log"
    with running("serve", model, "--port", 0, log=log) as process:
        while not log.read_text().endswith("\n"):  # it says where it listens
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        url = urllib.parse.urlsplit(events_of(log)[0]["url"])
        answer: dict[str, Any] = {}
        while "score" not in answer:  # at first it says that the model is being loaded
            assert process.poll() is None, log.read_text()
            connection = http.client.HTTPConnection(url.netloc, timeout=60)
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("POST", "/inspect?map=1", (training / "5.png").read_bytes())
                answer = json.loads(connection.getresponse().read())
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == code, log.read_text()
    events = events_of(log)
    assert [event["event"] for event in events] == ["listening", "ready", "inspected", "closed"]
    assert url.hostname == "127.0.0.1"
    assert (answer["score"], answer["is_anomalous"]) == (expected["score"], expected["is_anomalous"])
    assert answer["map"].startswith("data:image/png;base64,")


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
