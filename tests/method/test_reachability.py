"""Confirmation distances and the models made of them: every image a witness (ALGORITHM section 8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from descriptor_sets import shared_patches
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fits import estimator, pictures, saved

from inreach_fast import InReaCh, kernels
from inreach_fast.errors import DescriptorsNeededError, ModelCorruptError, ParameterError, TooFewImagesError
from inreach_fast.method.reachability import confirm
from inreach_fast.method.scoring import anomaly_map, image_score
from inreach_fast.storage import model_file

SETTINGS: dict[str, Any] = {"association": "all", "score": "reachability", "image_size": 9}


@given(
    images=st.integers(2, 6),
    patches=st.integers(1, 7),
    k=st.integers(1, 4),
    ties=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_confirmation_is_the_reference_s(images: int, patches: int, k: int, ties: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = images * patches, 3
    rows = (rng.integers(0, 2, shape) if ties else rng.normal(size=shape)).astype(np.float32)
    image = np.repeat(np.arange(images), patches)
    bank = kernels.Bank(rows, image, floor=np.full(len(rows), 9.0, np.float32))  # its floor does not count
    (wanted, witness), (following, _) = (reference.confirmation(rows, image, n) for n in (k, k + 1))
    for i in range(images):
        part = slice(i * patches, (i + 1) * patches)
        found = confirm(rows[part], i, bank, k)
        np.testing.assert_array_equal(found.distance, wanted[part])
        np.testing.assert_array_equal(found.witness, witness[part])
        np.testing.assert_array_equal(found.following, following[part])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_scores_are_those_of_confirmation_distances_in_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(40, 12)).astype(np.float32)
    image = np.repeat(np.arange(8), 5)
    queries = np.concatenate([rows[::3], (rows[:10] + 0.5 * rng.normal(size=(10, 12))).astype(np.float32)])
    between = reference.pairwise_sq_distance(rows, rows)
    between[image[:, None] == image] = np.inf
    value = np.maximum(reference.pairwise_sq_distance(queries, rows), between.min(axis=1)).min(axis=1)
    floor = np.concatenate([confirm(rows[i * 5 : i * 5 + 5], i, kernels.Bank(rows, image))[0] for i in range(8)])
    np.testing.assert_array_equal(
        kernels.nearest(queries, kernels.Bank(rows, image, floor=floor)).sq_distance, value.astype(np.float32)
    )


def test_one_image_with_many_near_patches_is_one_witness() -> None:
    # The 40 nearest rows are all of image 1; the second image is farther than any of them.
    rows = np.float32([[0.0], *([0.1 + 0.01 * i] for i in range(40)), [3.0]])
    bank = kernels.Bank(rows, [0, *[1] * 40, 2])
    found = confirm(rows[:1], 0, bank, 2)
    assert (found.distance[0], found.witness[0], found.following[0]) == (9.0, 41, np.inf)


def fitted(x: Any, **changes: Any) -> InReaCh:
    return InReaCh(**{**SETTINGS, **changes}).fit_descriptors(x, (3, 3))


@pytest.mark.parametrize("witnesses", [1, 3])
def test_a_fit_is_the_reference_s(witnesses: int) -> None:
    x = shared_patches(7, 9, 6, seed=1)
    model = fitted(x, witnesses=witnesses)
    nominal = model.nominal_
    image, patch = nominal.image_index, nominal.patch_index
    np.testing.assert_array_equal(np.sort(image * 9 + patch), np.arange(63))
    np.testing.assert_array_equal(nominal.patches, x[image, patch])
    wanted, witness = reference.confirmation(nominal.patches, image, witnesses)
    np.testing.assert_array_equal(nominal.confirmation, wanted)
    np.testing.assert_array_equal(nominal.channel_seed_image, image[witness])
    np.testing.assert_array_equal(nominal.channel_seed_patch, patch[witness])

    query = shared_patches(1, 9, 6, seed=2)[0]
    index, values = reference.nearest(query, nominal.patches, 1, None, None, wanted)
    found = model.score_descriptors(query)
    np.testing.assert_array_equal(found.nearest.ravel(), index)
    np.testing.assert_array_equal(found.patch_scores.ravel(), values)

    # Every training image is scored as if the others had been fitted without it.
    np.testing.assert_array_equal(model.threshold_images_, np.arange(7))
    for i in range(7):
        others = image != i
        without, _ = reference.confirmation(nominal.patches[others], image[others], witnesses)
        _, values = reference.nearest(x[i], nominal.patches[others], 1, None, None, without)
        assert model.threshold_scores_[i] == np.float32(image_score(anomaly_map(values.reshape(3, 3), (9, 9), 5.0)))


def test_what_one_image_shows_alone_is_not_believed() -> None:
    x = shared_patches(8, 9, 6, seed=4, spread=0.2)
    x[5, 4] += 30.0
    same = x[:1].copy()
    same[0, 4] = x[5, 4]
    plain, graded = fitted(x, score="nearest"), fitted(x)
    assert plain.score_descriptors(same[0]).patch_scores[1, 1] == 0.0
    assert graded.score_descriptors(same[0]).patch_scores[1, 1] > 100.0
    assert graded.threshold_scores_.argmax() == 5


def test_copies_do_not_confirm_each_other() -> None:
    x = shared_patches(6, 9, 6, seed=5)
    doubled = fitted(np.concatenate([x, x[2:4], x[2:3]]))
    single = fitted(x)
    np.testing.assert_array_equal(doubled.nominal_.confirmation, single.nominal_.confirmation)
    assert doubled.threshold_ == single.threshold_
    assert doubled.report_["copies"] == 3
    np.testing.assert_array_equal(doubled.training_scores()[6:], single.training_scores()[[2, 3, 2]])


@given(order=st.permutations(range(6)))
@settings(max_examples=10)
def test_the_order_of_images_changes_nothing(order: list[int]) -> None:
    x = shared_patches(6, 9, 6, seed=6)
    model, other = fitted(x), fitted(x[order])
    np.testing.assert_array_equal(model.nominal_.patches, other.nominal_.patches)
    np.testing.assert_array_equal(model.nominal_.confirmation, other.nominal_.confirmation)
    assert model.threshold_ == other.threshold_


@pytest.mark.parametrize("score", ["reachability", "nearest"])
def test_certified_bounds_hold_and_verdicts_are_those_of_the_whole_search(score: str) -> None:
    x = shared_patches(9, 36, 8, seed=7)
    model = InReaCh(association="all", score=score, image_size=24, smoothing_sigma=2.0).fit_descriptors(x, (6, 6))
    for query in shared_patches(5, 36, 8, seed=8, spread=2.0):
        whole = model.score_descriptors(query)
        for threshold in (0.5 * whole.score, 0.99 * whole.score, 1.01 * whole.score, 2.0 * whole.score):
            part = model.score_descriptors(query, threshold=threshold)
            assert part.certain
            assert part.is_anomalous == (whole.score > threshold)
            assert part.score_lower <= whole.score <= part.score_upper
            assert (part.patch_scores_lower <= whole.patch_scores).all()
            assert (whole.patch_scores <= part.patch_scores).all()


def test_growing_and_forgetting_is_the_refit() -> None:
    x = shared_patches(9, 9, 6, seed=9)
    grown, less = fitted(x[:6]).partial_fit_descriptors(x[6:]), fitted(x).forget([0, 7])
    for a, b in ((grown, fitted(x)), (less, fitted(x[[1, 2, 3, 4, 5, 6, 8]]))):
        np.testing.assert_array_equal(a.nominal_.patches, b.nominal_.patches)
        np.testing.assert_array_equal(a.nominal_.confirmation, b.nominal_.confirmation)
        assert a.threshold_ == b.threshold_


IMAGES: dict[str, Any] = {"preset": "default", "pca_dim": 8}


def test_a_model_of_images_is_saved_loaded_and_grown(tmp_path: Path) -> None:
    images = pictures(9)
    model = estimator(**IMAGES).fit(images)
    assert model.grid_ == (4, 4)
    assert model.nominal_.patches.shape == (9 * 16, 8)
    found = model.predict(images[0])
    content = saved(model, tmp_path)
    loaded = InReaCh.load(tmp_path / "saved", backbone=model.backbone)
    again = loaded.predict(images[0])
    np.testing.assert_array_equal(again.anomaly_map, found.anomaly_map)
    assert saved(loaded, tmp_path) == content
    np.testing.assert_array_equal(loaded.training_scores(), model.threshold_scores_)
    part = estimator(**IMAGES).fit(images[:6]).partial_fit(images[6:])
    np.testing.assert_array_equal(part.nominal_.confirmation, model.nominal_.confirmation)
    assert (part.threshold_, part.predict(images[0]).score) == (model.threshold_, found.score)
    part.forget([0, 1])
    assert part.threshold_ == estimator(**IMAGES).fit(images[2:]).threshold_


@pytest.mark.parametrize(("memory", "bank_images"), [(1000, None), (64000, 4)])
def test_memory_limit_spool_and_workers_change_nothing(memory: int, bank_images: int | None, tmp_path: Path) -> None:
    images, settings = pictures(8), {**IMAGES, "bank_images": bank_images}
    whole = saved(estimator(**settings).fit(images), tmp_path)
    limited = estimator(**settings)
    limited._memory_limit = memory
    limited._context = _without_check(limited._context)  # type: ignore[method-assign]
    assert saved(limited.fit(images, spool=tmp_path / "spool"), tmp_path) == whole
    assert saved(estimator(**settings, executor="processes:2").fit(images), tmp_path) == whole


class Stopped(Exception):
    """A fit that a test ends."""


@pytest.mark.parametrize("memory", [1000, None])
@pytest.mark.parametrize("bank_images", [None, 5])
def test_stopped_anywhere_and_resumed_it_is_the_same_model(
    bank_images: int | None, memory: int | None, tmp_path: Path
) -> None:
    count, spool = 34 if memory and not bank_images else 8, tmp_path / "spool"  # 34 give enough patches for an index
    images = pictures(count)

    def model() -> InReaCh:
        made = estimator(**IMAGES, bank_images=bank_images)
        made._memory_limit = memory
        made._context = _without_check(made._context)  # type: ignore[method-assign]
        return made

    fit = model().fit(images)
    assert bool(fit.nominal_.index_arrays) is (count == 34)
    whole = saved(fit, tmp_path)
    points = [("describe", 3), ("associate", 4), ("filter", 1), ("index", 1), ("confirm", 2), ("threshold", 2)]
    seen: list[tuple[str, int]] = []

    def until(point: tuple[str, int]) -> Any:
        def progress(stage: str, done: int, total: int) -> None:
            seen.append((stage, done))
            if (stage, done) == point:
                raise Stopped

        return progress

    for point in points:
        with pytest.raises(Stopped):
            model().fit(images, spool=spool, resume=point != points[0], progress=until(point))
    seen.clear()
    assert saved(model().fit(images, spool=spool, resume=True, progress=until(("", 0))), tmp_path) == whole
    assert not [done for stage, done in seen if stage == "associate" and done < count]  # nothing is done twice
    assert not spool.exists()


def test_too_few_witnesses_are_told_before_any_image_is_described(tmp_path: Path) -> None:
    for changes, images in (({"witnesses": 4}, 4), ({"witnesses": 3, "bank_images": 3}, 3)):
        stages: list[str] = []
        with pytest.raises(TooFewImagesError, match=f"and there are {images} different images"):
            estimator(**IMAGES, **changes).fit(
                pictures(4), spool=tmp_path / "spool", progress=lambda stage, *_, told=stages: told.append(stage)
            )
        assert "describe" not in stages
        assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("bad", [np.nan, -1.0, "missing", "type"])
def test_a_model_file_with_other_confirmation_distances_is_corrupt(bad: Any, tmp_path: Path) -> None:
    fitted(shared_patches(6, 9, 6, seed=5)).save(tmp_path / "model")
    meta, arrays = model_file.load_file(tmp_path / "model")
    changed = {name: np.array(array) for name, array in arrays.items()}
    if bad == "missing":
        del changed["confirmation"]
    elif bad == "type":
        changed["confirmation"] = changed["confirmation"].astype(np.float64)
    else:
        changed["confirmation"][3] = bad
    model_file.save_file(tmp_path / "bad", meta, changed)
    with pytest.raises(ModelCorruptError, match="confirmation"):
        InReaCh.load(tmp_path / "bad")


def test_following_distances_are_checked_like_the_confirmation_distances(tmp_path: Path) -> None:
    fitted(shared_patches(6, 9, 6, seed=5)).save(tmp_path / "model")
    meta, arrays = model_file.load_file(tmp_path / "model")
    for bad in (np.nan, -1.0):
        changed = {name: np.array(array) for name, array in arrays.items()}
        changed["following"][3] = bad
        model_file.save_file(tmp_path / "bad", meta, changed)
        with pytest.raises(ModelCorruptError, match="following"):
            InReaCh.load(tmp_path / "bad")


def _without_check(context: Any) -> Any:
    from dataclasses import replace

    return lambda *args, **options: replace(context(*args, **options), explicit_limit=False)


def test_a_bank_of_some_images_scores_and_audits_all(tmp_path: Path) -> None:
    x = shared_patches(9, 9, 6, seed=10)
    x[4] += 5.0
    model = fitted(x, bank_images=5)
    images = np.unique(model.nominal_.image_index)
    assert len(images) == 5
    np.testing.assert_array_equal(model.nominal_.confirmation, fitted(x[images]).nominal_.confirmation)
    assert len(model.threshold_scores_) == 9
    assert model.threshold_scores_.argmax() == 4
    outside = int(np.setdiff1d(np.arange(9), images)[0])
    assert model.threshold_scores_[outside] == np.float32(model.score_descriptors(x[outside]).score)
    with pytest.raises(DescriptorsNeededError, match="bank_images"):
        model.partial_fit_descriptors(x[:1] + 1)
    pixels = pictures(8)
    part = estimator(**IMAGES, bank_images=4).fit(pixels[:6]).partial_fit(pixels[6:])
    assert saved(part, tmp_path) == saved(estimator(**IMAGES, bank_images=4).fit(pixels), tmp_path)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match='score: "reachability" needs the witnesses of association="all"'):
        InReaCh("channels", score="reachability")
    with pytest.raises(ParameterError, match='score: "mahalanobis" needs channels'):
        InReaCh(score="mahalanobis")
    with pytest.raises(ParameterError, match="bank_images: needs association"):
        InReaCh("channels", bank_images=5)
    x = shared_patches(3, 9, 6)
    with pytest.raises(TooFewImagesError, match="witnesses: 3 other images are to confirm each, and there are 3"):
        fitted(x, witnesses=3)
    with pytest.raises(ParameterError, match="seeds: association"):
        InReaCh(**SETTINGS).fit_descriptors(x, (3, 3), seeds=[0])
    with pytest.raises(ParameterError, match="grid_stride: 9 leaves no cell"):
        estimator(**{**IMAGES, "grid_stride": 9}).fit(pictures(3))
