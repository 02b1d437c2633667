"""predict_stream: the order, the bits and the errors of predict, with reading ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_networks import small_model

from inreach_fast import InReaCh, errors
from inreach_fast.predict.stream import in_stream


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return small_model()


def _images(count: int) -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (30 + i, 35, 3), dtype=np.uint8) for i in range(count)]


@pytest.mark.parametrize("ahead", [1, 4])
def test_every_prediction_is_predicts(model: InReaCh, ahead: int) -> None:
    images = _images(5)
    found = list(model.predict_stream(iter(images), ahead=ahead))
    assert len(found) == 5
    for image, ours in zip(images, found, strict=True):
        theirs = model.predict(image)
        assert ours.score == theirs.score
        assert ours.is_anomalous == theirs.is_anomalous
        assert ours.original_size == theirs.original_size == image.shape[:2]
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)
        np.testing.assert_array_equal(ours.nearest, theirs.nearest)


def test_folders_lists_thresholds_and_nothing(model: InReaCh, tmp_path: Path) -> None:
    for i, image in enumerate(_images(3)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    expected = model.predict(tmp_path).score.tolist()
    assert [p.score for p in model.predict_stream(tmp_path)] == expected
    paths = sorted(tmp_path.iterdir())
    assert [p.score for p in model.predict_stream(paths)] == expected
    assert [p.score for p in model.predict_stream(str(p) for p in paths)] == expected
    assert [p.is_anomalous for p in model.predict_stream(paths, threshold=0.0)] == [True] * 3
    assert list(model.predict_stream(iter([]))) == []


def test_errors_come_in_their_turn(model: InReaCh, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    stream = model.predict_stream(iter([*_images(2), bad, *_images(1)]))
    assert next(stream).score > 0
    assert next(stream).score > 0
    with pytest.raises(errors.ImageError, match=r"bad\.png"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_bad_arguments_are_told_at_once(model: InReaCh) -> None:
    with pytest.raises(errors.ParameterError, match="ahead"):
        model.predict_stream([], ahead=0)
    with pytest.raises(errors.ParameterError, match="predict takes it"):
        model.predict_stream(_images(1)[0])
    with pytest.raises(errors.ParameterError, match="threshold"):
        model.predict_stream([], threshold=float("nan"))
    with pytest.raises(errors.NotFittedError):
        InReaCh("channels").predict_stream([])


def test_reading_goes_ahead_and_no_further() -> None:
    asked: list[int] = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            asked.append(number)
            yield number
            number += 1

    stream = in_stream(endless(), lambda x: x, lambda x: x, lambda x: x, ahead=3, in_flight=1)
    assert [next(stream) for _ in range(4)] == [0, 1, 2, 3]
    time.sleep(0.05)
    assert len(asked) <= 4 + 1 + 3 + 1  # yielded, in flight, ahead, being read
    before = threading.active_count()
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before
    settled = len(asked)
    time.sleep(0.05)
    assert len(asked) == settled


def test_reading_overlaps_with_the_rest() -> None:
    reading, release = threading.Event(), threading.Event()

    def read(number: int) -> int:
        if number == 1:
            reading.set()
            assert release.wait(300)
        return number

    def start(number: int) -> int:
        if number == 0:
            assert reading.wait(300)  # image 1 is being read while image 0 is started
            release.set()
        return number

    assert list(in_stream(range(3), read, start, lambda x: x, ahead=2, in_flight=0)) == [0, 1, 2]


@pytest.mark.parametrize("in_flight", [0, 1, 2])
def test_what_was_started_is_collected_before_an_error(in_flight: int) -> None:
    def start(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    stream = in_stream(range(9), lambda x: x, start, lambda x: x, ahead=2, in_flight=in_flight)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(stream)
