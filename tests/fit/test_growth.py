from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptor_sets import shared_patches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from small_fits import Pixels, estimator, pictures, saved, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.errors import (
    DegenerateDataError,
    DescriptorsNeededError,
    FinalModelError,
    GrowthError,
    ImageError,
    MemoryLimitError,
    MixedSizesError,
    ModelCorruptError,
    NoChannelsError,
    NotFittedError,
    ParameterError,
    RefitNeededError,
    SeedImageError,
    TooFewImagesError,
)
from inreach_fast.fit.growth import names_without
from inreach_fast.storage import model_file

POOL = shared_patches(16, 9, 6, seed=3)


def descriptor_model(**changes: Any) -> InReaCh:
    parameters: dict[str, Any] = {"image_size": 9, "assoc_depth": 2, "threshold_images": 3, "min_channel_length": 0}
    return InReaCh("channels", **{**parameters, **changes})


def steps(data: st.DataObject, start: list[int], seeds: set[int], pool: int) -> list[tuple[str, list[int]]]:
    """Random additions and removals, of images by their number in the pool; seeds stay."""
    here, out = list(start), []
    for _ in range(data.draw(st.integers(1, 4))):
        free = [i for i in range(pool) if i not in here]
        removable = [i for i in here if i not in seeds]
        kinds = [kind for kind, possible in (("add", free), ("forget", removable)) if possible]
        kind = data.draw(st.sampled_from(kinds))
        most = 3 if kind == "add" else min(3, len(here) - 2)
        if most < 1:
            continue
        chosen = data.draw(
            st.lists(st.sampled_from(free if kind == "add" else removable), min_size=1, max_size=most, unique=True)
        )
        here = here + chosen if kind == "add" else [i for i in here if i not in chosen]
        out.append((kind, chosen))
    return out


# ---------------------------------------------------------------------------- the same as fitting the result


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    pairs=st.sampled_from(["all", "later"]),
    score=st.sampled_from(["nearest", "mahalanobis"]),
    whole=st.booleans(),
    limit=st.sampled_from([None, 20_000]),
    reload=st.booleans(),
)
def test_descriptors_added_and_forgotten_give_the_model_of_the_result(
    data: st.DataObject, pairs: str, score: str, whole: bool, limit: int | None, reload: bool, tmp_path: Path
) -> None:
    pool = np.round(POOL / 2) if whole else POOL  # ties, duplicates
    here = data.draw(st.lists(st.integers(0, 15), min_size=4, max_size=12, unique=True))
    seeds = set(data.draw(st.lists(st.sampled_from(here), min_size=1, max_size=3, unique=True)))
    settings_of = {"assoc_pairs": pairs, "score": score, "memory_limit": limit}
    x = pool[here]
    arrays = [x]  # they must live: the threshold's sample is filled up from them
    model = descriptor_model(**settings_of).fit_descriptors(x, (3, 3), seeds=[here.index(s) for s in seeds])
    for kind, chosen in steps(data, here, seeds, 16):
        if reload:
            model = InReaCh.load(_written(model, tmp_path))
            model.memory_limit = limit
        if kind == "add":
            arrays.append(pool[chosen])
            model.partial_fit_descriptors(arrays[-1])
            here = here + chosen
        else:
            known = pool[here] if reload else None
            model.forget([here.index(i) for i in chosen], x=known)
            here = [i for i in here if i not in chosen]
        fresh = descriptor_model(**settings_of)
        fresh.fit_descriptors(pool[here], (3, 3), seeds=[here.index(s) for s in seeds])
        assert model.seed_images_.tolist() == fresh.seed_images_.tolist()
        assert saved(model, tmp_path, final=True) == saved(fresh, tmp_path, final=True)
        if not reload:
            assert saved(model, tmp_path) == saved(fresh, tmp_path)


def _written(model: InReaCh, folder: Path) -> Path:
    model.save(folder / "model")
    return folder / "model"


IMAGES = pictures(14, size=(32, 32), seed=5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), limit=st.sampled_from([None, 200_000]), reload=st.booleans())
def test_images_added_and_forgotten_give_the_model_of_the_result(
    data: st.DataObject, limit: int | None, reload: bool, tmp_path: Path
) -> None:
    here = data.draw(st.lists(st.integers(0, 13), min_size=5, max_size=9, unique=True))
    seeds = set(data.draw(st.lists(st.sampled_from(here), min_size=1, max_size=3, unique=True)))
    settings_of: dict[str, Any] = {"threshold_images": 3, "min_channel_length": 0, "memory_limit": limit}
    model = estimator(**settings_of).fit([IMAGES[i] for i in here], seeds=[here.index(s) for s in seeds])
    for kind, chosen in steps(data, here, seeds, 14):
        if reload:
            model = InReaCh.load(_written(model, tmp_path), backbone=tiny_backbone())
        if kind == "add":
            model.partial_fit([IMAGES[i] for i in chosen])
            here = here + chosen
        else:
            model.forget([here.index(i) for i in chosen])
            here = [i for i in here if i not in chosen]
        fresh = estimator(**settings_of).fit([IMAGES[i] for i in here], seeds=[here.index(s) for s in seeds])
        assert model.image_names_ == fresh.image_names_
        assert saved(model, tmp_path) == saved(fresh, tmp_path)


def turned(count: int, seed: int = 0) -> list[Pixels]:
    """Pictures of one thing in four turns, which alignment finds."""
    base = np.asarray(Image.fromarray(pictures(1)[0]).resize((32, 32))) // 4
    base[:16] += 150
    random = np.random.default_rng(seed)
    images = [np.rot90(base, i % 4).astype(np.float64) for i in range(count)]
    return [np.clip(i + random.normal(0, 1 + k % 5, i.shape), 0, 255).astype(np.uint8) for k, i in enumerate(images)]


def test_alignment_is_kept_up(tmp_path: Path) -> None:
    images = turned(14)
    settings_of: dict[str, Any] = {"align": "auto", "transpose_threshold": 600, "min_channel_length": 1}
    model = estimator(**settings_of).fit(images[:9], seeds=[2, 5])
    assert model.rotations_ is not None
    model.partial_fit(images[9:]).forget([3, 10])
    left = [image for i, image in enumerate(images) if i not in (3, 10)]
    fresh = estimator(**settings_of).fit(left, seeds=[2, 4])
    assert np.array_equal(model.rotations_, fresh.rotations_)
    assert saved(model, tmp_path) == saved(fresh, tmp_path)
    model.forget(0)  # the others are rotated to a seed image, which stays
    fresh = estimator(**settings_of).fit(left[1:], seeds=[1, 3])
    assert saved(model, tmp_path) == saved(fresh, tmp_path)
    again = estimator(**settings_of).fit(left[2:])
    assert saved(model.forget(0, refit=True), tmp_path, final=True) == saved(again, tmp_path, final=True)


def test_a_search_that_did_not_help_is_repeated_too(tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (32, 32, 3)).astype(np.uint8) // 8 + 100 for i in range(9)]
    images = [np.clip(i + p // 8, 0, 255).astype(np.uint8) for i, p in zip(images, pictures(9, (32, 32)), strict=True)]
    settings_of: dict[str, Any] = {"align": "auto", "transpose_threshold": 1e6, "min_channel_length": 0}
    model = estimator(**settings_of).fit(images[:7], seeds=[2])
    assert model.rotations_ is None
    model.partial_fit(images[7:]).forget([0, 4])  # the first image too: all angles are sought anew
    left = [image for i, image in enumerate(images) if i not in (0, 4)]
    assert saved(model, tmp_path) == saved(estimator(**settings_of).fit(left, seeds=[1]), tmp_path)


def test_a_folder_and_another_keep_the_names_of_their_files(tmp_path: Path) -> None:
    for folder, numbers in (("a", range(6)), ("b", range(6, 9))):
        (tmp_path / folder).mkdir()
        for i in numbers:
            Image.fromarray(IMAGES[i]).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "b" / "bad.png").write_bytes(b"no image")
    model = estimator(min_channel_length=1).fit(tmp_path / "a", seeds=["3.png"])
    for folder in ("a", "b"):
        assert list((tmp_path / folder).iterdir())
    with pytest.raises(ImageError, match=r"bad\.png"):
        model.partial_fit(tmp_path / "b")
    assert model.n_images_ == 6
    model.partial_fit(tmp_path / "b", skip_bad=True)
    assert model.image_names_ == [f"{i}.png" for i in range(9)]
    assert model.report_["skipped_names"] == ["bad.png"]
    assert model.report_["images"] == 10
    for path in (tmp_path / "a").iterdir():
        path.unlink()  # the old images are not read again
    model.forget(["2.png", "7.png"])
    assert model.image_names_ == ["0.png", "1.png", "3.png", "4.png", "5.png", "6.png", "8.png"]
    assert model.seed_images_.tolist() == [2]
    assert len(model.training_scores()) == 7


def test_names_of_images_without_a_name_move_up() -> None:
    assert names_without(["images[0]", "images[2]", "images[3]"], ["images[1]"], np.array([1])) == (
        ["images[0]", "images[2]"],
        ["images[1]"],
    )
    assert names_without(["images[0]", "images[2]", "images[3]"], ["images[1]"], np.array([0])) == (
        ["images[1]", "images[2]"],
        ["images[0]"],
    )
    assert names_without(["a", "images[1]", "b", "x[4]"], ["c"], np.array([0, 2])) == (["images[0]", "x[2]"], ["c"])


def test_training_scores_of_a_loaded_and_grown_model(tmp_path: Path) -> None:
    model = estimator(threshold_images=3).fit(IMAGES[:8]).partial_fit(IMAGES[8:])
    scores = model.training_scores(IMAGES)
    loaded = InReaCh.load(_written(model, tmp_path), backbone=tiny_backbone())
    assert np.array_equal(loaded.training_scores(), scores)
    model.save(tmp_path / "final", final=True)
    final = InReaCh.load(tmp_path / "final", backbone=tiny_backbone())
    with pytest.raises(ParameterError, match="final=True"):
        final.training_scores()
    assert np.array_equal(final.training_scores(IMAGES), scores)
    assert np.array_equal(model.training_scores(), scores)


# --------------------------------------------------------------------------------------------- what cannot be


def unchanged(model: InReaCh, before: bytes, folder: Path) -> bool:
    return saved(model, folder) == before


def test_a_final_model_cannot_grow(tmp_path: Path) -> None:
    model = estimator().fit(IMAGES)
    whole = saved(model, tmp_path)
    final = saved(model, tmp_path, final=True)
    assert IMAGES[0].tobytes() in whole  # inputs of 32x32 are these very pixels
    assert IMAGES[0].tobytes() not in final
    loaded = InReaCh.load(tmp_path / "saved", backbone=tiny_backbone())
    assert saved(loaded, tmp_path) == final
    for call in (lambda: loaded.partial_fit(IMAGES[:1]), lambda: loaded.forget(3)):
        with pytest.raises(FinalModelError, match="final=True"):
            call()
    assert loaded.predict(IMAGES[0]).score == model.predict(IMAGES[0]).score


def test_replaced_patches_cannot_grow(tmp_path: Path) -> None:
    from dataclasses import replace

    model = estimator().fit(IMAGES)
    final = saved(model, tmp_path, final=True)
    model.nominal_ = replace(model.nominal_, index_arrays=None)
    assert saved(model, tmp_path, thumbnails=False) == final
    assert not model.can_grow
    with pytest.raises(FinalModelError, match="replaced"):
        model.forget(0)


def test_replaced_patches_are_searched_from_then_on() -> None:
    from inreach_fast.method.nominal_model import NominalModel

    model = estimator().fit(IMAGES)
    before, scores = model.predict(IMAGES[0]).score, model.training_scores()
    nominal = model.nominal_
    arrays = ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")
    others = nominal.image_index != 0
    model.nominal_ = NominalModel(*(getattr(nominal, name)[others] for name in arrays))
    assert model.predict(IMAGES[0]).score > before
    assert model.predict(IMAGES[0], threshold=0.0).score_upper > before
    assert (model.training_scores() > scores).any()


def test_seed_images_are_not_forgotten_without_a_refit(tmp_path: Path) -> None:
    model = estimator(min_channel_length=1).fit(IMAGES, seeds=[3, 6])
    before = saved(model, tmp_path)
    with pytest.raises(SeedImageError, match=r"images\[6\] is a seed image.*refit=True"):
        model.forget([1, 6])
    assert unchanged(model, before, tmp_path)
    left = [image for i, image in enumerate(IMAGES) if i not in (1, 6)]
    fresh = estimator(min_channel_length=1).fit(left)
    assert saved(model.forget([1, 6], refit=True), tmp_path) == saved(fresh, tmp_path)


def test_a_position_test_that_turns_out_otherwise(tmp_path: Path) -> None:
    upright = [np.clip(i.astype(int) // 4 + np.arange(32)[:, None, None] * 5, 0, 255).astype(np.uint8) for i in IMAGES]
    model = estimator(position="auto", transpose_threshold=600.0, min_channel_length=1).fit(upright)
    assert model.positions_
    before = saved(model, tmp_path)
    lying = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in upright]
    with pytest.raises(RefitNeededError, match="no longer have consistent positions"):
        model.partial_fit(lying)
    assert unchanged(model, before, tmp_path)
    fresh = estimator(position="auto", transpose_threshold=600.0, min_channel_length=1).fit(upright + lying)
    assert not fresh.positions_
    assert saved(model.partial_fit(lying, refit=True), tmp_path) == saved(fresh, tmp_path)
    with pytest.raises(RefitNeededError, match="now have consistent positions"):
        model.forget([i for i in range(14, 28) if i not in model.seed_images_])


def test_calls_that_fail_leave_the_model_as_it_was(tmp_path: Path) -> None:
    model = estimator(min_channel_length=8).fit(IMAGES[:10] + IMAGES[:1])
    before = saved(model, tmp_path)
    others = [i for i in range(11) if i not in model.seed_images_]
    for error, call in (
        (ImageError, lambda: model.partial_fit(["absent.png"])),
        (TooFewImagesError, lambda: model.partial_fit(["absent.png"], skip_bad=True)),
        (ParameterError, lambda: model.partial_fit(5)),
        (ParameterError, lambda: model.forget(11)),
        (ParameterError, lambda: model.forget("absent.png")),
        (NoChannelsError, lambda: model.forget(others[:6])),
        (GrowthError, lambda: model.partial_fit_descriptors(np.zeros((1, 64, 26), np.float32))),
        (ParameterError, lambda: model.forget(others[0], x=np.zeros((11, 64, 26), np.float32))),
    ):
        with pytest.raises(error):
            call()
        assert unchanged(model, before, tmp_path), error
    few = estimator(min_channel_length=0).fit([IMAGES[0], IMAGES[0], IMAGES[1]], seeds=[1])
    with pytest.raises(DegenerateDataError, match="would be left are identical"):
        few.forget(2)
    with pytest.raises(TooFewImagesError):
        few.forget([0, 2])
    for nothing in (lambda: InReaCh("channels").partial_fit(IMAGES), lambda: InReaCh("channels").forget(0)):
        with pytest.raises(NotFittedError):
            nothing()


def test_a_limit_that_is_too_small_for_the_resulting_set_is_refused(tmp_path: Path) -> None:
    model = estimator().fit(IMAGES[:10])
    described = descriptor_model().fit_descriptors(POOL[:10], (3, 3))
    before, before_described = saved(model, tmp_path), saved(described, tmp_path)
    other = next(i for i in range(10) if i not in model.seed_images_)
    another = next(i for i in range(10) if i not in described.seed_images_)
    for one in (model, described):
        one.memory_limit = "1kB"
    for images, call in (
        (12, lambda: model.partial_fit(IMAGES[10:12])),
        (9, lambda: model.forget(other)),
        (9, lambda: model.forget(other, refit=True)),
        (12, lambda: described.partial_fit_descriptors(POOL[10:12])),
        (9, lambda: described.forget(another)),
    ):
        with pytest.raises(MemoryLimitError, match=f"memory_limit: 1.0 kB is too little for {images} images"):
            call()
    model.memory_limit = described.memory_limit = None
    assert unchanged(model, before, tmp_path)
    assert unchanged(described, before_described, tmp_path)


@pytest.mark.parametrize("refit", [False, True])
def test_no_file_is_left_open(refit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    leaked: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda left: leaked.append(str(left.exc_value)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        model = estimator(memory_limit=60_000).fit(IMAGES[:10])  # all goes to files
        model.partial_fit(IMAGES[10:12], refit=refit)
        model.forget(int(np.setdiff1d(np.arange(12), model.seed_images_)[0]), refit=refit)
        described = descriptor_model(memory_limit=4000).fit_descriptors(POOL[:10], (3, 3))
        described.partial_fit_descriptors(POOL[10:12])
        gc.collect()
    assert leaked == []


def test_descriptors_that_are_no_longer_at_hand() -> None:
    x: NDArray[np.float32] = POOL.copy()
    model = descriptor_model(threshold_images=2).fit_descriptors(x, (3, 3), seeds=[0])
    del x
    gc.collect()
    expected = POOL.copy()
    drawn = next(i for i in model.threshold_images_.tolist() if i != 0)
    for _ in range(8):  # the reserve is used up
        model.forget(drawn)
        expected = np.delete(expected, drawn, axis=0)
        drawn = next(i for i in model.threshold_images_.tolist() if i != 0)
    with pytest.raises(DescriptorsNeededError, match=r"x\[\d+\].*x=\(N, P, D\)"):
        model.forget(drawn)
    with pytest.raises(ParameterError, match="got 3"):
        model.forget(drawn, x=expected[:3])
    with pytest.raises(DescriptorsNeededError):
        model.forget(drawn, x=expected + 1)  # other descriptors
    model.forget(drawn, x=expected)
    left = np.delete(expected, drawn, axis=0)
    fresh = descriptor_model(threshold_images=2).fit_descriptors(left, (3, 3), seeds=[0])
    assert model.threshold_ == fresh.threshold_
    with pytest.raises(MixedSizesError):
        model.partial_fit_descriptors(left[:, :4])
    with pytest.raises(GrowthError, match="partial_fit_descriptors"):
        model.partial_fit(IMAGES)


def test_a_refit_of_descriptors_needs_them(tmp_path: Path) -> None:
    model = descriptor_model().fit_descriptors(POOL, (3, 3), seeds=[1, 2])
    with pytest.raises(DescriptorsNeededError, match="refit"):
        model.forget(1, refit=True)
    fresh = descriptor_model().fit_descriptors(np.delete(POOL, 1, axis=0), (3, 3))
    assert saved(model.forget(1, x=POOL, refit=True), tmp_path) == saved(fresh, tmp_path)


def test_garbled_numbers_are_told_before_they_are_used(tmp_path: Path) -> None:
    model = estimator().fit(IMAGES)
    model.save(tmp_path / "m")
    meta, arrays = model_file.load_file(tmp_path / "m")
    for name in ("growth.patch", "growth.joined", "growth.counts", "growth.nominal"):
        changed = {key: np.array(value) for key, value in arrays.items()}
        changed[name][0] = 1 if name == "growth.nominal" and not changed[name][0] else 77_777 % 251
        if name == "growth.nominal":
            changed[name][:] = 1
        model_file.save_file(tmp_path / "garbled", meta, changed)
        with pytest.raises(ModelCorruptError):
            InReaCh.load(tmp_path / "garbled", backbone=tiny_backbone()).forget(0, refit=False)
    short = {key: value for key, value in arrays.items() if key != "growth.joined"}
    model_file.save_file(tmp_path / "garbled", meta, short)
    with pytest.raises(ModelCorruptError, match="joined"):
        InReaCh.load(tmp_path / "garbled")
    short = {**arrays, "growth.others": arrays["growth.others"][:-1]}
    model_file.save_file(tmp_path / "garbled", meta, short)
    with pytest.raises(ModelCorruptError):
        InReaCh.load(tmp_path / "garbled")


# ------------------------------------------------------------------------------------------------------ seeds


def test_seeds_that_are_given() -> None:
    chosen = estimator().fit(IMAGES)
    given_again = estimator().fit(IMAGES, seeds=chosen.seed_images_)
    assert np.array_equal(given_again.nominal_.patches, chosen.nominal_.patches)
    named = estimator().fit(IMAGES, seeds=[f"images[{i}]" for i in chosen.seed_images_])
    assert np.array_equal(named.seed_images_, chosen.seed_images_)
    assert estimator().fit(IMAGES, seeds=4).seed_images_.tolist() == [4]
    assert descriptor_model().fit_descriptors(POOL, (3, 3), seeds=[5, 2, 5]).seed_images_.tolist() == [2, 5]
    for bad in ([], [14], "absent.png", [1.5]):
        with pytest.raises(ParameterError, match="seeds"):
            estimator().fit(IMAGES, seeds=bad)


def test_a_seed_that_cannot_be_read(tmp_path: Path) -> None:
    for i in range(5):
        Image.fromarray(IMAGES[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(ParameterError, match=r"2\.png could not be read"):
        estimator().fit(tmp_path, seeds=[2, 3], skip_bad=True)
    model = estimator(min_channel_length=1).fit(tmp_path, seeds=[3], skip_bad=True)
    assert model.seed_images_.tolist() == [2]
    assert model.image_names_[2] == "3.png"
