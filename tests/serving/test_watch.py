"""The loop of a watch: every file is reported once, in every order of events that a folder can have."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_fits import estimator, pictures

from inreach_fast import InReaCh, Inspector
from inreach_fast.errors import ModelChangedError, SaveError
from inreach_fast.serving.arrivals import Arrivals, arrival_at
from inreach_fast.serving.inspector import Inspection
from inreach_fast.serving.signals import Stop
from inreach_fast.serving.verdicts import NAME, VerdictJournal
from inreach_fast.serving.watch import Watch, WatchCounts


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return estimator().fit(pictures())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images and one that is cut off."""
    place = tmp_path / "arriving"
    place.mkdir()
    for number, image in enumerate(pictures(6, seed=7)):
        Image.fromarray(image).save(place / f"{number}.png")
    (place / "cut.png").write_bytes((place / "0.png").read_bytes()[:200])
    return place


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="inreach_fast.line")
    return lambda name: [
        event for record in caplog.records if (event := json.loads(record.getMessage()))["event"] == name
    ]


def run(
    model: InReaCh,
    folder: Path,
    *,
    stop: Stop | None = None,
    once: bool = True,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> WatchCounts:
    settings = {"settle": 0.01, **(settings or {})}
    with VerdictJournal(folder.parent / "out") as journal, Inspector(model) as inspector:
        watch = Watch(Arrivals(folder, **settings), inspector, journal, poll=0.01, **options)
        return watch.run(stop or Stop(), once=once)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.parent / "out" / NAME).read_bytes().splitlines()]


def test_what_is_there_is_reported_once(model: InReaCh, folder: Path) -> None:
    reported: list[dict[str, Any]] = []
    counts = run(model, folder, report=reported.append)
    expected = {f"{n}.png": model.predict(folder / f"{n}.png") for n in range(6)}
    rows = rows_in(folder)
    assert rows == reported
    assert sorted(row["file"] for row in rows) == sorted([*expected, "cut.png"])
    for row in rows:
        if row["file"] == "cut.png":
            assert row["kind"] == "ImageError"
            assert row["error"].startswith(f"{folder / 'cut.png'}: truncated")
        else:
            prediction = expected[row["file"]]
            assert (row["score"], row["is_anomalous"]) == (prediction.score, prediction.is_anomalous)
    anomalous = sum(prediction.is_anomalous for prediction in expected.values())
    assert counts == WatchCounts(reported=7, anomalous=anomalous, bad=1)
    assert run(model, folder) == WatchCounts()
    assert rows_in(folder) == rows


def test_a_file_that_is_written_again_is_another_arrival(model: InReaCh, folder: Path) -> None:
    run(model, folder)
    (folder / "3.png").write_bytes((folder / "4.png").read_bytes() + b" ")
    assert run(model, folder).reported == 1
    both = [row for row in rows_in(folder) if row["file"] == "3.png"]
    assert both[1]["score"] == model.predict(folder / "4.png").score
    assert both[0]["version"] != both[1]["version"]


def test_files_arrive_while_it_runs(model: InReaCh, folder: Path) -> None:
    stop = Stop()
    image = (folder / "1.png").read_bytes()

    def report(row: dict[str, Any]) -> None:
        if row["file"] == "late.png":
            stop.asked = True
        elif not (folder / "late.png").exists():
            (folder / ".late.part").write_bytes(image)
            (folder / ".late.part").rename(folder / "late.png")

    counts = run(model, folder, stop=stop, once=False, report=report)
    assert counts.reported == 8
    assert sum(row["file"] == "late.png" for row in rows_in(folder)) == 1


def test_once_leaves_what_arrives_later(model: InReaCh, folder: Path) -> None:
    image = (folder / "1.png").read_bytes()
    counts = run(model, folder, report=lambda row: (folder / "late.png").write_bytes(image))
    assert counts.reported == 7


def test_a_small_queue_reports_everything_and_says_that_it_is_behind(model: InReaCh, folder: Path, events: Any) -> None:
    assert run(model, folder, queue=2, workers=1).reported == 7
    assert len({row["file"] for row in rows_in(folder)}) == 7
    (behind,) = events("behind")
    assert (behind["waiting"], behind["level"]) == (7, "warning")
    assert behind["oldest_seconds"] >= 0
    assert len(events("caught_up")) == 1


def test_a_queue_that_suffices_says_nothing(model: InReaCh, folder: Path, events: Any) -> None:
    run(model, folder, queue=7)
    assert events("behind") == events("caught_up") == []


def test_asked_to_stop_it_finishes_what_is_in_work(model: InReaCh, folder: Path) -> None:
    stop = Stop()

    def report(row: dict[str, Any]) -> None:
        stop.asked = True

    counts = run(model, folder, stop=stop, once=False, workers=1, report=report)
    assert 1 <= counts.reported <= 2  # with one worker, two images are in work
    assert len(rows_in(folder)) == counts.reported
    assert run(model, folder).reported == 7 - counts.reported
    assert len({row["file"] for row in rows_in(folder)}) == 7


def test_a_file_that_is_removed_before_its_turn_is_logged(model: InReaCh, folder: Path, events: Any) -> None:
    arrival = arrival_at(folder, "0.png")
    assert arrival is not None
    (folder / "0.png").unlink()
    with VerdictJournal(folder.parent / "out") as journal, Inspector(model) as inspector:
        watch = Watch(Arrivals(folder), inspector, journal)
        assert not watch._take(arrival, watch._inspect(arrival))
        assert watch.counts == WatchCounts(vanished=1)
    assert rows_in(folder) == []
    (event,) = events("vanished")
    assert "0.png: was removed before it was inspected; " in event["error"]


def test_a_file_that_is_removed_after_it_was_read_has_a_verdict(
    model: InReaCh, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Inspector.attempt

    def removing(self: Inspector, image: Any, name: str, **options: Any) -> Inspection:
        inspection = attempt(self, image, name, **options)
        image.unlink()
        return inspection

    monkeypatch.setattr(Inspector, "attempt", removing)
    counts = run(model, folder)
    assert (counts.reported, counts.vanished) == (6, 1)  # of the one that is cut off nobody knows


@pytest.mark.parametrize("others", [0, 6])
def test_a_file_that_changes_while_it_is_read_is_inspected_when_it_has_settled(
    model: InReaCh, folder: Path, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, whole = Inspector.attempt, (folder / "0.png").read_bytes()
    look, looks = Arrivals.look, list[int]()

    def counted(self: Arrivals, *arguments: Any) -> Any:
        looks.append(1)
        return look(self, *arguments)

    monkeypatch.setattr(Arrivals, "look", counted)
    if not others:
        for path in folder.glob("[0-9].png"):
            path.unlink()

    def changing(self: Inspector, image: Any, name: str, **options: Any) -> Inspection:
        inspection = attempt(self, image, name, **options)
        if name == "cut.png" and len(image.read_bytes()) < len(whole):
            before = len(looks)
            while len(looks) == before:  # a look finds nothing else to wait for
                time.sleep(0.01)
            image.write_bytes(whole)
        return inspection

    monkeypatch.setattr(Inspector, "attempt", changing)
    assert run(model, folder).bad == 0
    (row,) = (row for row in rows_in(folder) if row["file"] == "cut.png")
    assert row["score"] == model.predict(whole).score


def test_pictures_are_written_before_a_file_is_reported(model: InReaCh, folder: Path) -> None:
    finished: list[str] = []

    def finish(inspection: Inspection) -> dict[str, Any]:
        assert inspection.image is not None
        assert inspection.anomaly_map is not None
        finished.append(inspection.name)
        return {"outputs": {"overlay": inspection.name}}

    def report(row: dict[str, Any]) -> None:
        assert "error" in row or (row["outputs"]["overlay"] == row["file"] and row["file"] in finished)

    assert run(model, folder, finish=finish, report=report).reported == 7
    assert len(finished) == 6


@pytest.mark.parametrize("where", ["finish", "attempt", "append"])
def test_an_error_that_is_not_an_images_ends_it(
    model: InReaCh, folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: type[Exception] = ModelChangedError if where == "attempt" else SaveError

    def fail(*_: Any, **__: Any) -> Any:
        raise kind("x: y; z")

    options: dict[str, Callable[..., Any]] = {"finish": fail} if where == "finish" else {}
    with monkeypatch.context() as patched:
        if where == "attempt":
            patched.setattr(Inspector, "attempt", fail)
        if where == "append":
            patched.setattr(VerdictJournal, "append", fail)
        with pytest.raises(kind):
            run(model, folder, **options)
    assert run(model, folder).reported == 7


def test_memory_that_does_not_suffice_for_an_image_is_that_images_error(
    model: InReaCh, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = InReaCh.predict
    calls = iter(range(100))

    def short(self: InReaCh, *args: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise MemoryError("no 3 GB")
        return predict(self, *args, **options)

    monkeypatch.setattr(InReaCh, "predict", short)
    assert run(model, folder).bad == 2
    assert [row["kind"] for row in rows_in(folder) if "error" in row].count("MemoryError") == 1


def test_a_stop_wakes_a_sleeper() -> None:
    stop = Stop()
    sleeper = threading.Thread(target=stop.sleep, args=(3600,))
    sleeper.start()
    stop.asked = True
    sleeper.join(60)
    assert not sleeper.is_alive()
    begun = time.monotonic()
    stop.sleep(3600)
    assert time.monotonic() - begun < 3000
