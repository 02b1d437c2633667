"""`InReaCh` with ``device="cuda"``: graphs, streams and precision, which only a GPU has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_networks import Small

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone
from inreach_fast.kernels import backend_of
from inreach_fast.kernels.gpu.backends import gpu_backend
from inreach_fast.predict.disagreement import disagreement

pytestmark = pytest.mark.gpu


def _images(count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(9).integers(0, 255, (64, 64, 3))
    return [np.clip(base + rng.integers(-9, 9, base.shape), 0, 255).astype(np.uint8) for _ in range(count)]


@pytest.fixture
def model(cuda: str) -> InReaCh:
    backbone = Backbone.from_module(Small(), ["first", "second"], device=cuda)
    return InReaCh("channels", backbone=backbone, device=cuda, image_size=64, dim=16, assoc_depth=3).fit(_images(8))


def _kernels_agree(model: InReaCh, images: list[Any]) -> None:
    """The GPU's way against the same features through the CPU's kernels: to the bit."""
    for image in images:
        found = model.predict(image)
        rows = model._ready(images=True).describe(model.geometry.apply(image)[None])[0]
        expected = model.score_descriptors(rows)
        np.testing.assert_array_equal(found.patch_scores, expected.patch_scores)
        np.testing.assert_array_equal(found.nearest, expected.nearest)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        assert found.score == expected.score


def test_replayed_graphs_give_the_bits_of_eager_calls(model: InReaCh, caplog: pytest.LogCaptureFixture) -> None:
    assert model._ready(images=True).gpu is not None
    _kernels_agree(model, _images(6, seed=1))
    assert "no CUDA graph" not in caplog.text


def test_the_stream_is_predict(model: InReaCh) -> None:
    images = _images(20, seed=2)
    alone = [model.predict(image) for image in images]
    for ours, theirs in zip(model.predict_stream(iter(images)), alone, strict=True):
        assert ours.score == theirs.score
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)


def test_a_bank_in_pieces_is_read_when_it_is_there(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are uploaded on the streams of the predictions, of which two run at once."""
    import torch

    images = _images(12, seed=5)
    whole = [model.predict(image) for image in images]
    opened: Any = gpu_backend(f"{backend_of(model.parameters).partition(':')[0]}:{torch.cuda.current_device()}")
    monkeypatch.setattr(opened, "options", replace(opened.options, memory_limit=20_000))
    monkeypatch.setattr(model, "_predictor", None)
    model.nominal_.bank._prepared.clear()
    for ours, theirs in zip(model.predict_stream(iter(images)), whole, strict=True):
        assert ours.score == theirs.score
        np.testing.assert_array_equal(ours.nearest, theirs.nearest)
    gpu = model._ready(images=True).gpu
    assert gpu is not None
    assert gpu.start(images[0]).slot.inference._target.whole is None


def test_a_stream_and_single_predictions_at_once(model: InReaCh) -> None:
    images = _images(10, seed=6)
    alone = [model.predict(image).score for image in images]
    for ours, score, image, its_score in zip(
        model.predict_stream(iter(images)), alone, images[::-1], alone[::-1], strict=True
    ):
        assert ours.score == score
        assert model.predict(image).score == its_score


def test_scores_are_near_the_cpus(model: InReaCh) -> None:
    cpu = InReaCh(
        "channels", backbone=Backbone.from_module(Small(), ["first", "second"]), image_size=64, dim=16, assoc_depth=3
    ).fit(_images(8))
    ours, theirs = (m.predict(_images(5, seed=3)).score for m in (model, cpu))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_halves_tell_how_far_they_are_off(model: InReaCh, precision: str) -> None:
    told = disagreement(model, _images(5, seed=4), precision)
    assert told.images == 5
    assert 0 <= told.largest_score_change < 0.2
