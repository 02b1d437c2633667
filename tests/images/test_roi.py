"""Regions of interest: every form of one, its frame in an image, and what is painted over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inreach_fast.errors import ImageError, ParameterError, RegionError
from inreach_fast.images.preprocess import geometry_of, roi_cells
from inreach_fast.images.roi import PAINT, RegionOfInterest, roi_text
from inreach_fast.parameters import Parameters

MASK = np.zeros((6, 8), dtype=bool)
MASK[1:4, 2:7] = True


def test_every_form_of_a_mask_is_one_text(tmp_path: Path) -> None:
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    text = roi_text(MASK)
    assert text == "mask:6x8:10,5,3,5,3,5,17"
    for form in (MASK.astype(np.uint8) * 3, torch.from_numpy(MASK), tmp_path / "mask.png", str(tmp_path / "mask.png")):
        assert roi_text(form) == text
    assert roi_text(text) == text
    np.testing.assert_array_equal(RegionOfInterest(text).mask((6, 8), "x"), MASK)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_comes_back_from_its_text(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((7, 5)) < 0.5
    mask[0, 0], mask[-1, -1] = seed % 2 == 0, seed % 3 == 0
    np.testing.assert_array_equal(RegionOfInterest(roi_text(mask)).raster((7, 5)), mask)


def test_a_polygon_holds_the_pixels_whose_centres_it_encloses() -> None:
    square = roi_text([(0.25, 0.5), (0.75, 0.5), (0.75, 1.0), (0.25, 1.0)])
    assert roi_text("0.25,0.5; 0.75,0.5; 0.75,1; 0.25,1") == square
    inside = np.zeros((4, 8), dtype=bool)
    inside[2:, 2:6] = True
    np.testing.assert_array_equal(RegionOfInterest(square).mask((4, 8), "x"), inside)
    triangle = RegionOfInterest(roi_text(np.array([(0, 0), (1, 0), (0, 1)]))).raster((4, 4))
    assert triangle.astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_mask_is_scaled_to_images_of_its_proportions_alone() -> None:
    region = RegionOfInterest(roi_text(MASK))
    np.testing.assert_array_equal(region.mask((12, 16), "x"), MASK.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(RegionError, match=r"a.png: has 12 x 16 pixels \(width x height\), and the mask of roi 8 x 6"):
        region.mask((16, 12), "a.png")


def test_what_is_outside_is_painted_over() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    painted = RegionOfInterest(roi_text(MASK)).paint(image, "x")
    np.testing.assert_array_equal(painted[MASK], image[MASK])
    assert (painted[~MASK] == PAINT).all()


def test_a_patch_counts_if_half_of_it_is_inside() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, :12] = True  # of five columns of patches, 8 pixels wide, one and a half
    p = Parameters(image_size=(40, 40), roi=roi_text(mask))
    cells = roi_cells(p, (5, 5))
    assert cells is not None
    assert cells.tolist() == [0, 1, 5, 6, 10, 11, 15, 16, 20, 21]
    assert roi_cells(Parameters(), (5, 5)) is None
    mask[:, 11:] = False
    cropped = Parameters(image_size=(20, 20), resize=(40, 40), roi=roi_text(mask))  # columns 10 to 30 of 40
    with pytest.raises(RegionError, match="covers no patch of the 5 x 5"):
        roi_cells(cropped, (5, 5))
    assert geometry_of(cropped).roi == RegionOfInterest(roi_text(mask))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([(0, 0), (1, 1)], "at least three"),
        ([(0, 0, 1), (1, 1, 1), (0, 1, 1)], "at least three"),
        ([(0, 0), (100, 0), (100, 100)], "shares of the image's width and height"),
        ([(0.1, 0.1), (0.5, 0.1), (0.9, 0.1)], "encloses nothing"),
        (np.zeros((4, 4), bool), "marks no pixel"),
        (np.zeros((4, 4, 3)), "expected a mask"),
        (7, "expected a mask"),
    ],
)
def test_no_region(value: object, message: str) -> None:
    with pytest.raises(RegionError, match=message):
        roi_text(value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        roi_text(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    "text", ["mask:2x2:3", "mask:2x2:1,x", "mask:a:4", "polygon:1,2,3", "polygon:a,b", "mask:2x2:-1,5"]
)
def test_a_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="roi: expected a text"):
        roi_text(text)
