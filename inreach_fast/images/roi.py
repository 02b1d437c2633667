"""The region of interest: the part of every image that is learnt and scored (parameter ``roi``).

It is kept as a text, which a model file holds: ``polygon:X,Y;X,Y;...`` in shares of width and height, or
``mask:HxW:N,N,...``, the lengths of alternating runs of a mask, row by row, beginning outside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_types import BoolArray, UInt8Array
from ..errors import ParameterError, RegionError
from .masks import as_mask
from .reading import is_array

PAINT: Final = (124, 116, 104)
"""RGB of what lies outside: ImageNet's mean, which the usual normalisation turns into about 0."""

_POLYGON: Final = re.compile(r"\s*[-+.\deE]+\s*,\s*[-+.\deE]+\s*(;\s*[-+.\deE]+\s*,\s*[-+.\deE]+\s*)*;?\s*")


def roi_text(value: Any) -> str:
    """A region of interest in any form, as its text.

    Args:
        value: an image file, or an array or tensor (H, W), not 0 inside (`images.masks.as_mask`); a polygon of at least
            three (x, y), in shares of the image's width and height; or the text itself.

    Raises:
        RegionError, ImageError: no such region. ParameterError: a malformed text.
    """
    if isinstance(value, str) and value.startswith(("mask:", "polygon:")):
        RegionOfInterest(value).raster((8, 8))
        return value
    if isinstance(value, str) and _POLYGON.fullmatch(value) and not Path(value).exists():
        value = [tuple(map(_number, point.split(","))) for point in value.strip("; ").split(";")]
    is_file = isinstance(value, (str, os.PathLike))
    if not is_file and not (is_array(value) and value.shape[-1:] != (2,)) and isinstance(value, Sequence | np.ndarray):
        return _polygon_text(value)
    mask = as_mask(value, "roi")
    flat = np.concatenate([[False], mask.ravel(), [not mask.flat[-1]]])
    runs = np.diff(np.flatnonzero(np.diff(flat)), prepend=0)
    return f"mask:{mask.shape[0]}x{mask.shape[1]}:{','.join(map(str, runs.tolist()))}"


def _polygon_text(points: Any) -> str:
    try:
        corners = np.array(points, dtype=np.float64)
    except (TypeError, ValueError):
        corners = np.empty(0)
    if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3:
        raise RegionError(f"roi: expected a polygon of at least three (x, y), or a mask, got {points!r}")
    if not ((corners >= 0) & (corners <= 1)).all():
        raise RegionError(
            "roi: a polygon's x and y are shares of the image's width and height, from 0 to 1; divide pixels by them, "
            "or give a mask"
        )
    text = "polygon:" + ";".join(f"{x!r},{y!r}" for x, y in corners.tolist())
    if not RegionOfInterest(text).raster((256, 256)).any():
        raise RegionError(f"roi: the polygon encloses nothing: {points!r}; give its corners in their order around it")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RegionError(f"roi: {text.strip()!r} is no number; give a polygon as x,y;x,y;x,y") from None


@dataclass(frozen=True)
class RegionOfInterest:
    """A region of interest by its text."""

    text: str

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of a mask; None for a polygon, which fits every image."""
        own = _parsed(self.text)
        return (int(own.shape[0]), int(own.shape[1])) if own.dtype == np.bool_ else None

    def mask(self, size: tuple[int, int], name: str) -> BoolArray:
        """The region in an image of ``size`` (height, width), bool (H, W).

        A mask of other numbers of pixels is scaled, if it has the image's proportions.

        Raises:
            RegionError: it does not; names the image.
        """
        if self.size is not None:
            height, width = self.size
            if abs(size[0] * width - size[1] * height) > max(width, height):
                raise RegionError(
                    f"{name}: has {size[1]} x {size[0]} pixels (width x height), and the mask of roi {width} x "
                    f"{height}, which has other proportions; give a mask in the frame of the images"
                )
        return self.raster(size)

    def raster(self, size: tuple[int, int]) -> BoolArray:
        """The region stretched over a frame of ``size``, bool (H, W): the pixels whose centres lie inside."""
        return _raster(self.text, size)

    def paint(self, image: UInt8Array, name: str) -> UInt8Array:
        """A copy of an image, uint8 (H, W, 3), of which only the region is left."""
        size = (int(image.shape[0]), int(image.shape[1]))
        painted: UInt8Array = np.where(self.mask(size, name)[:, :, None], image, np.array(PAINT, np.uint8))
        return painted


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """A mask, bool (H, W), or the corners of a polygon, float64 (n, 2). Raises ParameterError."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "polygon":
            return np.array([[float(v) for v in point.split(",")] for point in rest.split(";")]).reshape(-1, 2)
        sides, _, runs = rest.partition(":")
        height, width = (int(side) for side in sides.split("x"))
        lengths = np.array([int(run) for run in runs.split(",")])
        if kind != "mask" or lengths.sum() != height * width or (lengths < 0).any() or height * width > 2**31:
            raise ValueError(text)
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
    except ValueError:
        raise ParameterError(f"roi: expected a text of the kind mask: or polygon:, got {text[:60]!r}") from None


@lru_cache(maxsize=8)
def _raster(text: str, size: tuple[int, int]) -> BoolArray:
    own, (height, width) = _parsed(text), size
    if own.dtype == np.bool_:
        rows, columns = ((np.arange(n) * 2 + 1) * old // (2 * n) for n, old in zip(size, own.shape, strict=True))
        inside: BoolArray = own[rows[:, None], columns]
    else:
        inside = np.zeros(size, dtype=bool)
        x, y = own[:, 0] * width, own[:, 1] * height
        across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
        for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
            crossed = np.flatnonzero((y0 > down) != (y1 > down))
            at = x0 + (down[crossed] - y0) * ((x1 - x0) / (y1 - y0) if y1 != y0 else 0.0)
            inside[crossed] ^= across < at[:, None]
    inside.flags.writeable = False
    return inside
