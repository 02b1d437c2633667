"""Anomaly maps as colours, on one scale: 0 to twice the threshold, so that the threshold is its middle.

A model's maps can then be compared between images and between runs, which a scale fitted to each image
forbids: there the noise of a perfect part would glow as brightly as a crack.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from ...array_types import BoolArray, DoubleArray, UInt8Array
from ..tables import format_number
from .colours import inferno
from .text import FAINT, INK, draw_text

SCALE_TOP = 2.0
"""Top of the colour scale, in thresholds."""

OUTLINE = (0, 255, 255)
"""Colour around what is over the threshold; nothing in the colour map looks like it."""


def in_thresholds(anomaly_map: npt.NDArray[np.floating], threshold: float) -> DoubleArray:
    """The map divided by the threshold: 1 is the threshold. NaN (not inspected) stays NaN."""
    unit = threshold if np.isfinite(threshold) and threshold > 0 else 1.0
    return np.asarray(anomaly_map, dtype=np.float64) / unit


def heat(relative: DoubleArray) -> UInt8Array:
    """(H,W) map in thresholds -> (H,W,3) colours; what was not inspected is grey."""
    return inferno(relative / SCALE_TOP)


def blend(image: UInt8Array, relative: DoubleArray) -> UInt8Array:
    """The heat laid over the image: clear where the map is low, dense from the threshold on.

    Args:
        image: (H,W,3) uint8.
        relative: (H,W) map in thresholds; NaN (not inspected) is shown as the image, greyed.
    """
    step = np.clip((np.nan_to_num(relative) - 0.5) / 0.5, 0.0, 1.0)
    opacity = (0.75 * step * step * (3 - 2 * step))[..., None]
    mixed = image * (1 - opacity) + heat(relative) * opacity
    missing = np.isnan(relative)
    mixed[missing] = 0.35 * image[missing] + 0.65 * 128
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def outline(picture: UInt8Array, region: BoolArray, *, colour: tuple[int, int, int], width: int) -> UInt8Array:
    """The border of a region, drawn just inside it, `width` pixels thick."""
    if not region.any():
        return picture
    inner = ndimage.binary_erosion(region, iterations=max(1, width), border_value=1)
    # A region thinner than the border would be all border anyway: that is what erosion leaves.
    drawn: UInt8Array = picture.copy()
    drawn[region & ~inner] = colour
    return drawn


def resize_map(anomaly_map: npt.NDArray[np.floating], size: tuple[int, int]) -> DoubleArray:
    """(H,W) map to (height, width), bilinear; a pixel touched by NaN is NaN."""
    if anomaly_map.shape == size:
        return np.asarray(anomaly_map, dtype=np.float64)
    source = Image.fromarray(np.ascontiguousarray(anomaly_map, dtype=np.float32))
    return np.asarray(source.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float64)


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """(H,W,3) to (height, width): averaged down, interpolated up."""
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)


def resize_mask(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    """(H,W) bool to (height, width), nearest."""
    resized = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized, dtype=bool)


def colour_bar(width: int, *, text_size: int, threshold: float | None = None, remark: str = "") -> Image.Image:
    """A horizontal colour bar with its ticks in thresholds and the threshold's own mark.

    Args:
        width: pixels.
        text_size: of the labels, pixels.
        threshold: the value that "1" stands for, printed too where given.
        remark: more words below the bar.
    """
    bar, tick = text_size, max(3, text_size // 3)
    margin = 2 * text_size
    inside = max(2, width - 2 * margin)
    picture = Image.new("RGB", (width, bar + tick + round(2.6 * text_size) + 4), "white")
    ramp = inferno(np.linspace(0.0, 1.0, inside))
    picture.paste(Image.fromarray(np.repeat(ramp[None], bar, axis=0)), (margin, 0))
    draw = ImageDraw.Draw(picture)
    for value in (0.0, 0.5, 1.0, 1.5, 2.0):
        x = margin + round(value / SCALE_TOP * (inside - 1))
        draw.line((x, bar, x, bar + tick), fill=INK, width=1)
        label = f"{value:g}" + ("+" if value == SCALE_TOP else "")
        draw_text(draw, (x, bar + tick), label, size=text_size, centre=True, colour=INK)
    middle = margin + round(1.0 / SCALE_TOP * (inside - 1))
    draw.line((middle, 0, middle, bar), fill=OUTLINE, width=max(2, text_size // 6))
    words = "anomaly in thresholds; cyan: the threshold"
    if threshold is not None:
        words = f"anomaly in thresholds (1 = {format_number(threshold)}); cyan: the threshold"
    words += remark
    draw_text(
        draw,
        (width / 2, bar + tick + text_size + 4),
        words,
        size=text_size,
        centre=True,
        colour=FAINT,
        room=width,
    )
    return picture
