"""Transpose test, rotation search and the decision, against plain definitions and the supplement's Table 3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from inreach_fast.errors import TooFewImagesError
from inreach_fast.images import alignment
from inreach_fast.images.alignment import (
    Alignment,
    align_images,
    best_rotation,
    mean_image,
    rotate,
    rotate_map_back,
    rotate_mask,
    transpose_score,
)
from inreach_fast.images.preprocess import Geometry
from inreach_fast.images.reading import list_images, read_image

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def photograph(size: tuple[int, int] = (48, 48), seed: int = 0) -> np.ndarray:
    """Smooth noise: something to align by."""
    noise = np.random.default_rng(seed).standard_normal((*size, 3))
    smooth = ndimage.gaussian_filter(noise, (3, 3, 0))
    return np.clip(128 + smooth * 600, 0, 255).astype(np.uint8)


def bar(size: int = 64) -> np.ndarray:
    """A bright horizontal bar with a marked end: positional structure, and no rotational symmetry."""
    image = np.zeros((size, size, 3), np.uint8)
    image[size * 3 // 8 : size * 5 // 8, size // 8 : size * 7 // 8] = 200
    image[size * 3 // 8 : size * 5 // 8, size // 8 : size // 2, 2] = 90
    return image


# --- transpose test


def test_transpose_score_of_worked_cases() -> None:
    mean = np.zeros((2, 2, 3))
    mean[0, 1] = 6.0  # differs by 6 at two of four pixels
    assert transpose_score(mean) == 18.0
    assert transpose_score(np.full((5, 5, 3), 77.0)) == 0.0


def test_oblong_mean_images_are_tested_as_squares() -> None:
    vertical = np.linspace(0, 200, 40)[:, None, None] * np.ones((1, 20, 3))
    horizontal = np.linspace(0, 200, 40)[None, :, None] * np.ones((20, 1, 3))
    assert transpose_score(vertical) > 600
    assert transpose_score(vertical) == pytest.approx(transpose_score(horizontal))


@given(st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=20)
def test_mean_image_is_exact_in_any_order(count: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(mean_image(images), mean_image(images[::-1]))
    np.testing.assert_array_equal(mean_image(images), images.sum(0, dtype=np.int64) / count)
    with pytest.raises(TooFewImagesError):
        mean_image([])


@pytest.mark.parametrize(("name", "published", "tolerance"), [("bottle", 123, 0.02), ("pill", 5064, 0.02)])
def test_scores_of_table_3(name: str, published: float, tolerance: float) -> None:
    folder = DATA / name / "train" / "good"
    if not folder.is_dir():
        pytest.skip("no real images here")
    inputs = (Geometry((256, 256), (224, 224)).apply(read_image(path)) for path in list_images(folder))
    assert transpose_score(mean_image(inputs)) == pytest.approx(published, rel=tolerance)


# --- rotation


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_quarter_turns_lose_nothing(degrees: int) -> None:
    for size in (16, 17):
        image = photograph((size, size))
        np.testing.assert_array_equal(rotate(image, degrees), np.rot90(image, degrees // 90))
        mask = image[:, :, 0] > 100
        np.testing.assert_array_equal(rotate_mask(mask, degrees), np.rot90(mask, degrees // 90))
        values = image[:, :, 0].astype(np.float32)
        np.testing.assert_array_equal(rotate_map_back(np.rot90(values, degrees // 90), degrees), values)


@pytest.mark.parametrize("size", [(40, 40), (30, 50)])
@pytest.mark.parametrize("degrees", [1, 37, 123, 300])
def test_rotation_is_pillows_where_both_see_the_image(size: tuple[int, int], degrees: int) -> None:
    image = photograph(size)
    theirs = np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR)).astype(int)
    visible = np.asarray(Image.fromarray(np.full(size, 255, np.uint8)).rotate(degrees)) > 0
    visible = ndimage.binary_erosion(visible, iterations=2)
    assert visible.mean() > 0.3
    assert np.abs(rotate(image, degrees).astype(int) - theirs)[visible].max() <= 8
    mask = image[:, :, 0] > 128
    turned = np.asarray(Image.fromarray(mask.astype(np.uint8)).rotate(degrees)) > 0
    assert (rotate_mask(mask, degrees) != turned).mean() < 0.01


def test_maps_come_back_to_the_inputs_frame() -> None:
    image = photograph((60, 60))
    plane = image[:, :, 0].astype(np.float32)
    for degrees in (20, 45, 200):
        back = rotate_map_back(rotate(image, degrees)[:, :, 0].astype(np.float32), degrees)
        assert back.dtype == np.float32
        seen = ~np.isnan(back)
        assert 0.8 < seen.mean() < 1  # corners left the frame
        assert np.abs(back - plane)[seen].mean() < 4
        assert seen[15:45, 15:45].all()


def brute_force_angle(image: np.ndarray, reference: np.ndarray) -> int:
    """The definition: turn the whole image by each angle, compare the centre quarter; least, then lowest."""
    height, width = image.shape[:2]
    side = min(height, width) // 2
    top, left = (height - side) // 2, (width - side) // 2
    window = np.s_[top : top + side, left : left + side]
    wanted = reference[window].astype(np.int64)
    distances = [((rotate(image, d)[window].astype(np.int64) - wanted) ** 2).sum() for d in range(360)]
    return int(np.argmin(distances))


@pytest.mark.parametrize(("size", "angle"), [((48, 48), 77), ((32, 44), 200), ((44, 32), 311), ((48, 48), 0)])
def test_search_is_the_definition(size: tuple[int, int], angle: int) -> None:
    reference = photograph(size)
    image = rotate(reference, angle)
    found = best_rotation(image, reference)
    assert found == brute_force_angle(image, reference)
    assert found == (-angle) % 360


def test_search_between_different_images_is_near_the_definition() -> None:
    """Sampling is rounded in `rotate` and not in the search, so only distances, not angles, must be close."""
    for seed in range(3):
        image, reference = photograph(seed=seed), photograph(seed=seed + 10)

        def distance(degrees: int, image=image, reference=reference) -> int:
            window = np.s_[12:36, 12:36]
            gap = rotate(image, degrees)[window].astype(np.int64) - reference[window]
            return int((gap**2).sum())

        best = distance(brute_force_angle(image, reference))
        assert distance(best_rotation(image, reference)) <= best * 1.001


def test_ties_go_to_the_lowest_angle() -> None:
    flat = np.full((20, 20, 3), 90, np.uint8)
    assert best_rotation(flat, flat) == 0
    cross = np.zeros((40, 40, 3), np.uint8)  # equal to its quarter turns
    cross[18:22] = 255
    cross[:, 18:22] = 255
    assert best_rotation(cross, cross) == 0
    assert best_rotation(rotate(cross, 90), cross) == 0


def test_large_images_are_searched_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_SEARCH_SIDE", 40)
    alignment._rotation_search.cache_clear()
    reference = ndimage.zoom(photograph((40, 40)), (3, 3, 1), order=1)
    assert best_rotation(rotate(reference, 50), reference) == 310
    assert alignment._rotation_search(120, 120).side == 20
    alignment._rotation_search.cache_clear()


# --- the decision


def test_turned_copies_pass_after_alignment() -> None:
    angles = np.random.default_rng(1).integers(0, 360, 24)
    images = [rotate(bar(), int(a)) for a in angles]
    steps: list[tuple[str, int, int]] = []
    found = align_images(images, progress=lambda *step: steps.append(step))
    assert found.score_before < 600 < found.score_after
    assert found.kept
    assert found.positions_consistent
    assert found.angles[0] == 0
    gap = (found.angles - (angles[0] - angles)) % 360
    assert np.minimum(gap, 360 - gap).max() <= 1
    assert steps[-1] == ("align", 24, 24)

    turned, degrees = found.apply(rotate(bar(), 33))
    assert abs((degrees - (angles[0] - 33) + 180) % 360 - 180) <= 1
    assert turned.shape == (64, 64, 3)


def test_a_set_that_passes_is_left_alone() -> None:
    found = align_images([bar()] * 3)
    assert found.score_before > 600
    assert found.score_after is None
    assert not found.kept
    assert found.positions_consistent
    image = bar()
    assert found.apply(image)[0] is image


def test_no_search_without_being_asked() -> None:
    found = align_images([photograph(seed=s) for s in range(6)], threshold=1e4, search=False)
    assert not found.kept
    assert found.searched is None
    assert found.score_after is None


def test_known_angles_are_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [rotate(bar(32), a) for a in range(0, 360, 30)]
    found = align_images(images)
    known = found.searched.copy()
    known[1] = -1
    asked = []
    monkeypatch.setattr(alignment._RotationSearch, "best", lambda *_: asked.append(1) or 330)
    again = align_images(images, known=known)
    np.testing.assert_array_equal(again.searched, found.searched)
    assert len(asked) == 1


def test_a_set_without_structure_is_dropped() -> None:
    found = align_images([photograph(seed=s) for s in range(6)], threshold=1e4)
    assert not found.kept
    assert not found.positions_consistent
    assert found.reference is None
    np.testing.assert_array_equal(found.angles, 0)


def test_decision_survives_saving() -> None:
    for images in ([rotate(bar(32), a) for a in range(0, 360, 30)], [bar(32)] * 2):
        found = align_images(images)
        again = Alignment.from_parts(found.to_arrays(), json.loads(json.dumps(found.to_json())))
        assert again.to_json() == found.to_json()
        np.testing.assert_array_equal(again.angles, found.angles)
        one, other = found.apply(rotate(bar(32), 77)), again.apply(rotate(bar(32), 77))
        assert one[1] == other[1]
        np.testing.assert_array_equal(one[0], other[0])
    with pytest.raises(KeyError):
        Alignment.from_parts({}, found.to_json())
    with pytest.raises(KeyError):
        Alignment.from_parts(found.to_arrays(), {"kept": True})


def test_decision_refuses() -> None:
    with pytest.raises(TooFewImagesError):
        align_images([])
