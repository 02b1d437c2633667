"""Explanations against a plain reference: regions by flood fill, neighbours by brute force, boxes by painted pixels."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptor_sets import shared_patches
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from small_fits import estimator, pictures

from inreach_fast import InReaCh
from inreach_fast.errors import ExplanationError, ParameterError
from inreach_fast.images.alignment import rotate, rotate_box_back
from inreach_fast.images.preprocess import Geometry
from inreach_fast.predict.explanation import Box, Explanation, whole_box, worst_regions

DEFAULT = {"preset": "default", "pca_dim": 8}


def flood(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """The 8-connected components of a mask, by flood fill."""
    left, out = {(int(r), int(c)) for r, c in np.argwhere(mask)}, []
    while left:
        edge, part = [left.pop()], set()
        while edge:
            r, c = edge.pop()
            part.add((r, c))
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        out.append(part)
    return out


@given(
    values=arrays.arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")])),
    threshold=st.sampled_from([0.5, 1.0, 2.5]),
)
def test_regions_are_the_components_above_the_threshold(values: Any, threshold: float) -> None:
    if np.isnan(values).all():
        return
    regions, above = worst_regions(values, threshold)
    found = [set(zip(rows.tolist(), columns.tolist(), strict=True)) for rows, columns in regions]
    with np.errstate(invalid="ignore"):
        mask = values > threshold
    assert above == mask.any()
    if above:
        assert sorted(map(sorted, found)) == sorted(map(sorted, flood(mask)))
        peaks = [max(values[place] for place in part) for part in found]
        assert peaks == sorted(peaks, reverse=True)
    else:
        (part,) = found
        level = (np.nanmedian(values) + np.nanmax(values)) / 2
        parts = flood(np.nan_to_num(values, nan=-1.0) >= level)
        assert part in parts
        assert max(values[place] for place in part) == np.nanmax(values)


def test_an_anomalous_image_has_a_region_and_others_have_the_worst_one() -> None:
    model = estimator(**DEFAULT).fit(pictures())
    bad = pictures(1, seed=20)[0]
    bad[5:12, 20:30] = 255
    for image in (bad, pictures(1, seed=21)[0]):
        found = model.predict(image)
        for threshold in (0.0, float(found.score) * 0.999, float(found.score), 1e9):
            explanation = found.explain(threshold=threshold)
            assert explanation.is_anomalous == (found.score > threshold) == explanation.regions[0].is_above
            assert explanation.regions[0].score == found.score


# ------------------------------------------------------------------------------------------------ neighbours


def reference(model: InReaCh, prediction: Any, explanation: Explanation) -> None:
    """Every region of an explanation, found again from the model's arrays alone."""
    nominal, (h, w) = model.nominal_, model.grid_
    height, width = prediction.anomaly_map.shape
    names = model.image_names_
    above = prediction.anomaly_map > explanation.threshold
    parts = flood(above)
    parts.sort(key=lambda part: -max(prediction.anomaly_map[place] for place in part))
    assert explanation.found == len(parts)
    for region, part in zip(explanation.regions, parts, strict=False):
        cells = {(r * h // height, c * w // width) for r, c in part}
        best = max(prediction.patch_scores[cell] for cell in cells)
        assert prediction.patch_scores[region.place] == best == np.float32(region.distance)
        row = prediction.nearest[region.place]
        assert region.nearest is not None
        assert region.nearest.image == nominal.image_index[row]
        assert region.nearest.name == names[region.nearest.image]
        assert region.nearest.place == divmod(int(nominal.patch_index[row]), w)
        by = {(patch.image, patch.place) for patch in region.confirmed_by}
        if nominal.confirmation is not None:
            assert by == {(nominal.channel_seed_image[row], divmod(int(nominal.channel_seed_patch[row]), w))}
            assert np.float32(region.confirmation) == nominal.confirmation[row]
            usual = [
                nominal.confirmation[i]
                for i in range(len(nominal))
                if abs(nominal.patch_index[i] // w - region.place[0]) <= 1
                and abs(nominal.patch_index[i] % w - region.place[1]) <= 1
            ]
        else:
            channel = [
                i
                for i in range(len(nominal))
                if nominal.channel_seed_image[i] == nominal.channel_seed_image[row]
                and nominal.channel_seed_patch[i] == nominal.channel_seed_patch[row]
            ]
            others = {nominal.image_index[i] for i in channel} - {nominal.image_index[row]}
            assert {image for image, _ in by} == others
            assert len(by) == len(others)
            rows = nominal.patches.astype(np.float64)
            usual = [
                min(
                    np.square(rows[i] - rows[j]).sum()
                    for j in channel
                    if nominal.image_index[i] != nominal.image_index[j]
                )
                for i in channel
                if others
            ]
        if usual:
            assert region.usual == pytest.approx(float(np.median(usual)), rel=1e-5)
            share = np.mean(np.array(usual, np.float32) <= np.float32(region.distance))
            assert region.quantile == pytest.approx(share)
        else:
            assert region.usual is None


@pytest.mark.parametrize("preset", ["default", "channels"])
def test_descriptors_are_explained_as_by_brute_force(preset: str) -> None:
    x = shared_patches(8, 16, 12)
    settings: dict[str, Any] = {"assoc_depth": 3} if preset == "channels" else {}
    model = InReaCh(preset, image_size=16, smoothing_sigma=1.0, **settings).fit_descriptors(x, (4, 4))
    query = shared_patches(1, 16, 12, seed=8)[0]
    query[5] += 3
    query[15] += 2
    prediction = model.score_descriptors(query)
    for threshold in (float(np.median(prediction.anomaly_map)), 0.8 * prediction.score):
        explanation = prediction.explain(most=3, threshold=threshold)
        assert len(explanation.regions) <= 3
        assert explanation.size == (16, 16)
        reference(model, prediction, explanation)
    assert explanation.quantile == np.mean(model.threshold_scores_ <= np.float32(prediction.score))


@pytest.mark.parametrize("settings", [{}, DEFAULT, {"distance": "l2"}, {"score": "mahalanobis"}])
def test_images_are_explained_with_what_the_model_knows(settings: dict[str, Any]) -> None:
    model = estimator(**settings).fit(pictures())
    bad = pictures(1, seed=20)[0]
    bad[10:18, 12:20] = 255
    region = model.predict(bad).explain().regions[0]
    assert region.nearest is not None
    assert (region.usual is None) == (settings.get("score") == "mahalanobis")
    assert region.nearest.size_known
    assert region.nearest.size == (40, 36)
    thumbnail = region.nearest.thumbnail
    assert thumbnail is not None
    top, left, bottom, right = region.nearest.box
    for share, edge in zip(
        region.nearest.box_in_thumbnail, (top / 40, left / 36, bottom / 40, right / 36), strict=True
    ):
        assert share == pytest.approx(edge, abs=1 / 36)
    if settings.get("distance") == "l2":
        plain = estimator().fit(pictures()).predict(bad).explain().regions[0]
        assert region.usual == pytest.approx(np.sqrt(plain.usual), rel=0.2)


def test_a_training_image_is_explained_by_the_others(tmp_path: Path) -> None:
    images = pictures()
    images[4][10:18, 12:20] = 255
    model = estimator(**DEFAULT).fit(images)
    prediction = model.training_prediction(4, images[4])
    assert np.float32(prediction.score) == model.training_scores()[4]
    np.testing.assert_array_equal(
        model.training_map(4, images[4]), model.map_to_original(prediction.anomaly_map, (40, 36))
    )
    path = tmp_path / "4.png"
    Image.fromarray(images[4]).save(path)
    assert model.training_prediction(4, path).score == prediction.score
    for wrong in (-1, len(images), 1.5, "4"):
        with pytest.raises(ParameterError, match="number: expected a training image"):
            model.training_prediction(wrong, images[4])  # type: ignore[arg-type]
    region = prediction.explain().regions[0]
    assert region.nearest is not None
    assert region.nearest.image != 4
    top, left, bottom, right = region.patch_box
    assert max(top, 10) < min(bottom, 18)
    assert max(left, 12) < min(right, 20)


def test_what_a_prediction_says_of_itself_is_json() -> None:
    model = estimator(**DEFAULT).fit(pictures())
    values = model.predict(pictures(1, seed=3)[0]).explain().as_dict()
    assert json.loads(json.dumps(values)) == values
    assert {"score", "threshold", "regions", "found", "quantile", "size"} <= values.keys()
    assert {"box", "area", "centroid", "nearest", "confirmed_by", "usual", "quantile"} <= values["regions"][0].keys()


def test_a_prediction_knows_its_model_only_while_it_is_in_memory() -> None:
    model = estimator(**DEFAULT).fit(pictures())
    images = pictures(2, seed=3)
    batch = model.predict(images)
    for i, image in enumerate(images):
        assert batch[i].explain().as_dict() == model.predict(image).explain().as_dict()
    assert [p.explain().as_dict() for p in model.predict_stream(images)] == [
        batch[i].explain().as_dict() for i in (0, 1)
    ]
    with pytest.raises(ParameterError, match="one image"):
        batch.explain()
    one = batch[0]
    assert "_explainer" not in repr(one)
    data = pickle.dumps(one)
    assert len(data) < 20_000
    for lost in (pickle.loads(data), copy.copy(one)):
        assert lost.score == one.score
        with pytest.raises(ExplanationError, match="predict again"):
            lost.explain()
    before = one.explain().as_dict()
    model.forget(0)
    assert one.explain().as_dict() == before  # of the model that predicted it
    for most in (0, -1, True, 1.5, None):
        with pytest.raises(ParameterError, match="most"):
            one.explain(most)
    with pytest.raises(ParameterError, match="threshold"):
        one.explain(threshold=float("nan"))


# ----------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("geometry", [Geometry((32, 32)), Geometry((40, 48), (32, 32)), Geometry(None, (16, 24))])
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (40, 48)])
def test_a_box_of_the_input_covers_the_same_part_of_the_original(geometry: Geometry, size: tuple[int, int]) -> None:
    height, width = geometry.crop or geometry.resize or (0, 0)
    inside = (height / 4, width / 4, height / 2, width / 2)
    box = whole_box(geometry.box_to_original(inside, size), size)
    painted = np.zeros(size, bool)
    painted[box.top : box.bottom, box.left : box.right] = True
    values = np.zeros((height, width), np.float32)
    values[height // 4 : height // 2, width // 4 : width // 2] = 1
    mapped = np.nan_to_num(geometry.map_to_original(values, size))
    # Bilinear values are one half at the edge: both agree but for the pixels that an edge runs through.
    assert painted[mapped > 0.5].all()
    assert not painted[mapped == 0].any()
    inspected = geometry.inspected_size(size)
    whole = geometry.box_to_original((0, 0, height, width), size)
    assert (whole[2] - whole[0], whole[3] - whole[1]) == pytest.approx(inspected)


@pytest.mark.parametrize("degrees", [0, 17, 90, 180, 201, 270, 359])
def test_a_box_is_rotated_back_with_its_image(degrees: int) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[12:18, 20:28] = 255
    turned = rotate(image, degrees)
    rows, columns = np.nonzero(turned[:, :, 0] > 127)
    box = rotate_box_back((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1), (40, 40), degrees)
    assert box[0] <= 12.6
    assert box[1] <= 20.6
    assert box[2] >= 17.4
    assert box[3] >= 27.4
    if degrees % 90 == 0:
        assert box == pytest.approx((12, 20, 18, 28))


def test_whole_boxes_lie_within_the_image() -> None:
    assert whole_box((0.2, 1.0, 3.0000000001, 4.7), (10, 10)) == Box(0, 1, 3, 5)
    assert whole_box((-3.0, -2.0, 40.0, 50.0), (10, 12)) == Box(0, 0, 10, 12)
    assert whole_box((9.9, 11.9, 10.0, 12.0), (10, 12)) == Box(9, 11, 10, 12)
    assert whole_box((1.9999999999, 0.0, 3.0, 1.0), (10, 12)).top == 2


def test_area_and_centroid_are_in_the_frame_of_the_original() -> None:
    model = estimator(**DEFAULT).fit(pictures())
    image = pictures(1, size=(80, 144), seed=20)[0]
    image[20:36, 48:80] = 255
    prediction = model.predict(image)
    region = prediction.explain(threshold=0.6 * prediction.score).regions[0]
    whole = model.map_to_original(prediction.anomaly_map, (80, 144)) > 0.6 * prediction.score
    rows, columns = np.nonzero(whole)
    assert region.area == pytest.approx(len(rows), rel=0.1)
    assert region.centroid == pytest.approx((rows.mean(), columns.mean()), abs=1.0)
    assert region.box.top <= rows.min() + 2
    assert abs(region.box.left - columns.min()) <= 5
    assert abs(region.box.right - 1 - columns.max()) <= 5


def test_aligned_images_are_explained_in_their_own_frames() -> None:
    base = np.asarray(Image.fromarray(pictures(1)[0]).resize((64, 64))) // 4
    base[:32] += 150  # consistent positions once aligned
    random = np.random.default_rng(0)
    images = [
        np.clip(np.rot90(base, i) + random.normal(0, 1 + i, base.shape), 0, 255).astype(np.uint8) for i in range(12)
    ]
    model = estimator(align="auto", transpose_threshold=600).fit(images)
    assert model.rotations_ is not None
    for number in range(4):  # turned by 0 to 270 degrees
        marked = images[number].copy()
        marked[4:20, 40:56] = (255, 0, 0)
        prediction = model.predict(marked)
        region = prediction.explain(threshold=0.6 * prediction.score).regions[0]
        for box in (region.box, region.patch_box):
            assert abs((box.top + box.bottom) / 2 - 12) < 12  # a turn in the wrong sense would be 20 off
            assert abs((box.left + box.right) / 2 - 48) < 12
        assert region.nearest is not None
        # The nearest patch shows the same part: in its image it lies where that image's turn brings it.
        row, column = region.nearest.place
        degrees = int(model.rotations_[region.nearest.image])
        middle = np.array([(row + 0.5) / 8 * 64 - 32, (column + 0.5) / 8 * 64 - 32])
        angle = np.deg2rad(degrees)
        x, y = (
            np.cos(angle) * middle[1] - np.sin(angle) * middle[0],
            np.sin(angle) * middle[1] + np.cos(angle) * middle[0],
        )
        top, left, bottom, right = region.nearest.box
        assert ((top + bottom) / 2 - 32, (left + right) / 2 - 32) == pytest.approx((y, x), abs=1.0)


# -------------------------------------------------------------------------- feedback, regions of interest, tiles


@pytest.mark.parametrize("settings", [{}, DEFAULT])
def test_a_score_that_is_due_to_feedback_names_it(settings: dict[str, Any]) -> None:
    model = estimator(**settings).fit(pictures())
    bad = pictures(1, seed=20)[0]
    bad[10:18, 12:20] = 255
    before = model.predict(bad).explain(threshold=0.0).regions[0]
    assert before.feedback == 0
    model.accept(pictures(1, seed=21)[0])
    model.threshold_ = 3 * model.predict(bad).score
    model.reject(bad, (12, 10, 8, 8))
    prediction = model.predict(bad)
    for one in (prediction, model.predict([bad, bad])[1], model.predict(bad, threshold=model.threshold_)):
        region = one.explain().regions[0]
        assert region.is_above
        assert region.feedback == 2
        assert (region.usual, region.quantile) == (None, None)
        assert region.nearest is not None  # among the nominal patches
    reference_row = prediction.nearest[prediction.explain().regions[0].place]
    assert prediction.explain().regions[0].nearest.image == model.nominal_.image_index[reference_row]
    assert prediction.due_to[-1] == 2
    assert pickle.loads(pickle.dumps(prediction)).due_to == prediction.due_to
    json.dumps(prediction.explain().as_dict())
    # Of a training image feedback does not count.
    assert model.training_prediction(0, pictures()[0]).explain().regions[0].feedback == 0


@pytest.mark.parametrize("settings", [{}, DEFAULT, {"resize": (40, 40)}])
def test_a_region_of_interest_is_explained_in_the_frame_of_the_image(settings: dict[str, Any]) -> None:
    roi = np.zeros((40, 36), dtype=bool)
    roi[6:36, 5:32] = True
    model = estimator(**{**settings, "roi": roi}).fit(pictures())
    bad = pictures(1, seed=20)[0]
    bad[:5], bad[18:26, 16:24] = 0, 255
    prediction = model.predict(bad)
    explanation = prediction.explain()
    reference(model, prediction, explanation)
    rows, columns = np.nonzero(~np.isnan(prediction.anomaly_map))  # whole patches, so a little more than the region
    edges = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    inspected = whole_box(model.geometry.box_to_original(edges, (40, 36)), (40, 36))
    assert np.subtract(inspected, (6, 5, 36, 32)) == pytest.approx(0, abs=5)
    for region in (explanation.regions[0], model.training_prediction(3, bad).explain().regions[0]):
        top, left, bottom, right = region.box
        assert inspected.top <= top <= 18 < 26 <= bottom <= inspected.bottom
        assert inspected.left <= left <= 16 < 24 <= right <= inspected.right
        top, left, bottom, right = region.patch_box
        assert max(top, 18) < min(bottom, 26)
        assert max(left, 16) < min(right, 24)
        assert region.nearest is not None
        assert roi[region.nearest.box.top : region.nearest.box.bottom, region.nearest.box.left :].any()


def test_tiles_are_explained_in_the_frame_of_the_image() -> None:
    size = (80, 120)
    model = estimator(**DEFAULT, tile=(2, 3), tile_overlap=8).fit(pictures(size=size))
    bad = pictures(1, size=size, seed=20)[0]
    bad[56:64, 96:108] = 255
    prediction = model.predict(bad)
    explanation = prediction.explain()
    reference(model, prediction, explanation)
    region = explanation.regions[0]
    for box in (region.box, region.patch_box):
        assert max(box.top, 56) < min(box.bottom, 64)
        assert max(box.left, 96) < min(box.right, 108)
    h, w = model.grid_
    patch = region.nearest
    assert patch is not None
    assert patch.size == size
    assert abs((patch.box.top + patch.box.bottom) / 2 - (patch.place[0] + 0.5) / h * 80) <= 1
    assert abs((patch.box.left + patch.box.right) / 2 - (patch.place[1] + 0.5) / w * 120) <= 1
