"""Tiles: laid into one grid, without seams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inreach_fast.errors import ParameterError
from inreach_fast.images.tiles import Tiles


def means(image: Any) -> Any:
    """The mean of each 4 x 4 pixels and of each channel."""
    h, w = image.shape[0] // 4, image.shape[1] // 4
    return image.reshape(h, 4, w, 4, 3).astype(np.float32).mean(axis=(1, 3)).reshape(h * w, 3)


@pytest.mark.parametrize(("count", "overlap"), [((1, 1), 8), ((2, 3), 8), ((3, 1), 0), ((2, 2), 12)])
def test_tiles_of_features_without_context_are_the_whole(count: tuple[int, int], overlap: int) -> None:
    tiles = Tiles((24, 32), count, overlap)
    grid = tiles.grid((6, 8))
    size = (count[0] * (24 - overlap) + overlap, count[1] * (32 - overlap) + overlap)
    assert grid == (size[0] // 4, size[1] // 4)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = tiles.described(image, means, (6, 8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, means(image), rtol=1e-6)


def test_where_tiles_overlap_they_fade_into_each_other() -> None:
    tiles, calls = Tiles((8, 16), (1, 2), 8), iter([np.float32(0), np.float32(1)])
    flat = lambda part: np.full((4, 1), next(calls))  # noqa: E731
    found = tiles.described(np.zeros((8, 24, 3), np.uint8), flat, (1, 4))
    np.testing.assert_allclose(found.ravel(), [0, 0, 0.25, 0.75, 1, 1])


@pytest.mark.parametrize(("overlap", "cells"), [(5, (6, 8)), (8, (7, 8)), (2, (6, 8))])
def test_patches_of_neighbours_must_lie_on_one_grid(overlap: int, cells: tuple[int, int]) -> None:
    with pytest.raises(ParameterError, match=r"tile_overlap: .* must fit its neighbour's"):
        Tiles((24, 32), (2, 2), overlap).grid(cells)
