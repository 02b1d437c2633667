"""Neither the order of the images, nor their names, nor copies of them change what a fit finds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptor_sets import shared_patches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from small_fits import estimator, pictures, saved, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.errors import RefitNeededError, SeedImageError

IMAGES = pictures(9, size=(32, 32), seed=7)
QUERIES = pictures(2, size=(32, 32), seed=8)
# Few different values: ties between the patches of different images.
ROWS = np.round(shared_patches(10, 16, 6, seed=4) / 2)


def of_rows(order: list[int], **changes: Any) -> InReaCh:
    parameters: dict[str, Any] = {"preset": "channels", "image_size": 16, "assoc_depth": 3, "min_channel_length": 1}
    parameters |= changes
    seeds = parameters.pop("seeds", None)
    return InReaCh(**parameters).fit_descriptors(
        ROWS[order], (4, 4), seeds=None if seeds is None else [order.index(i) for i in seeds]
    )


def nominal_set(model: InReaCh, order: list[int]) -> set[tuple[int, int, int, int]]:
    """(image, patch, image and patch of its channel), images by their number in the pool."""
    n = model.nominal_
    arrays = (n.image_index, n.patch_index, n.channel_seed_image, n.channel_seed_patch)
    return {(order[i], p, order[s], q) for i, p, s, q in zip(*(a.tolist() for a in arrays), strict=True)}


def same(a: InReaCh, order: list[int], b: InReaCh, other: list[int], pool: Any) -> None:
    """Bit for bit the same threshold, nominal patches in the same order, seeds and sample."""
    assert a.threshold_ == b.threshold_
    assert a.nominal_.patches.tobytes() == b.nominal_.patches.tobytes()
    assert nominal_set(a, order) == nominal_set(b, other)
    assert {order[i] for i in a.seed_images_} == {other[i] for i in b.seed_images_}
    assert np.array_equal(np.sort(a.threshold_scores_), np.sort(b.threshold_scores_))
    by_image = [
        dict(zip(o, m.training_scores([pool[i] for i in o]).tolist(), strict=True)) for m, o in ((a, order), (b, other))
    ]
    assert by_image[0] == by_image[1]


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(range(10)),
    twice=st.lists(st.integers(0, 9), max_size=6),
    score=st.sampled_from(["nearest", "mahalanobis", "patchcore"]),
    preset=st.sampled_from(["channels", "paper"]),
    random_state=st.integers(0, 99),
    sample=st.sampled_from([4, 64]),
)
def test_order_and_copies_of_descriptors_change_nothing(
    order: list[int], twice: list[int], score: str, preset: str, random_state: int, sample: int
) -> None:
    changes: dict[str, Any] = {"score": score, "random_state": random_state, "threshold_images": sample}
    if preset == "paper":  # whose seed images are the first ones: here the same ones
        changes |= {"seeds": [1, 4, 5], "preset": "paper", "resize": None, "spread_filter": False}
    plain, changed = list(range(10)), order + twice
    a, b = of_rows(plain, **changes), of_rows(changed, **changes)
    same(a, plain, b, changed, ROWS)
    queries = shared_patches(2, 16, 6, seed=9) / 2
    found, again = a.score_descriptors(queries), b.score_descriptors(queries)
    assert np.array_equal(found.patch_scores, again.patch_scores)
    assert np.array_equal(found.nearest, again.nearest)
    assert b.report_["copies"] == len(twice)


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(9)), twice=st.lists(st.integers(0, 8), max_size=4), align=st.booleans())
def test_order_and_copies_of_images_change_nothing(order: list[int], twice: list[int], align: bool) -> None:
    changes: dict[str, Any] = {"min_channel_length": 1, "assoc_depth": 3, "spread_rule": "literal"}
    if align:
        changes |= {"align": "auto", "transpose_threshold": 1e6}
    plain, changed = list(range(9)), order + twice
    a, b = (estimator(**changes).fit([IMAGES[i] for i in o]) for o in (plain, changed))
    same(a, plain, b, changed, IMAGES)
    assert a.transpose_score_ == b.transpose_score_
    assert [a.predict(q).score for q in QUERIES] == [b.predict(q).score for q in QUERIES]


def test_renaming_and_copying_files_changes_nothing(tmp_path: Path) -> None:
    for i, image in enumerate(IMAGES):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "a" / f"{i}.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for i in range(9):
        (tmp_path / "b" / f"{i}.png").rename(tmp_path / "b" / f"{(i * 7) % 9}-of-another-name.png")
    shutil.copy(tmp_path / "a" / "3.png", tmp_path / "b" / "copy.png")
    a, b = (estimator(min_channel_length=1).fit(tmp_path / name) for name in "ab")
    assert a.threshold_ == b.threshold_
    assert a.nominal_.patches.tobytes() == b.nominal_.patches.tobytes()
    assert b.report_["copied_names"] == [["copy.png", "3-of-another-name.png"]]


def test_numbers_and_names_are_the_users(tmp_path: Path) -> None:
    order = [5, 2, 8, 1, 7, 0, 6, 3, 4, 2]
    model = estimator(min_channel_length=1).fit([IMAGES[i] for i in order], seeds=[1, 6])
    assert model.image_names_ == [f"images[{i}]" for i in range(10)]
    assert model.seed_images_.tolist() == [1, 6]
    assert model.report_["seed_images"] == [1, 6]
    assert model.originals_.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert model.n_images_ == 10
    assert model.report_["patches"] == 9 * 64
    assert len(model.training_scores()) == 10
    assert model.training_scores()[9] == model.training_scores()[1]
    assert np.array_equal(model.training_scores([IMAGES[i] for i in order]), model.training_scores())
    for number in (1, 9):
        expected = model.training_map(number, IMAGES[2])
        assert np.nanmax(expected) == model.training_scores()[1]
    nominal, describe = model.nominal_, model._ready(images=True).describe
    for row in range(50):
        (rows,) = describe(IMAGES[order[nominal.image_index[row]]][None], "float32")
        assert np.array_equal(rows[nominal.patch_index[row]], nominal.patches[row])
    loaded = InReaCh.load(_written(model, tmp_path), backbone=tiny_backbone())
    assert loaded.originals_.tolist() == model.originals_.tolist()
    assert saved(loaded, tmp_path) == saved(model, tmp_path)
    assert np.array_equal(loaded.training_scores(), model.training_scores())


def _written(model: InReaCh, folder: Path) -> Path:
    model.save(folder / "model")
    return folder / "model"


# ------------------------------------------------------------------------------------------------- growing


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), pairs=st.sampled_from(["all", "later"]), reload=st.booleans())
def test_growing_with_copies_gives_the_model_of_the_result(
    data: st.DataObject, pairs: str, reload: bool, tmp_path: Path
) -> None:
    pool = ROWS[[0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 5, 4]]  # copies of six
    settings_of: dict[str, Any] = {"assoc_pairs": pairs, "image_size": 16, "threshold_images": 3}
    settings_of |= {"min_channel_length": 0, "assoc_depth": 2}
    here = data.draw(st.lists(st.integers(0, 11), min_size=5, max_size=9, unique=True))
    seed = data.draw(st.sampled_from(here))
    if len(np.unique(pool[here], axis=0)) < 3:
        return
    model = InReaCh("channels", **settings_of).fit_descriptors(pool[here], (4, 4), seeds=[here.index(seed)])
    for _ in range(3):
        free = [i for i in range(12) if i not in here]
        if data.draw(st.booleans()) and free:
            chosen = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=3, unique=True))
            if reload:
                model = InReaCh.load(_written(model, tmp_path))
            model.partial_fit_descriptors(pool[chosen])
            here = here + chosen
        else:
            chosen = [data.draw(st.sampled_from([i for i in here if i != seed]))]
            left = [i for i in here if i not in chosen]
            if len(np.unique(pool[left], axis=0)) < 3:
                continue
            try:
                model.forget([here.index(i) for i in chosen], x=pool[here])
            except RefitNeededError:
                assert pairs == "later"
                continue
            here = left
        fresh = InReaCh("channels", **settings_of).fit_descriptors(pool[here], (4, 4), seeds=[here.index(seed)])
        assert saved(model, tmp_path, final=True) == saved(fresh, tmp_path, final=True)


def test_one_of_two_copies_is_forgotten_and_the_other_stays(tmp_path: Path) -> None:
    images = [*IMAGES, IMAGES[0], IMAGES[4]]
    settings_of: dict[str, Any] = {"min_channel_length": 1}
    model = estimator(**settings_of).fit(images, seeds=[4, 6])
    patches = model.nominal_.patches.tobytes()
    model.forget([0, 4])  # 4 is a seed image; its copy stays, and is the seed image now
    assert model.nominal_.patches.tobytes() == patches
    assert model.image_names_ == [f"images[{i}]" for i in range(9)]
    assert model.seed_images_.tolist() == [4, 8]
    fresh = estimator(**settings_of).fit([*images[1:4], *images[5:]], seeds=[8, 4])
    assert saved(model, tmp_path) == saved(fresh, tmp_path)
    with pytest.raises(SeedImageError, match=r"images\[8\] is a seed image"):
        model.forget(8)
    model.partial_fit([IMAGES[1], IMAGES[1]])  # copies only
    assert model.report_["copies"] == 2
    assert model.nominal_.patches.tobytes() == patches
    fresh = estimator(**settings_of).fit([*images[1:4], *images[5:], IMAGES[1], IMAGES[1]], seeds=[8, 4])
    assert saved(model, tmp_path) == saved(fresh, tmp_path)


# ------------------------------------------------------------------------------------------- many copies, bursts


def test_the_threshold_of_images_given_two_and_three_times_is_that_of_once() -> None:
    once = estimator(min_channel_length=1).fit(IMAGES)
    for times in (2, 3):
        model = estimator(min_channel_length=1).fit(IMAGES * times)
        assert model.threshold_ == once.threshold_
        assert model.report_["copies"] == 9 * (times - 1)
        assert len(model.threshold_scores_) == 9
        assert (model.training_scores() > 0).all()
        assert any("exactly what another one shows: " in text for text in model.report_["warnings"])


def blobs(number: int) -> NDArray[np.uint8]:
    """A picture of its own, uint8 (48, 48, 3)."""
    small = np.random.default_rng(number).integers(40, 220, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BILINEAR))


def test_shots_of_one_part_are_noticed() -> None:
    random = np.random.default_rng(0)
    parts = [(blobs(0).astype(int) + blobs(i)) // 2 for i in range(8)]
    shots = [np.clip(part + random.normal(0, 1.5, part.shape), 0, 255).astype(np.uint8) for part in parts for _ in "ab"]
    model = estimator(min_channel_length=0, image_size=48).fit(shots)
    assert model.report_["copies"] == 0
    pairs = {tuple(sorted(int(name[7:-1]) for name in pair)) for pair in model.report_["near_copies"]}
    assert pairs == {(2 * i, 2 * i + 1) for i in range(8)}
    assert any("nearly the same as another: 16 of 16" in text for text in model.report_["warnings"])
    single = estimator(min_channel_length=0, image_size=48).fit(shots[::2])
    assert single.report_["near_copies"] == []
    assert not any("nearly the same" in text for text in single.report_["warnings"])
