"""Half precision: an option of predictions that tells how far it disagrees."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import small_model

from inreach_fast import InReaCh, errors
from inreach_fast.predict.disagreement import disagreement


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return small_model()


def _images() -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8) for i in range(3)]


def test_a_half_changes_scores_a_little_and_says_how_much(model: InReaCh) -> None:
    full = model.predict(_images())
    told = disagreement(model, _images(), "bfloat16")
    assert model.precision == "float32"
    model.precision = "bfloat16"
    try:
        half = model.predict(_images())
        streamed = [p.score for p in model.predict_stream(iter(_images()))]
    finally:
        model.precision = "float32"
    assert streamed == half.score.tolist()
    change = np.max(np.abs(half.score - full.score) / full.score)
    assert 0 < change < 0.1
    assert told.largest_score_change == pytest.approx(change, rel=1e-5)
    assert told.images == 3
    assert told.verdicts == np.count_nonzero(half.is_anomalous != full.is_anomalous)
    assert told.nearest == np.mean(half.nearest != full.nearest)
    np.testing.assert_array_equal(model.predict(_images()).score, full.score)


def test_what_is_no_precision_is_told(model: InReaCh) -> None:
    with pytest.raises(errors.ParameterError, match="precision"):
        InReaCh("channels", precision="int8")
    with pytest.raises(errors.ParameterError, match="precision"):
        disagreement(model, _images(), "float32")
    with pytest.raises(errors.ParameterError, match="precision"):
        disagreement(model, _images(), "float8")
    assert model.precision == "float32"


def test_what_is_outside_of_the_region_of_interest_does_not_count() -> None:
    inside = np.zeros((32, 32), dtype=bool)
    inside[8:24, 4:28] = True
    model = small_model(roi=inside)
    told = disagreement(model, _images(), "bfloat16")
    full = model.predict(_images())
    model.precision = "bfloat16"
    half = model.predict(_images())
    seen = ~np.isnan(full.patch_scores)
    assert 0 < seen.mean() < 1
    assert told.nearest == np.mean(half.nearest[seen] != full.nearest[seen])
    change = [np.nanmax(abs(h - f)) / np.nanmax(f) for h, f in zip(half.patch_scores, full.patch_scores, strict=True)]
    assert told.largest_patch_change == pytest.approx(max(change), rel=1e-5)
    assert 0 < told.largest_patch_change < 0.2
