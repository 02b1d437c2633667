from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inreach_fast.errors import ParameterError
from inreach_fast.images.source import image_numbers

NAMES = ["a/0.png", "a/1.png", "b/1.png", "images[3]", "2.png", "2.png"]


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (3, [3]),
        (np.int64(0), [0]),
        ([4, 0, 4], [0, 4]),
        (np.array([2, 1]), [1, 2]),
        (np.array(3), [3]),
        ("a/0.png", [0]),
        (Path("b/1.png"), [2]),
        ("0.png", [0]),
        (["images[3]", 1, "0.png"], [0, 1, 3]),
        (range(2), [0, 1]),
    ],
)
def test_numbers_and_names(ids: Any, numbers: list[int]) -> None:
    found = image_numbers(ids, NAMES, "ids")
    assert found.dtype == np.int64
    assert found.tolist() == numbers


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (6, "no image 6; give a number from 0 to 5"),
        (-1, "no image -1"),
        ([], "at least one"),
        ("c.png", "has the name 'c.png'; give one like 'a/0.png', 'a/1.png', ... .*info --json"),
        ("1.png", "2 training images have the name '1.png'.*give a number"),
        ("2.png", "numbers 4, 5"),
        (True, "numbers or names"),
        (1.0, "numbers or names"),
        ([None], "numbers or names"),
        (np.array([[1]]), "numbers or names"),
        (np.array([1.0]), "numbers or names"),
        (b"2.png", "numbers or names"),
    ],
)
def test_ids_that_name_no_image(ids: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=f"^ids: .*{message}"):
        image_numbers(ids, NAMES, "ids")
