"""Geometry: against torchvision's transforms, and there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from inreach_fast.errors import DataError
from inreach_fast.images.preprocess import Geometry

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("size", [(320, 320), (100, 301), (700, 33)])
def test_paper_geometry_is_torchvisions(size: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = transforms.Compose([transforms.Resize((256, 256)), transforms.CenterCrop(224)])(Image.fromarray(image))
    np.testing.assert_array_equal(Geometry((256, 256), (224, 224)).apply(image), np.asarray(expected))


@pytest.mark.parametrize("crop", [(31, 40), (32, 41), (33, 33)])
def test_oblong_crop_is_torchvisions(crop: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (60, 45, 3), dtype=np.uint8)
    geometry = Geometry(resize=(47, 46), crop=crop)
    expected = transforms.Compose([transforms.Resize((47, 46)), transforms.CenterCrop(crop)])(Image.fromarray(image))
    np.testing.assert_array_equal(geometry.apply(image), np.asarray(expected))


def test_default_keeps_everything() -> None:
    image = RNG.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Geometry().apply(image), image)
    assert Geometry(resize=(8, 20)).apply(image).shape == (8, 20, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=50)
def test_a_constant_map_stays_constant(height: int, width: int, h: int, w: int) -> None:
    back = Geometry(resize=(h, w)).map_to_original(np.full((h, w), 2.5), (height, width))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, np.full((height, width), 2.5, np.float32))


def test_map_of_the_same_size_is_unchanged() -> None:
    values = RNG.random((14, 9), dtype=np.float32)
    np.testing.assert_array_equal(Geometry(resize=(14, 9)).map_to_original(values, (14, 9)), values)
    np.testing.assert_array_equal(Geometry(resize=None).map_to_original(values, (14, 9)), values)


def test_a_map_goes_back_to_where_it_came_from() -> None:
    """A ramp over the original, resized and cropped, comes back as the same ramp inside the crop and NaN outside."""
    rows = np.linspace(0, 250, 100)[:, None] * np.ones((1, 60))
    image = np.repeat(np.round(rows)[:, :, None], 3, 2).astype(np.uint8)
    geometry = Geometry(resize=(50, 30), crop=(40, 20))
    back = geometry.map_to_original(geometry.apply(image)[:, :, 0].astype(np.float32), (100, 60))
    inside = np.zeros((100, 60), bool)
    inside[10:90, 10:50] = True
    np.testing.assert_array_equal(np.isnan(back), ~inside)
    assert np.abs(back - rows)[12:88, 10:50].max() < 2


def test_bad_input() -> None:
    with pytest.raises(DataError, match="smaller than the crop"):
        Geometry(resize=None, crop=(9, 9)).apply(np.zeros((4, 12, 3), np.uint8))
    with pytest.raises(DataError, match="input size"):
        Geometry().map_to_original(np.zeros((4, 4)), (9, 9))
