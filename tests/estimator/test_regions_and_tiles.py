"""``roi`` and ``tile`` through a whole model: fit, predict, growth, limits, feedback, files."""

from __future__ import annotations

from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descriptor_sets import shared_patches
from small_fits import Pixels, estimator, pictures, saved, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone
from inreach_fast.errors import ParameterError, RegionError

KINDS: dict[str, dict[str, Any]] = {
    "all": {"preset": "default", "pca_dim": 12, "grid_stride": 1},
    "channels": {"preset": "channels", "min_channel_length": 1, "position": "always"},
}
# Of pictures of 40 x 36 pixels; on the grid of 8 x 8 rows 2 to 6 and columns 2 to 6.
ROI = np.zeros((40, 36), dtype=bool)
ROI[10:34, 9:32] = True
INSIDE = np.zeros((8, 8), dtype=bool)
INSIDE[2:7, 2:7] = True


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_roi(kind: str, **changes: Any) -> InReaCh:
    return estimator(**{**KINDS[kind], "roi": ROI, **changes})


@cache
def fitted(kind: str) -> InReaCh:
    """A model with the region; not to be changed."""
    return with_roi(kind).fit(pictures())


def scrambled(images: list[Pixels], seed: int) -> list[Pixels]:
    """The same inside of the region."""
    random = np.random.default_rng(seed)
    return [np.where(ROI[:, :, None], image, random.integers(0, 256, image.shape)).astype(np.uint8) for image in images]


def test_what_is_outside_has_no_effect(kind: str, tmp_path: Path) -> None:
    one, two = fitted(kind), with_roi(kind).fit(scrambled(pictures(), 1))
    assert saved(one, tmp_path) == saved(two, tmp_path)
    image = pictures(1, seed=5)
    a, b = one.predict(image[0]), one.predict(scrambled(image, 2)[0])
    np.testing.assert_array_equal(a.patch_scores, b.patch_scores)
    assert a.score == b.score


def test_patches_outside_are_neither_learnt_nor_scored(kind: str) -> None:
    model = fitted(kind)
    nominal = model.nominal_
    assert INSIDE.ravel()[nominal.patch_index].all()
    assert INSIDE.ravel()[nominal.channel_seed_patch].all()
    if kind == "all":
        assert len(nominal) == INSIDE.sum() * len(np.unique(model.originals_))
    found = model.predict(pictures(1, seed=5)[0])
    np.testing.assert_array_equal(np.isnan(found.patch_scores), ~INSIDE)
    np.testing.assert_array_equal(found.nearest >= 0, INSIDE)
    np.testing.assert_array_equal(np.isnan(found.anomaly_map), ~INSIDE.repeat(4, axis=0).repeat(4, axis=1))
    assert found.score == np.nanmax(found.anomaly_map)
    original = model.map_to_original(found.anomaly_map, found.original_size)
    assert original.shape == (40, 36)
    assert np.isnan(original[0]).all()
    for row in np.unique(found.nearest[INSIDE])[:5]:  # numbers of the grid lead back to the patch
        image, place = int(nominal.image_index[row]), int(nominal.patch_index[row])
        again = model.predict(pictures()[image])
        assert again.patch_scores.ravel()[place] <= again.patch_scores[INSIDE].max()


def test_the_map_at_the_border_is_not_damped() -> None:
    model = with_roi("all", smoothing_sigma=3.0).fit(pictures())
    frame = model._ready().frame
    np.testing.assert_allclose(frame.map(np.full(25, 7.0, np.float32))[8:28, 8:28], 7, rtol=1e-6)
    values = np.zeros(25, np.float32)
    values[0] = 1
    assert frame.back_projection(np.ones((32, 32)))[0] == pytest.approx(np.nansum(frame.map(values)), rel=1e-5)


def test_a_defect_is_found_inside_and_not_outside(kind: str) -> None:
    model = fitted(kind)
    good = pictures(1, seed=5)[0]
    inside, outside = good.copy(), good.copy()
    inside[18:26, 16:24] = 255
    outside[:8] = 255
    assert model.predict(outside).score == model.predict(good).score
    found = model.predict(inside)
    assert found.score > 2 * model.predict(good).score
    row, column = np.unravel_index(np.nanargmax(model.map_to_original(found.anomaly_map, (40, 36))), (40, 36))
    assert 16 <= row <= 28
    assert 13 <= column <= 27


def test_a_region_lives_on_in_the_model(kind: str, tmp_path: Path) -> None:
    model = fitted(kind)
    first = saved(model, tmp_path)
    again = InReaCh.load(tmp_path / "saved", backbone=tiny_backbone())
    assert again.parameters.roi == model.parameters.roi
    assert again.predict(pictures(1, seed=5)[0]).score == model.predict(pictures(1, seed=5)[0]).score
    assert saved(again, tmp_path) == first
    seeds = None if kind == "all" else model.seed_images_
    again.partial_fit(pictures(3, seed=8))
    whole = with_roi(kind).fit([*pictures(), *pictures(3, seed=8)], seeds=seeds)
    assert saved(again, tmp_path) == saved(whole, tmp_path)
    np.testing.assert_array_equal(again.training_scores(), whole.training_scores())
    view = again.training_map(0, pictures()[0])
    assert view.shape == (40, 36)
    assert np.isnan(view[0]).all()
    assert again.compress(to=0.5).predict(pictures()[0]).score >= 0


def test_limits_hold_in_a_region(kind: str) -> None:
    model = fitted(kind)
    for image in (*pictures(3, seed=5), scrambled(pictures(1), 3)[0]):
        whole = model.predict(image)
        for threshold in (model.threshold_, whole.score, 0.0):
            found = model.predict(image, threshold=threshold)
            assert found.certain
            assert found.is_anomalous == (whole.score > threshold)
            assert found.score_lower <= whole.score <= found.score_upper
            assert (found.patch_scores_lower[INSIDE] <= whole.patch_scores[INSIDE]).all()
        late = model.predict(image, budget_ms=60_000)
        assert late.complete
        np.testing.assert_array_equal(late.patch_scores, whole.patch_scores)
        np.testing.assert_array_equal(late.nearest, whole.nearest)


def test_a_plan_counts_the_patches_of_the_region(kind: str) -> None:
    plan = with_roi(kind).plan(pictures())
    assert plan.patches == INSIDE.sum()


def test_feedback_in_a_region() -> None:
    model = copy(fitted("all"))
    with pytest.raises(RegionError, match="outside of the region of interest"):
        model.accept(pictures()[0], (0, 0, 4, 4))
    image = pictures(1, seed=5)[0]
    entry = model.accept(image)
    np.testing.assert_array_equal(entry.patches, np.flatnonzero(INSIDE))
    found = model.predict(image)
    assert (found.patch_scores[INSIDE] == 0).all()
    assert (found.feedback == np.where(INSIDE, 1, 0)).all()


def test_images_of_other_proportions_are_named() -> None:
    with pytest.raises(RegionError, match=r"images\[3\]: has 40 x 36 pixels"):
        with_roi("all").fit([*pictures(3), pictures(1, size=(36, 40))[0]])
    model = copy(fitted("all"))
    with pytest.raises(RegionError, match=r"the image: has 30 x 40 pixels"):
        model.predict(pictures(1, size=(40, 30))[0])
    large = model.predict(pictures(1, size=(80, 72))[0])
    assert model.map_to_original(large.anomaly_map, large.original_size).shape == (80, 72)


def test_where_there_can_be_no_region() -> None:
    with pytest.raises(ParameterError, match=r'roi: .* set align="never"'):
        estimator(roi=ROI, align="auto")
    with pytest.raises(ParameterError, match="roi: descriptors are taken as they are"):
        InReaCh(image_size=16, roi=ROI).fit_descriptors(shared_patches(8, 16, 12), (4, 4))
    with pytest.raises(ParameterError, match="tile: descriptors are taken as they are"):
        InReaCh(image_size=16, tile=2, tile_overlap=8).fit_descriptors(shared_patches(8, 16, 12), (4, 4))


# ------------------------------------------------------------------------------------------------------- tiles


def test_tiles_of_a_network_without_context_give_the_scores_of_the_whole(kind: str) -> None:
    """The first level sees 4 x 4 pixels and no border."""
    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.add_module("a", torch.nn.Conv2d(3, 16, 4, stride=4))
    network = Backbone.from_module(module, levels=["a"], name="flat")
    common = {**KINDS[kind], "backbone": network, "neighbourhood": 1, "dim": 16, "pca_dim": None}
    images = pictures(8, size=(90, 100))
    tiled = estimator(**common, tile=(2, 3), tile_overlap=8).fit(images)
    whole = estimator(**common, image_size=(56, 80)).fit(images)
    assert tiled.grid_ == whole.grid_ == (14, 20)
    assert tiled.parameters.input_size == (56, 80)
    image = pictures(1, size=(90, 100), seed=5)[0]
    a, b = tiled.predict(image), whole.predict(image)
    assert a.anomaly_map.shape == (56, 80)
    np.testing.assert_allclose(a.patch_scores, b.patch_scores, rtol=1e-3, atol=1e-6)
    assert tiled.map_to_original(a.anomaly_map, a.original_size).shape == (90, 100)


def test_a_small_defect_is_found_in_a_large_image(kind: str, tmp_path: Path) -> None:
    images = pictures(5, size=(45, 110))
    model = estimator(**KINDS[kind], tile=(1, 3), tile_overlap=16).fit(images)
    bad = pictures(1, size=(45, 110), seed=5)[0]
    bad[20:27, 40:47] = 255
    found = model.predict(bad)
    view = model.map_to_original(found.anomaly_map, found.original_size)
    row, column = np.unravel_index(np.argmax(view), view.shape)
    assert 15 <= row <= 32
    assert 35 <= column <= 52
    saved(model, tmp_path)
    again = InReaCh.load(tmp_path / "saved", backbone=tiny_backbone())
    np.testing.assert_array_equal(again.predict(bad).anomaly_map, found.anomaly_map)
    assert again.plan(images).patches == again.grid_[0] * again.grid_[1] == 8 * 16
    seeds = None if kind == "all" else model.seed_images_
    whole = estimator(**KINDS[kind], tile=(1, 3), tile_overlap=16).fit([*images, bad], seeds=seeds)
    assert saved(again.partial_fit([bad]), tmp_path) == saved(whole, tmp_path)
    again.accept(bad, (40, 20, 6, 6))
    assert again.predict(bad).score < found.score


def test_tiles_with_a_region() -> None:
    region = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    model = estimator(**KINDS["all"], tile=2, tile_overlap=8, roi=region).fit(pictures(8, size=(70, 64)))
    found = model.predict(pictures(1, size=(70, 64), seed=3)[0])
    assert found.patch_scores.shape == (14, 14)
    assert np.isfinite(found.patch_scores).sum() == 8 * 8 - 4  # of the corners a quarter lies inside


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": 0}, "tile: expected a whole number"),
        ({"tile": (2, 3, 4)}, "tile: expected one number of tiles"),
        ({"tile": "2"}, "tile: expected"),
        ({"tile": 2, "tile_overlap": 20}, "tile_overlap: expected at most half of image_size"),
        ({"tile": 2, "tile_overlap": -1}, "tile_overlap: expected a whole number"),
        ({"tile": 2, "tile_overlap": 8, "resize": 64}, "tile: .*resize=None"),
    ],
)
def test_no_tiles(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        estimator(**changes)


def test_tiles_that_do_not_fit_each_other_say_which_do() -> None:
    with pytest.raises(ParameterError, match=r"tile_overlap: 6 of 32 pixels; .*give one of 0, 4, 8, 12, 16"):
        estimator(**KINDS["all"], tile=2, tile_overlap=6).fit(pictures())
