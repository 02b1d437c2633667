"""`Inspector`: predict's results from many threads, counted and logged; ready only when warm; closed for good."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_fits import estimator, pictures, tiny_backbone

import inreach_fast
from inreach_fast import InReaCh, Inspector
from inreach_fast.errors import (
    BackboneMismatchError,
    ImageError,
    ImageTooLargeError,
    ModelFileError,
    NonFiniteError,
    NotFittedError,
    ParameterError,
)
from inreach_fast.predict.prediction import Predictor


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return estimator().fit(pictures())


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Any:
    """What was logged, as JSON."""
    caplog.set_level(logging.INFO, logger="inreach_fast.line")
    return lambda: [json.loads(record.getMessage()) for record in caplog.records]


def test_it_is_public_and_gives_what_predict_gives(model: InReaCh, tmp_path: Path) -> None:
    assert inreach_fast.Inspector is Inspector
    image = pictures(1, seed=5)[0]
    Image.fromarray(image).save(tmp_path / "part.png")
    expected = model.predict(image)
    with Inspector(model) as inspector:
        for form in (image, Image.fromarray(image), tmp_path / "part.png", (tmp_path / "part.png").read_bytes()):
            inspection = inspector.inspect(form)
            assert inspection.score == expected.score
            assert inspection.is_anomalous == expected.is_anomalous
            assert inspection.prediction is not None
            assert np.array_equal(inspection.prediction.anomaly_map, expected.anomaly_map)
            assert (inspection.image, inspection.anomaly_map, inspection.error) == (None, None, None)
        row = inspector.inspect(tmp_path / "part.png").row()
    assert set(row) == {"file", "score", "threshold", "is_anomalous", "seconds"}
    assert (row["file"], row["threshold"]) == (str(tmp_path / "part.png"), model.threshold_)


def test_a_saved_model_is_loaded(model: InReaCh, tmp_path: Path) -> None:
    model.save(tmp_path / "part.inreach")
    with pytest.raises(inreach_fast.InReachError):  # its network, an object, is not in the file
        Inspector(tmp_path / "part.inreach")
    loaded = InReaCh.load(tmp_path / "part.inreach", backbone=tiny_backbone())
    image = pictures(1, seed=6)[0]
    assert Inspector(loaded).inspect(image).score == model.predict(image).score
    loaded.backbone_runtime = "torch-unfolded"
    assert Inspector(loaded).inspect(image).row()["runtime"] == "torch-unfolded"
    with pytest.raises(ModelFileError):
        Inspector(tmp_path / "absent.inreach")


@pytest.mark.parametrize("size", [(1, 9), (3, 40), (4, 4), (5, 3), (40, 1)])
def test_images_of_few_rows_are_no_arrays_with_channels_first(model: InReaCh, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.fromarray(pictures(1, size=size)[0]).save(file, format="png")
    assert Inspector(model).inspect(file.getvalue()).score == model.predict(file.getvalue()).score


def test_many_threads_get_the_scores_of_one(model: InReaCh) -> None:
    images = pictures(24, seed=3)
    expected = [model.predict(image).score for image in images]
    with Inspector(model) as inspector, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: inspector.inspect(images[i % 24]).score, range(96)))
    assert found == expected * 4
    assert inspector.counts()["inspected"] == inspector.latency.count == 96
    assert inspector.counts()["anomalous"] == 4 * sum(score > model.threshold_ for score in expected)


def test_it_is_ready_once_it_is_warm(model: InReaCh, events: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = Inspector(model, warm=False)
    assert not cold.ready
    calls = []
    predict = InReaCh.predict
    monkeypatch.setattr(InReaCh, "predict", lambda self, *a, **k: calls.append(cold.ready) or predict(self, *a, **k))
    cold.warm_up()
    assert (calls, cold.ready) == ([False], True)
    assert [event["event"] for event in events()] == ["ready"]
    assert cold.counts() == {"inspected": 0, "anomalous": 0, "errors": {}}  # the grey image is not the caller's
    cold.close()
    assert not cold.ready


def test_a_bad_image_is_a_typed_error_that_names_it(model: InReaCh, events: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m.inreach")
    with Inspector(InReaCh.load(tmp_path / "m.inreach", backbone=tiny_backbone(), max_pixels=5000)) as inspector:
        with pytest.raises(ImageError, match="part 7: not a PNG"):
            inspector.inspect(b"no image", "part 7")
        with pytest.raises(ImageTooLargeError, match=r"big: 100x100 is 10,000 pixels.*max_pixels"):
            inspector.inspect(np.zeros((100, 100, 3), np.uint8), "big")
        attempt = inspector.attempt(b"", "empty")
        assert isinstance(attempt.error, ImageError)
        assert attempt.row() == {"file": "empty", "error": str(attempt.error), "kind": "ImageError"}
        with pytest.raises(ImageError):
            _ = attempt.score
        assert inspector.counts() == {
            "inspected": 0,
            "anomalous": 0,
            "errors": {"ImageError": 2, "ImageTooLargeError": 1},
        }
        assert inspector.latency.count == 0
    assert [event["event"] for event in events()] == ["ready", "failed", "failed", "failed", "closed"]
    assert events()[1]["level"] == "warning"


def test_features_that_are_not_finite_name_the_image(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    with Inspector(model) as inspector:

        def fail(*_: Any, **__: Any) -> Any:
            raise NonFiniteError("the network")

        monkeypatch.setattr(Predictor, "score", fail)
        with pytest.raises(NonFiniteError, match="part 3"):
            inspector.inspect(pictures(1)[0], "part 3")


def test_an_error_that_is_not_the_images_is_raised_by_attempt(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    with Inspector(model) as inspector:

        def fail(*_: Any, **__: Any) -> Any:
            raise inreach_fast.ModelChangedError("the model: was overwritten")

        monkeypatch.setattr(InReaCh, "predict", fail)
        with pytest.raises(inreach_fast.ModelChangedError):
            inspector.attempt(pictures(1)[0])


def test_events_are_lines_of_json(model: InReaCh, events: Any) -> None:
    with Inspector(model) as inspector:
        inspector.inspect(pictures(1)[0], "line\nbreak")
    ready, inspected, closed = events()
    assert (inspected["event"], inspected["file"], inspected["level"]) == ("inspected", "line\nbreak", "info")
    assert inspected["time"].endswith("Z")
    assert ready["threshold"] == model.threshold_
    assert (closed["inspected"], closed["latency"]["count"]) == (1, 1)


def test_closing_waits_for_what_is_in_work_and_refuses_more(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(model)
    begun, go = threading.Event(), threading.Event()
    predict = InReaCh.predict

    def slow(self: InReaCh, *args: Any, **options: Any) -> Any:
        begun.set()
        go.wait(60)
        return predict(self, *args, **options)

    monkeypatch.setattr(InReaCh, "predict", slow)
    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(inspector.inspect, pictures(1)[0])
        begun.wait(60)
        closing = pool.submit(inspector.close)
        while inspector.ready:
            pass
        assert not closing.done()
        with pytest.raises(ParameterError, match="closed"):
            inspector.inspect(pictures(1)[0])
        go.set()
        assert working.result(60).score > 0
        closing.result(60)
    assert not inspector.ready
    inspector.close()
    with pytest.raises(ParameterError, match="closed"):
        inspector.warm_up()


def test_many_images_come_in_order_with_their_errors(model: InReaCh) -> None:
    images: list[Any] = [*pictures(5, seed=4)]
    images.insert(2, b"no image")
    with Inspector(model) as inspector:
        found = list(inspector.inspect_many(iter(images), workers=3))
        named = list(inspector.inspect_many(images[:2], ["a", "b"]))
        with pytest.raises(ParameterError, match="workers"):
            next(inspector.inspect_many(images, workers=0))
        with pytest.raises(ValueError):
            list(inspector.inspect_many(images[:2], ["a"]))
    assert [inspection.name for inspection in found] == [f"image {i}" for i in range(6)]
    assert [isinstance(inspection.error, ImageError) for inspection in found] == [i == 2 for i in range(6)]
    assert found[5].score == model.predict(images[5]).score
    assert [inspection.name for inspection in named] == ["a", "b"]


def test_an_endless_stream_is_read_a_few_images_ahead(model: InReaCh) -> None:
    image, read = pictures(1)[0], 0

    def endless() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield image

    with Inspector(model) as inspector:
        stream = inspector.inspect_many(endless(), workers=2)
        next(stream)
        stream.close()
    assert read <= 3


def test_limits_are_predicts(model: InReaCh) -> None:
    image = pictures(1, seed=9)[0]
    whole = model.predict(image)
    threshold = 0.5 * whole.score
    with Inspector(model, threshold=threshold) as inspector:
        row = inspector.inspect(image).row()
        assert (row["threshold"], row["is_anomalous"], row["certain"]) == (threshold, True, True)
        assert row["score_lower"] <= whole.score <= row["score_upper"]
        mapped = inspector.inspect(image, with_map=True)
        assert (mapped.score, mapped.threshold) == (whole.score, threshold)
        assert mapped.image is not None
        assert mapped.anomaly_map is not None
        assert mapped.anomaly_map.shape == image.shape[:2] == mapped.image.shape[:2]
    with Inspector(model, budget_ms=1000) as inspector:
        assert inspector.inspect(image).row()["complete"]
    with pytest.raises(ParameterError, match="budget_ms"):
        Inspector(model, budget_ms=-1)


def test_models_that_cannot_inspect_are_refused_at_once() -> None:
    with pytest.raises(NotFittedError):
        Inspector(estimator())
    rows = np.random.default_rng(0).normal(size=(6, 16, 8)).astype(np.float32)
    of_descriptors = InReaCh("channels", image_size=16, assoc_depth=2, min_channel_length=1, spread_filter=False)
    with pytest.raises(BackboneMismatchError):
        Inspector(of_descriptors.fit_descriptors(rows, (4, 4)))


@pytest.mark.parametrize("settings", [{"roi": np.arange(1200).reshape(60, 20) > 300}, {"tile": 2, "tile_overlap": 8}])
def test_regions_of_interest_tiles_and_feedback(settings: dict[str, Any]) -> None:
    """The mask has not the proportions of the network's input, and images have to have its own."""
    model = estimator(**settings).fit(pictures(size=(90, 30)))
    image = pictures(1, size=(90, 30), seed=5)[0]
    with Inspector(model) as inspector:
        found = inspector.inspect(image, with_map=True)
        assert found.score == model.predict(image).score
        assert found.anomaly_map is not None
        assert found.anomaly_map.shape == (90, 30)
        assert np.isnan(found.anomaly_map).any() == ("roi" in settings)
        assert "feedback" not in found.row()
        model.accept(image, (10, 40, 8, 8))  # the inspector takes what the model learns
        row = inspector.inspect(image).row()
    assert row["feedback"] == [1]
    assert json.loads(json.dumps(row))["score"] == model.predict(image).score
