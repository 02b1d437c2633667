from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saved_models
from PIL import Image
from small_fits import estimator, pictures, saved, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.errors import ModelCorruptError
from inreach_fast.images.preprocess import Geometry
from inreach_fast.storage import model_file
from inreach_fast.storage.thumbnails import MOST_SIDE, Thumbnails, thumbnail

SETTINGS: list[dict[str, Any]] = [{}, {"preset": "default", "pca_dim": 8}]


def sizes(count: int) -> np.ndarray:
    return np.array([(40 + 3 * i, 36 + 5 * i) for i in range(count)])


def mixed(first: int, count: int) -> list[np.ndarray]:
    """Images of different sizes."""
    return [pictures(1, tuple(size), seed=i)[0] for i, size in enumerate(sizes(first + count).tolist())][first:]


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        assert picture.format == "JPEG"
        return np.array(picture)


@pytest.mark.parametrize(
    ("geometry", "size", "shape"),
    [
        (Geometry((224, 224)), (1000, 500), (96, 48)),
        (Geometry((224, 224)), (10, 2000), (1, 96)),
        (Geometry((224, 224)), (0, 0), (96, 96)),
        (Geometry((256, 256), (224, 224)), (500, 1000), (48, 96)),
        (Geometry((40, 80), (40, 40)), (100, 100), (40, 20)),
    ],
)
def test_a_thumbnail_is_small_and_has_the_images_proportions(
    geometry: Geometry, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    frame = geometry.crop or geometry.resize
    assert frame is not None
    image = np.full((*frame, 3), (200, 100, 50), np.uint8)
    picture = decoded(thumbnail(image, geometry, size))
    assert picture.shape == (*shape, 3)
    assert np.abs(picture.astype(int) - (200, 100, 50)).max() < 4
    assert max(shape) <= MOST_SIDE


def test_pictures_come_back_by_number() -> None:
    inputs = np.stack([np.full((32, 32, 3), 30 * i, np.uint8) for i in range(5)])
    made = Thumbnails.of_inputs(inputs, sizes(5), Geometry((32, 32)))
    again = Thumbnails.from_arrays(made.to_arrays(), 5)
    for i in range(5):
        picture = again.picture(i)
        assert picture is not None
        assert np.abs(picture.astype(int) - 30 * i).max() < 4
        assert again.size(i) == (40 + 3 * i, 36 + 5 * i)
    bare = Thumbnails.from_arrays(again.without_pictures().to_arrays(), 5)
    assert bare.picture(3) is None
    assert bare.size(4) == (52, 56)
    assert Thumbnails(np.zeros((1, 2), np.int64)).size(0) is None


def test_parts_that_do_not_fit_are_refused() -> None:
    parts = Thumbnails.of_inputs(np.zeros((3, 32, 32, 3), np.uint8), sizes(3), Geometry((32, 32))).to_arrays()
    ends = parts["ends"]
    for change in (
        {"sizes": parts["sizes"][:2]},
        {"ends": ends[:2]},
        {"ends": ends[::-1]},
        {"ends": ends + 1},
        {"ends": np.array([ends[0], ends[0], ends[2]])},
        {"jpeg": parts["jpeg"].view(np.int8)},
    ):
        with pytest.raises(ValueError, match="do not fit"):
            Thumbnails.from_arrays({**parts, **change}, 3)
    with pytest.raises(ValueError, match="do not fit"):
        Thumbnails.from_arrays({name: parts[name] for name in ("sizes", "ends")}, 3)
    with pytest.raises(KeyError):
        Thumbnails.from_arrays({"ends": ends, "jpeg": parts["jpeg"]}, 3)
    junk = Thumbnails(parts["sizes"], np.zeros(30, np.uint8), np.array([10, 20, 30]))
    with pytest.raises(ModelCorruptError, match="thumbnail of training image 1"):
        junk.picture(1)
    out = io.BytesIO()
    Image.new("RGB", (MOST_SIDE + 1, 2)).save(out, format="JPEG")
    large = np.frombuffer(out.getvalue(), np.uint8)
    with pytest.raises(ModelCorruptError, match="97"):
        Thumbnails(parts["sizes"][:1], large, np.array([len(large)])).picture(0)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_grown_model_has_the_thumbnails_of_a_fit(settings: dict[str, Any], tmp_path: Path) -> None:
    images = mixed(0, 10)
    seeds = None if settings else [0, 3]
    model = estimator(**settings).fit(images[:8], seeds=seeds)
    model.save(tmp_path / "m")
    model = InReaCh.load(tmp_path / "m", backbone=model.backbone)
    model.partial_fit(images[8:])
    whole = estimator(**settings).fit(images, seeds=seeds)
    assert saved(model, tmp_path) == saved(whole, tmp_path)
    thumbnails = model.thumbnails_
    assert thumbnails is not None
    assert np.array_equal(thumbnails.sizes, sizes(10))
    model.forget([1, 6])
    left = [image for i, image in enumerate(images) if i not in (1, 6)]
    fresh = estimator(**settings).fit(left, seeds=None if settings else [0, 2])
    assert saved(model, tmp_path) == saved(fresh, tmp_path)
    assert saved(model.forget(5, refit=True), tmp_path) == saved(
        estimator(**settings).fit(left[:5] + left[6:]), tmp_path
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_models_without_thumbnails_differ_in_nothing_else(settings: dict[str, Any], tmp_path: Path) -> None:
    with_them = estimator(**settings).fit(pictures())
    without = estimator(thumbnails=False, **settings).fit(pictures())
    assert without.thumbnails_ is None
    parts = []
    for model in (with_them, without):
        saved(model, tmp_path)
        meta, arrays = model_file.load_file(tmp_path / "saved")
        shown = {name for name in arrays if name.startswith("thumbnails.")}
        assert shown == ({"thumbnails.sizes", "thumbnails.jpeg", "thumbnails.ends"} if model is with_them else set())
        assert meta["parameters"].pop("thumbnails", False) == (model is with_them)
        parts.append((meta, {n: a.tobytes() for n, a in arrays.items() if n not in shown}))
    assert parts[0] == parts[1]
    grown = without.partial_fit(pictures(1, seed=9))
    assert grown.thumbnails_ is None


def test_a_final_model_holds_no_pictures_unless_asked_for(tmp_path: Path) -> None:
    model = estimator().fit(pictures())

    def arrays(**options: Any) -> set[str]:
        model.save(tmp_path / "m", **options)
        return {name for name in model_file.load_file(tmp_path / "m")[1] if name.startswith("thumbnails.")}

    assert arrays(final=True) == {"thumbnails.sizes"}
    loaded = InReaCh.load(tmp_path / "m", backbone=tiny_backbone())
    region = loaded.predict(pictures(1, seed=4)[0]).explain().regions[0]
    assert region.nearest is not None
    assert region.nearest.thumbnail is None
    assert region.nearest.size == (40, 36)
    assert arrays(thumbnails=False) == {"thumbnails.sizes"}
    assert len(arrays(final=True, thumbnails=True)) == len(arrays()) == 3
    assert model.compress(to=0.5).thumbnails_ is not None


def test_models_that_were_saved_before_explain_by_name() -> None:
    model = InReaCh.load(saved_models.FOLDER / saved_models.IMAGES, backbone=saved_models.network())
    assert model.thumbnails_ is None
    assert not model.parameters.thumbnails
    patch = model.predict(saved_models.pictures(20, 1)[0]).explain().regions[0].nearest
    assert patch is not None
    assert patch.name in model.image_names_
    assert not patch.size_known
    assert patch.size == (32, 32)
    assert patch.thumbnail is None
    model.partial_fit(saved_models.pictures(10, 2))
    assert model.thumbnails_ is None


def test_no_thumbnails_of_descriptors() -> None:
    x = saved_models.descriptors(0, 8)
    model = InReaCh("channels", image_size=(30, 25), min_channel_length=2).fit_descriptors(x, saved_models.GRID)
    assert model.thumbnails_ is None
    explanation = model.score_descriptors(saved_models.descriptors(20, 1)[0]).explain()
    assert explanation.size == (30, 25)
    assert explanation.regions[0].nearest is not None
    assert explanation.regions[0].nearest.name.startswith("x[")


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_plan_counts_them(settings: dict[str, Any]) -> None:
    images = pictures(12)
    model = estimator(**settings).fit(images)
    thumbnails = model.thumbnails_
    assert thumbnails is not None
    with_them, without = (estimator(thumbnails=on, **settings).plan(images).disk for on in (True, False))
    held = sum(array.nbytes for array in thumbnails.to_arrays().values())
    assert with_them["model"] - without["model"] == pytest.approx(held, rel=0.1)
    assert with_them["final_model"] - without["final_model"] == thumbnails.sizes.nbytes
