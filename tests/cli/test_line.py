"""`inreach watch` and `inreach serve`, as a user and a service manager see them."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_cases import FAST, Run

from inreach_fast.cli import exit_codes
from inreach_fast.cli.console import Console
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


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, exit_codes.SUCCESS), (signal.SIGINT, exit_codes.INTERRUPTED)]
)
def test_watch_ends_when_it_is_asked_to(
    run: Run, model: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    before = signal.getsignal(number)
    row = Console.row

    def then_ask(self: Console, value: Any) -> None:
        row(self, value)
        if value["file"] == "0.png":
            assert signal.getsignal(number) != before  # it would end this process
            signal.raise_signal(number)

    monkeypatch.setattr(Console, "row", then_ask)
    result = run("watch", model, training, "--out", tmp_path / "out", "--poll", 0.01, "--settle", 0)
    assert result.code == code
    assert json.loads(result.err.splitlines()[-1])["event"] == "stopped"
    assert result.lines == rows_of(tmp_path / "out")
    assert "0.png" in [row["file"] for row in result.lines]
    assert signal.getsignal(number) == before


def test_a_second_interrupt_does_not_wait() -> None:
    def interrupt_twice() -> None:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.interrupted
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, exit_codes.SUCCESS), (signal.SIGINT, exit_codes.INTERRUPTED)]
)
def test_serve_answers_and_ends_when_it_is_asked_to(
    run: Run, model: Path, training: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
    from inreach_fast.serving import server

    expected = run("predict", model, training / "5.png").lines[0]
    listen, answers = server.listen, list[dict[str, Any]]()

    def listen_and_be_asked(host: str, port: int) -> Any:
        bound = listen(host, port)
        threading.Thread(target=ask, args=bound.getsockname()).start()
        return bound

    def ask(host: str, port: int) -> None:
        try:
            while not answers or "score" not in answers[-1]:
                with contextlib.suppress(OSError):
                    connection = http.client.HTTPConnection(host, port, timeout=60)
                    connection.request("POST", "/inspect?map=1", (training / "5.png").read_bytes())
                    answers.append(json.loads(connection.getresponse().read()))
                    connection.close()
        finally:
            signal.raise_signal(number)

    monkeypatch.setattr(server, "listen", listen_and_be_asked)
    result = run("serve", model, "--port", 0)
    assert result.code == code
    events = [json.loads(line) for line in result.err.splitlines()]
    assert [event["event"] for event in events] == ["listening", "ready", "inspected", "closed"]
    assert events[0]["url"].startswith("http://127.0.0.1:")
    assert (answers[-1]["score"], answers[-1]["is_anomalous"]) == (expected["score"], expected["is_anomalous"])
    assert answers[-1]["map"].startswith("data:image/png;base64,")


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
