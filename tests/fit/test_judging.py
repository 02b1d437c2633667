"""What a fit says of itself: images above the threshold, and warnings of models that tell nothing."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_fits import estimator, pictures

from inreach_fast import InReaCh
from inreach_fast.fit.judging import named, threshold_of
from inreach_fast.parameters import Parameters

GRID = (6, 6)


def even_rows(images: int = 12, defect: bool = True) -> NDArray[np.float32]:
    """Parts whose patches are nearly equally far from their mean, as in a thousand dimensions; one has a scratch."""
    random = np.random.default_rng(0)
    part = 20 * random.standard_normal((1, 36, 400))
    rows = part + random.standard_normal((images, 36, 400))
    if defect:
        rows[-1, 10:16] = 30 * random.standard_normal((6, 400))
    return rows.astype(np.float32)


def fitted(rows: NDArray[np.float32], preset: str = "channels", **changes: Any) -> InReaCh:
    parameters: dict[str, Any] = {"image_size": 24, "resize": None, "smoothing_sigma": 1.0, "assoc_depth": 2, **changes}
    return InReaCh(preset, **parameters).fit_descriptors(rows, GRID)


def test_the_default_keeps_even_channels_and_finds_the_scratch(caplog: pytest.LogCaptureFixture) -> None:
    rows = even_rows()
    model = fitted(rows)
    assert model.report_["channels_spread_out"] == 0
    assert model.report_["nominal"] > 0.9 * 12 * 36
    assert model.report_["above_threshold"] == ["x[11]"]
    assert model.report_["warnings"] == []
    assert caplog.text == ""
    assert model.report_["covered_places"] == 36
    assert model.report_["unexplained"] < 0.05
    scratched = even_rows(13)[-1]
    assert model.score_descriptors(scratched).is_anomalous
    assert not model.score_descriptors(even_rows(20, defect=False)[-1]).is_anomalous


def test_the_literal_filter_warns_of_what_it_dropped(caplog: pytest.LogCaptureFixture) -> None:
    rows = even_rows()
    rows[:, 0] += 8 * np.linspace(0, 1, 12, dtype=np.float32)[:, None] ** 2  # one uneven channel
    with caplog.at_level(logging.WARNING, "inreach_fast"):
        model = fitted(rows, "paper")
    counts = model.report_
    assert counts["channels_spread_out"] > counts["channels_living"]
    covered = [text for text in counts["warnings"] if "places of the grid" in text]
    assert len(covered) == 1
    assert "spread_rule" in covered[0]
    assert covered[0] in caplog.text
    assert covered[0] in repr(counts)
    better = fitted(rows, "paper", spread_rule="about_mean")  # the advice is true
    assert not any("places of the grid" in text for text in better.report_["warnings"])
    assert better.report_["nominal"] > 10 * counts["nominal"]


def test_images_of_nothing_in_common() -> None:
    rows = np.random.default_rng(1).standard_normal((8, 36, 200)).astype(np.float32)
    warnings = fitted(rows, min_channel_length=1).report_["warnings"]
    assert any("of their variance is left" in text for text in warnings)


def test_images_above_the_threshold_are_named_the_highest_first() -> None:
    images = pictures(12, seed=3)
    for number, depth in ((4, 12), (7, 20)):
        images[number][4:30, 4 : 4 + depth] = (250, 0, 250)
    model = estimator(min_channel_length=1).fit([*images, images[4]])
    scores = model.training_scores()
    above = model.report_["above_threshold"]
    assert set(above) == {f"images[{i}]" for i in np.flatnonzero(scores > model.threshold_)}
    assert {"images[4]", "images[7]", "images[12]"} <= set(above)  # with the copy
    order = [scores[int(name[7:-1])] for name in above]
    assert order == sorted(order, reverse=True)
    model.forget([7])
    assert "images[7]" not in model.report_["above_threshold"]


def test_many_images_above_the_threshold_are_warned_of() -> None:
    rows = even_rows(12, defect=False)
    rows[6:] += 3 * np.random.default_rng(2).standard_normal((6, 36, 400)).astype(np.float32)
    warnings = fitted(rows).report_["warnings"]
    assert any("scored training images lie above the threshold" in text for text in warnings)


def test_images_that_alone_have_all_nominal_patches_have_no_say() -> None:
    p = Parameters()
    assert threshold_of(np.array([np.inf, 2.0, 2.0], np.float32), p) == threshold_of(
        np.array([2.0, 2.0], np.float32), p
    )
    assert threshold_of(np.array([np.inf], np.float32), p) == 0.0
    # A part in one image only: its patches are the seed's own.
    rows = 100 * np.random.default_rng(3).standard_normal((3, 36, 8)).astype(np.float32)
    model = InReaCh(
        "channels", image_size=24, assoc_depth=1, min_channel_length=0, spread_filter=False, assoc_pairs="later"
    )
    model.fit_descriptors(rows, GRID, seeds=[2])
    assert set(model.nominal_.image_index.tolist()) == {2}
    assert np.isfinite(model.threshold_)
    assert any("far from the other images" in text for text in model.report_["warnings"])


def test_few_and_many_names() -> None:
    assert named(["a", "b"]) == "2 (a, b)"
    assert named([str(i) for i in range(12)]) == "12 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more)"
