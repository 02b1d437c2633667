"""Masks: files and arrays that mark a part of an image, and boxes, as bool (H, W)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_types import Array, BoolArray
from ..errors import ImageError, RegionError
from .pixels import DEFAULT_RULE, PixelRule, Samples, upright
from .reading import is_array, read_samples

_LOSSY: Final = frozenset({".jpg", ".jpeg", ".jfif", ".webp", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"})

Box = tuple[int, int, int, int]
"""(x, y, width, height) in pixels; x to the right, y down, from the image's upper left corner."""


def read_mask_file(path: str | os.PathLike[str], rule: PixelRule = DEFAULT_RULE) -> BoolArray:
    """The mask in an image file, bool (H, W).

    Of a mask of two values, or palette colours, the lighter one is marked, whatever the two are. Of other masks every
    pixel that is not black is (MVTec LOCO and VisA number the kinds of defects); in a format that loses, such as JPEG,
    every pixel of more than half of the greatest value. Transparent pixels are black; EXIF's orientation is applied.

    Raises:
        ImageError: it cannot be read, or marks nothing that can be told.
    """
    return _marked(read_samples(path, rule), str(os.fspath(path)), Path(path).suffix.lower() in _LOSSY)


def _marked(samples: Samples, name: str, lossy: bool) -> BoolArray:
    # 8-bit grey levels would lose a mask of 0 and 1 in 16 bits.
    values = samples.values.astype(np.float64)
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    level = values[:, :, :colours].sum(axis=2)
    if values.shape[2] > colours:
        alpha = values[:, :, colours]
        if not level.any() and alpha.min() != alpha.max():
            raise ImageError(
                f"{name}: the mask is black, and only its transparency differs; save it in black and white"
            )
        level = level * (alpha > 0)
    if not np.isfinite(level).all():
        raise ImageError(f"{name}: the mask has values that are not finite; save it in black and white")
    low, high = level.min(), level.max()
    if low != high and ((level == low) | (level == high)).all():
        mask = level == high
    elif lossy:
        mask = level > high / 2
    else:
        mask = level != 0
    return np.ascontiguousarray(upright(mask, samples.orientation))


def as_mask(value: Any, name: str) -> BoolArray:
    """A mask in any form as bool (H, W): a file, or an array or tensor (H, W) of bool or numbers, not 0 where marked.

    Raises:
        RegionError: another shape, or nothing is marked. ImageError: a file that cannot be read.
    """
    if isinstance(value, (str, os.PathLike)):
        mask = read_mask_file(value)
    else:
        array: Array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.ndim != 2 or array.dtype.kind not in "buif":
            raise RegionError(f"{name}: expected a mask (H, W) of bool or numbers, got {array.dtype} of {array.shape}")
        mask = np.ascontiguousarray(array != 0)
    if not mask.any():
        raise RegionError(f"{name}: the mask marks no pixel; mark at least one")
    return mask


def region_mask(region: Any, size: tuple[int, int], name: str = "region") -> tuple[BoolArray, Box | None]:
    """A region of an image of ``size`` (height, width): bool (H, W), and the box around it; None for the whole image.

    Args:
        region: None, the whole image; (x, y, width, height) in whole pixels; or a mask of the image's size in any form
            that `as_mask` takes.

    Raises:
        RegionError: it does not lie within the image, is empty, or is a mask of another size.
    """
    height, width = size
    if region is None:
        return np.ones(size, dtype=bool), None
    if not isinstance(region, (str, os.PathLike)) and (not is_array(region) or np.ndim(region) == 1):
        x, y, w, h = _box(region, name)
        if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
            raise RegionError(
                f"{name}: x={x}, y={y}, width={w}, height={h} does not lie within the image of {width} x {height} "
                "pixels (width x height); give a box that does"
            )
        mask = np.zeros(size, dtype=bool)
        mask[y : y + h, x : x + w] = True
        return mask, (x, y, w, h)
    mask = as_mask(region, name)
    if mask.shape != size:
        raise RegionError(
            f"{name}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels and the image {width} x {height} (width x "
            "height); give one of the image's size"
        )
    return mask, box_of(mask)


def box_of(mask: BoolArray) -> Box:
    """The box around a mask that marks something."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _box(region: Any, name: str) -> Box:
    wrong = RegionError(f"{name}: expected (x, y, width, height) in whole pixels, or a mask (H, W), got {region!r}")
    if not isinstance(region, Sequence) and not is_array(region):
        raise wrong
    values = [getattr(value, "item", lambda value=value: value)() for value in region]
    if len(values) != 4 or any(isinstance(v, bool) or not isinstance(v, (int, float)) or v != v // 1 for v in values):
        raise wrong
    x, y, w, h = (int(value) for value in values)
    return x, y, w, h
