"""`accept`, `reject` and `undo_feedback`: what they change and leave, and what the rest of a model makes of it."""

from __future__ import annotations

from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptor_sets import shared_patches
from PIL import Image
from small_fits import Pixels, estimator, pictures, saved, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.errors import FeedbackError, ModelCorruptError, NotFittedError, ParameterError, RegionError
from inreach_fast.storage import model_file

# Preset, and its parameters.
KINDS: dict[str, dict[str, Any]] = {
    "all": {"preset": "default", "pca_dim": 12, "grid_stride": 1},
    "channels": {"preset": "channels", "min_channel_length": 1},
}
BOX = (12, 15, 9, 8)


@cache
def fitted(kind: str) -> InReaCh:
    return estimator(**KINDS[kind]).fit(pictures())


def fit(kind: str) -> InReaCh:
    """A model that may be changed."""
    return copy(fitted(kind))


def unusual(seed: int = 9) -> Pixels:
    image = pictures(1, seed=seed)[0].copy()
    x, y, w, h = BOX
    image[y : y + h, x : x + w] = 255
    return image


@pytest.fixture(params=list(KINDS))
def model(request: pytest.FixtureRequest) -> InReaCh:
    return fit(request.param)


def cells(box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    """Those of the 8 x 8 grid over 36 x 40 pixels that the box touches."""
    x, y, w, h = box
    down, right = np.mgrid[:8, :8]
    # Network pixels that hold any part of the box, then the cells of 4 x 4 of these.
    top, bottom, left, end = y * 32 // 40, -(-(y + h) * 32 // 40), x * 32 // 36, -(-(x + w) * 32 // 36)
    return (down * 4 < bottom) & (down * 4 + 4 > top) & (right * 4 < end) & (right * 4 + 4 > left)


def test_accepted_patches_score_0_and_no_other_more_than_before(model: InReaCh) -> None:
    before, threshold = model.predict(unusual()), model.threshold_
    entry = model.accept(unusual(), BOX)
    after = model.predict(unusual())
    np.testing.assert_array_equal(np.flatnonzero(cells()), entry.patches)
    assert (after.patch_scores[cells()] == 0).all()
    assert (after.patch_scores <= before.patch_scores).all()
    assert after.score < before.score
    np.testing.assert_array_equal(after.nearest, before.nearest)
    np.testing.assert_array_equal(after.feedback == 1, after.patch_scores < before.patch_scores)
    assert before.feedback is None
    assert model.threshold_ == threshold
    model.accept(unusual())
    assert model.predict(unusual()).score == 0


def test_a_rejected_region_is_anomalous_when_it_is_seen_again(model: InReaCh) -> None:
    model.threshold_ = 3 * model.predict(unusual()).score
    others = [model.predict(image) for image in pictures(3, seed=4)]
    entry = model.reject(unusual(), BOX)
    again, elsewhere = model.predict(unusual()), model.predict(unusual(seed=30))
    assert again.is_anomalous
    assert 1.0099 * model.threshold_ <= again.score < 1.05 * model.threshold_
    assert set(entry.patches.tolist()) <= set(np.flatnonzero(cells()).tolist())
    assert (again.feedback.ravel()[entry.patches] == 1).all()
    assert elsewhere.feedback.any()  # the same defect in another picture
    for image, was in zip(pictures(3, seed=4), others, strict=True):
        now = model.predict(image)
        np.testing.assert_array_equal(now.patch_scores, was.patch_scores)
        assert not now.feedback.any()
    model.threshold_ *= 2  # levels follow
    assert model.predict(unusual()).is_anomalous


def test_a_defect_that_was_trained_on_is_rejected_too(model: InReaCh) -> None:
    images = [*pictures(8), unusual(), unusual(31), unusual(32)]
    model.fit(images)
    model.threshold_ = 2 * max(model.predict(images[8]).score, 1e-6)
    assert not model.predict(images[8]).is_anomalous
    model.reject(images[8], BOX)
    assert model.predict(images[8]).is_anomalous


def test_undone_feedback_leaves_no_trace(model: InReaCh, tmp_path: Path) -> None:
    before = saved(model, tmp_path)
    model.accept(unusual(), BOX)
    model.reject(unusual(5), BOX)
    assert [(entry.number, entry.kind) for entry in model.feedback_] == [(1, "accept"), (2, "reject")]
    assert saved(model, tmp_path) != before
    assert model.undo_feedback(1).kind == "accept"
    assert model.accept(unusual(6)).number == 3
    with pytest.raises(ParameterError, match=r"no feedback 1; there is 2, 3"):
        model.undo_feedback(1)
    model.undo_feedback(3)
    model.undo_feedback(2)
    assert model.feedback_ == ()
    assert saved(model, tmp_path) == before


def test_feedback_is_saved_and_loaded(model: InReaCh, tmp_path: Path) -> None:
    model.accept(unusual(), BOX)
    model.reject(unusual(5))
    first = saved(model, tmp_path)
    again = InReaCh.load(tmp_path / "saved", backbone=tiny_backbone())
    for image in (unusual(), unusual(5)):
        mine, theirs = model.predict(image), again.predict(image)
        np.testing.assert_array_equal(mine.patch_scores, theirs.patch_scores)
        np.testing.assert_array_equal(mine.feedback, theirs.feedback)
    assert repr(again.feedback_) == repr(model.feedback_)
    assert saved(again, tmp_path) == first
    saved(model, tmp_path, final=True)
    final = InReaCh.load(tmp_path / "saved", backbone=tiny_backbone())
    assert [entry.pixels for entry in final.feedback_] == [None, None]
    assert final.predict(unusual(5)).score == model.predict(unusual(5)).score


def test_a_grown_model_is_a_new_fit_with_the_same_feedback(model: InReaCh, tmp_path: Path) -> None:
    more = pictures(3, seed=8)
    other = estimator(**KINDS[model.parameters.preset.replace("default", "all")])
    other.fit([*pictures(), *more], seeds=None if model.parameters.preset == "default" else model.seed_images_)
    for one in (model, other):
        one.accept(unusual(), BOX)
        one.reject(unusual(5), BOX)
    model.partial_fit(more)
    assert saved(model, tmp_path) == saved(other, tmp_path)
    assert len(model.forget("images[12]").feedback_) == 2
    assert model.fit(pictures()).feedback_ == ()


def test_feedback_that_cannot_be_given_again_leaves_the_model(
    model: InReaCh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.reject(unusual(), BOX)
    before = saved(model, tmp_path)

    def fails(*_: Any) -> None:
        raise RegionError("region: gone")

    monkeypatch.setattr("inreach_fast.estimator.inreach.give_again", fails)
    with pytest.raises(RegionError, match="gone"):
        model.partial_fit(pictures(2, seed=8))
    assert saved(model, tmp_path) == before


def test_limits_streams_and_batches_see_the_feedback(model: InReaCh) -> None:
    model.threshold_ = 2 * model.predict(unusual()).score
    model.accept(unusual(6), BOX)
    model.reject(unusual(), BOX)
    images = [unusual(), unusual(6), *pictures(2, seed=4)]
    plain = [model.predict(image) for image in images]
    for found, want in zip(model.predict_stream(images), plain, strict=True):
        np.testing.assert_array_equal(found.patch_scores, want.patch_scores)
        np.testing.assert_array_equal(found.feedback, want.feedback)
    batch = model.predict(images)
    np.testing.assert_array_equal(batch.feedback, np.stack([one.feedback for one in plain]))
    for threshold in (model.threshold_, plain[1].score, 0.0):
        for image, want in zip(images, plain, strict=True):
            found = model.predict(image, threshold=threshold)
            assert found.certain
            assert found.is_anomalous == (want.score > threshold)
            assert found.score_lower <= want.score <= found.score_upper
            assert (found.patch_scores_lower <= want.patch_scores).all()
            assert (want.patch_scores <= found.patch_scores).all()
    late = model.predict(unusual(), budget_ms=60_000)
    assert late.complete
    np.testing.assert_array_equal(late.patch_scores, plain[0].patch_scores)
    np.testing.assert_array_equal(late.feedback, plain[0].feedback)


def test_a_compressed_model_keeps_its_feedback(model: InReaCh) -> None:
    model.threshold_ = 2 * model.predict(unusual()).score
    model.reject(unusual(), BOX)
    model.accept(unusual(6))
    small = model.compress(to=0.5)
    assert small.feedback_ == model.feedback_
    assert small.predict(unusual()).is_anomalous
    assert small.predict(unusual(6)).score == 0


def test_scores_of_training_images_are_the_fits(model: InReaCh) -> None:
    scores, view = model.training_scores(), model.training_map(0, pictures()[0])
    model.reject(pictures()[0])
    model.accept(pictures()[1])
    np.testing.assert_array_equal(model.training_scores(pictures()), scores)
    np.testing.assert_array_equal(model.training_map(0, pictures()[0]), view)


def test_a_region_is_a_box_a_mask_or_a_file(tmp_path: Path) -> None:
    model = fit("all")
    x, y, w, h = BOX
    mask = np.zeros((40, 36), np.uint8)
    mask[y : y + h, x : x + w] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = [model.accept(unusual(), region) for region in (BOX, np.array(BOX), mask, mask > 0, tmp_path / "mask.png")]
    for entry in found:
        assert entry.region == BOX
        np.testing.assert_array_equal(entry.patches, found[0].patches)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((30, 0, 7, 4), r"x=30, y=0, width=7, height=4 does not lie within the image of 36 x 40 pixels"),
        ((-1, 0, 4, 4), "does not lie within"),
        ((0, 38, 4, 4), "does not lie within"),
        ((0, 0, 0, 4), "does not lie within"),
        ((0, 0, 4), r"expected \(x, y, width, height\)"),
        ((0, 0, 4, 4.5), r"expected \(x, y, width, height\)"),
        (7, r"expected \(x, y, width, height\)"),
        (np.ones((36, 40), bool), r"the mask has 40 x 36 pixels and the image 36 x 40 \(width x height\)"),
        (np.zeros((40, 36), bool), "marks no pixel"),
        (np.zeros((40, 36, 3), bool), r"expected a mask \(H, W\)"),
    ],
)
def test_a_region_that_is_not_in_the_image_is_refused(region: Any, message: str) -> None:
    model = fit("all")
    for call in (model.accept, model.reject):
        with pytest.raises(RegionError, match=message):
            call(unusual(), region)
    assert model.feedback_ == ()


def test_a_region_that_is_cropped_away_is_refused() -> None:
    model = estimator(preset="channels", min_channel_length=1, resize=48).fit(pictures())
    with pytest.raises(RegionError, match="cropped away"):
        model.accept(unusual(), (0, 0, 3, 3))
    assert len(model.accept(unusual(), (16, 18, 3, 3)).patches) > 0


def test_models_that_take_no_feedback_say_why() -> None:
    with pytest.raises(NotFittedError):
        estimator().accept(unusual())
    rows = InReaCh(image_size=16).fit_descriptors(shared_patches(8, 16, 12), (4, 4))
    with pytest.raises(FeedbackError, match="fitted on descriptors"):
        rows.accept(unusual())
    other = estimator(score="patchcore", min_channel_length=1).fit(pictures())
    with pytest.raises(FeedbackError, match='score="patchcore" is no distance'):
        other.reject(unusual())


def test_a_file_with_damaged_feedback_is_refused(tmp_path: Path) -> None:
    model = fit("all")
    model.accept(unusual(), BOX)
    model.save(tmp_path / "model")
    meta, arrays = model_file.load_file(tmp_path / "model")
    entry = meta["feedback"][0]
    bad: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"kind": "perhaps"}, {}),
        ({"patches": entry["patches"] + 1}, {}),
        ({"number": 0}, {}),
        ({"peak": 0.0}, {}),
        ({}, {"feedback.rows": arrays["feedback.rows"][:, :3].copy()}),
        ({}, {"feedback.patches": arrays["feedback.patches"] + 64}),
        ({}, {"feedback.rows": arrays["feedback.rows"] * np.float32(np.nan)}),
    ]
    for scalars, changed in bad:
        damaged = {**meta, "feedback": [{**entry, **scalars}]}
        model_file.save_file(tmp_path / "bad", damaged, {**arrays, **changed})
        with pytest.raises(ModelCorruptError, match="missing or malformed part"):
            InReaCh.load(tmp_path / "bad", backbone=tiny_backbone())
