"""Colours, overlays and sheets: what a reader of the picture relies on."""

from __future__ import annotations

import numpy as np
import pytest

from inreach_fast.cli.pictures import (
    OUTLINE,
    Inspected,
    blend,
    font,
    heat,
    in_thresholds,
    inferno,
    inspection_picture,
    inspection_sheet,
    outline,
    shorten,
)


def test_lightness_rises_with_the_value() -> None:
    colours = inferno(np.linspace(0, 1, 65)).astype(float)
    lightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(lightness) > 0)
    assert lightness[0] < 10
    assert lightness[-1] > 230


def test_values_outside_are_clipped_and_nan_is_grey() -> None:
    colours = inferno([-1.0, 0.0, 1.0, 9.0, np.nan])
    assert np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[2], colours[3])
    assert colours[4].tolist() == [128, 128, 128]


def test_the_scale_is_the_thresholds_not_the_images() -> None:
    low = in_thresholds(np.array([[1.0, 2.0]]), 10.0)
    assert np.array_equal(heat(low), inferno([[0.05, 0.1]]))


def test_a_low_map_leaves_the_image_clear() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(blend(image, np.full((8, 8), 0.49)), image)
    assert not np.array_equal(blend(image, np.full((8, 8), 1.5)), image)
    assert np.ptp(blend(image, np.full((8, 8), np.nan)).astype(int)) <= 0.35 * 255 + 1


def test_outline_is_the_border_of_the_region() -> None:
    region = np.zeros((9, 9), dtype=bool)
    region[2:7, 2:7] = True
    drawn = outline(np.zeros((9, 9, 3), dtype=np.uint8), region, OUTLINE, 1)
    marked = (drawn == OUTLINE).all(axis=2)
    assert marked.sum() == 16
    assert not marked[3:6, 3:6].any()


@pytest.mark.parametrize("shape", [(40, 100), (300, 20), (1, 1), (64, 64), (2100, 300)])
def test_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    anomaly_map = np.linspace(0, 3, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    anomaly_map[0, 0] = np.nan
    shown = inspection_picture(Inspected("x" * 500, image, anomaly_map, 3.0, 1.0, True), remark="r")
    assert shown.dtype == np.uint8
    assert shown.shape[2] == 3
    assert 500 < shown.shape[1] < 4000


def test_sheet_says_what_went_wrong() -> None:
    image = np.full((32, 48, 3), 90, dtype=np.uint8)
    truth = np.zeros((32, 48), dtype=bool)
    right = Inspected("a", image, np.zeros((32, 48)), 0.5, 1.0, False, truth)
    wrong = Inspected("a", image, np.zeros((32, 48)), 0.5, 1.0, True, truth)
    sheets = [inspection_sheet([row, row], title="t", subtitle="s") for row in (right, wrong)]
    assert sheets[0].shape == sheets[1].shape
    assert not np.array_equal(*sheets)


def test_long_text_is_shortened_in_the_middle() -> None:
    text = "/a/very/long/path/to/some/image.png"
    short = shorten(text, 14, 100)
    assert font(14).getlength(short) <= 100
    assert short.startswith("/a")
    assert short.endswith("png")
    assert shorten("abc", 14, 500) == "abc"
