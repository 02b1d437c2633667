from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inreach_fast.errors import DataError, EmptyFolderError, ImageError, MixedSizesError, ParameterError
from inreach_fast.images.reading import as_image
from inreach_fast.images.source import open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 3), dtype=np.uint8)


class Set(torch.utils.data.Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


def forms(folder: Path) -> dict[str, Any]:
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(folder / f"{i}.png")
    tensors = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    return {
        "folder": folder,
        "folder as text": str(folder),
        "paths": [folder / f"{i}.png" for i in range(3)],
        "array": PIXELS,
        "arrays": list(PIXELS),
        "pil": [Image.fromarray(image) for image in PIXELS],
        "uint8 tensors": list(tensors),
        "tensor": tensors,
        "float tensors": list(tensors / 255.0),
        "dataset": Set([(image, 0) for image in tensors / 255.0]),
        "dataset of images": Set([Image.fromarray(image) for image in PIXELS]),
        "generator": (image for image in PIXELS),
    }


def test_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    for name, images in forms(tmp_path).items():
        source = open_images(images)
        assert len(source) == 3, name
        for i in range(3):
            assert np.array_equal(source.load(i), PIXELS[i]), name
    assert open_images(tmp_path).names == ["0.png", "1.png", "2.png"]
    assert open_images(PIXELS).names == ["images[0]", "images[1]", "images[2]"]


def test_grey_becomes_three_channels() -> None:
    grey = np.tile(PIXELS[..., 0], (2, 1, 2))
    assert np.array_equal(open_images(grey).load(1), np.repeat(grey[1][:, :, None], 3, axis=2))
    assert np.array_equal(as_image(torch.from_numpy(grey[0])), np.repeat(grey[0][:, :, None], 3, axis=2))


@pytest.mark.parametrize(
    ("images", "error", "says"),
    [
        ([], EmptyFolderError, "no image"),
        (np.zeros((0, 4, 4, 3), np.uint8), EmptyFolderError, "no image"),
        (3, ParameterError, "int"),
        (np.zeros(5, np.uint8), ParameterError, r"shape \(5,\)"),
        (PIXELS[0], ParameterError, r"one image of shape \(5, 6, 3\)"),
        (np.zeros((9, 9, 4), np.uint8), ParameterError, "one image"),
        (torch.zeros(3, 9, 9), ParameterError, r"one image of shape \(3, 9, 9\)"),
        ([PIXELS[0], PIXELS[1].astype(np.uint16)], MixedSizesError, "dtypes"),
        ("no/such/folder", DataError, "no/such/folder"),
    ],
)
def test_what_holds_no_images(images: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        open_images(images)


@pytest.mark.parametrize("item", [np.zeros((2, 2, 7), np.uint8), "missing.png", None, torch.full((3, 2, 2), 1.5)])
def test_what_is_no_image_is_named(item: Any) -> None:
    with pytest.raises(ImageError, match=r"missing\.png|images\[1\]"):
        open_images([PIXELS[0], item]).load(1)


def test_floats_have_no_range() -> None:
    with pytest.raises(ImageError, match=r"images\[0\].*float32"):
        open_images(PIXELS.astype(np.float32)).load(0)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(EmptyFolderError, match=str(tmp_path)):
        open_images(tmp_path)
