"""Pictures of inspected images: one next to its map, and many in rows (input, truth, map, overlay).

Maps have one colour scale, 0 to twice the threshold, so that the maps of a model can be compared between images and
runs. A scale fitted to each image would show the noise of a good part as brightly as a crack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..array_types import Array, BoolArray, FloatArray, UInt8Array
from .console import format_number

Colour: TypeAlias = tuple[int, int, int]

INK: Colour = (30, 30, 30)
FAINT: Colour = (110, 110, 110)
GOOD: Colour = (0, 110, 60)
BAD: Colour = (190, 20, 30)

SCALE_TOP = 2.0
"""Top of the colour scale, in thresholds."""

OUTLINE: Colour = (0, 255, 255)
"""Colour around what is above the threshold; the colour map has nothing like it."""

# "inferno" (Smith and van der Walt, matplotlib, CC0): lightness rises evenly, also in grey and for the colour-blind.
# Least-squares polynomials over its 256 colours (largest difference 6 of 255), in ascending powers of t in [0, 1]; one
# column each for red, green and blue in [0, 1].
_INFERNO = np.array(
    [
        (0.00029, 0.10145, 11.67787, -42.04922, 78.09552, -72.64073, 26.07045, -0.27938),
        (-0.01123, 1.32659, -14.37827, 75.81556, -194.45428, 264.83412, -180.08695, 47.96137),
        (0.01912, 0.79274, 29.36525, -210.60842, 622.11890, -942.39117, 711.11453, -209.78005),
    ]
).T

# Pixels. The picture of one image:
_SMALLEST_SIDE, _LARGEST_SIDE, _SMALLEST_WIDTH = 256, 1600, 520
# The sheet:
_CELL, _GAP, _LABEL, _HEAD = 200, 8, 176, 78
_COLUMNS = ("input", "truth", "anomaly map", "overlay")
_LEFT = [2 * _GAP + _LABEL + column * (_CELL + _GAP) for column in range(len(_COLUMNS))]
_TRUTH: Colour = (255, 60, 60)

font = lru_cache(maxsize=32)(ImageFont.load_default)  # by size in pixels


def shorten(text: str, size: int, room: float) -> str:
    """`text`, with its middle replaced by an ellipsis if it is wider than `room` pixels."""
    keep, shown = len(text), text
    while keep > 1 and font(size).getlength(shown) > room:
        keep -= 1
        shown = text[: keep // 2] + "..." + text[len(text) - (keep - keep // 2) :]
    return shown


def draw_text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size: int,
    room: float,
    colour: Colour = INK,
    centre: bool = False,
) -> None:
    """One line of text, shortened to `room` pixels; `at` is its top left corner, or the middle of its top."""
    words = shorten(text, size, room)
    draw.text(at, words, fill=colour, font=font(size), anchor="ma" if centre else "la")


@dataclass(frozen=True, eq=False)
class Inspected:
    """One inspected image."""

    name: str
    image: UInt8Array  # (H,W,3), the input
    anomaly_map: FloatArray  # (H,W) in the input's frame; NaN where nothing was inspected
    score: float
    threshold: float
    is_anomalous: bool
    truth: BoolArray | None = None  # (H,W), True on defects

    @property
    def verdict(self) -> tuple[str, Colour]:
        """The verdict in words, and its colour."""
        return ("ANOMALOUS", BAD) if self.is_anomalous else ("nominal", GOOD)

    def panels(self, size: tuple[int, int], line: int) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
        """Input, heat map and overlay at (height, width), with outlines of `line` pixels."""
        shown = resize(self.image, size, Image.Resampling.LANCZOS)
        relative = resize(in_thresholds(self.anomaly_map, self.threshold), size, Image.Resampling.BILINEAR)
        with np.errstate(invalid="ignore"):
            above = relative > 1.0
        heat_map, overlay = heat(relative), blend(shown, relative)
        return shown, outline(heat_map, above, OUTLINE, line), outline(overlay, above, OUTLINE, line)


def inferno(values: npt.ArrayLike) -> UInt8Array:
    """Colours (..., 3) of values from 0 (black) to 1 (pale yellow); clipped outside; NaN gets a neutral grey."""
    t = np.asarray(values, dtype=np.float64)
    rgb = np.polynomial.polynomial.polyval(np.clip(np.nan_to_num(t), 0.0, 1.0), _INFERNO)
    colours = np.rint(np.clip(np.moveaxis(rgb, 0, -1), 0.0, 1.0) * 255).astype(np.uint8)
    colours[np.isnan(t)] = 128
    return np.asarray(colours)


def in_thresholds(anomaly_map: npt.NDArray[np.floating], threshold: float) -> FloatArray:
    """The map divided by the threshold: 1 is the threshold. NaN (not inspected) stays NaN."""
    unit = threshold if np.isfinite(threshold) and threshold > 0 else 1.0
    return (anomaly_map / unit).astype(np.float32)


def heat(relative: npt.NDArray[np.floating]) -> UInt8Array:
    """(H,W) map in thresholds -> (H,W,3) colours; grey where nothing was inspected."""
    return inferno(relative / SCALE_TOP)


def blend(image: UInt8Array, relative: npt.NDArray[np.floating]) -> UInt8Array:
    """The heat over the image: transparent where the map is low, dense from the threshold on, grey where it is NaN."""
    step = np.clip((np.nan_to_num(relative) - 0.5) / 0.5, 0.0, 1.0)
    opacity = (0.75 * step * step * (3 - 2 * step))[..., None]
    mixed = image * (1 - opacity) + heat(relative) * opacity
    missing = np.isnan(relative)
    mixed[missing] = 0.35 * image[missing] + 0.65 * 128
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def outline(picture: UInt8Array, region: BoolArray, colour: Colour, width: int) -> UInt8Array:
    """The picture with the border of a region, drawn inside the region, `width` pixels thick."""
    inner = Image.fromarray(region.astype(np.uint8))
    for _ in range(width):
        inner = inner.filter(ImageFilter.MinFilter(3))  # erosion by one pixel
    drawn = picture.copy()
    drawn[region & (np.asarray(inner) == 0)] = colour
    return np.asarray(drawn)


def resize(array: Array, size: tuple[int, int], method: Image.Resampling) -> Array:
    """(H,W) or (H,W,3) to (height, width); a pixel that NaN contributes to is NaN."""
    if array.shape[:2] == size:
        return array
    return np.array(Image.fromarray(array).resize(size[::-1], method))


def colour_bar(width: int, *, text_size: int, unit: str = "", remark: str = "") -> Image.Image:
    """A horizontal colour bar, `width` pixels wide, with ticks in thresholds and a mark at the threshold."""
    bar, tick, margin = text_size, max(3, text_size // 3), 2 * text_size
    inside = max(2, width - 2 * margin)
    picture = Image.new("RGB", (width, bar + tick + round(2.6 * text_size) + 4), "white")
    ramp = inferno(np.linspace(0.0, 1.0, inside))
    picture.paste(Image.fromarray(np.repeat(ramp[None], bar, axis=0)), (margin, 0))
    draw = ImageDraw.Draw(picture)
    for value in (0.0, 0.5, 1.0, 1.5, 2.0):
        x = margin + round(value / SCALE_TOP * (inside - 1))
        draw.line((x, bar, x, bar + tick), fill=FAINT)
        label = f"{value:g}{'+' if value == SCALE_TOP else ''}"
        draw_text(draw, (x, bar + tick), label, size=text_size, room=width, centre=True)
    middle = margin + round(1.0 / SCALE_TOP * (inside - 1))
    draw.line((middle, 0, middle, bar), fill=OUTLINE, width=max(2, text_size // 6))
    words = f"anomaly in thresholds{unit}; cyan: the threshold{remark}"
    below = (width / 2, bar + tick + text_size + 4)
    draw_text(draw, below, words, size=text_size, room=width, centre=True, colour=FAINT)
    return picture


def inspection_picture(inspected: Inspected, *, remark: str = "") -> UInt8Array:
    """Input and heat-map overlay side by side below the verdict, (h,w,3); the remark is on the second line."""
    height, width = inspected.image.shape[:2]
    short, long = min(height, width), max(height, width)
    factor = min(1.0, _LARGEST_SIDE / long)  # not larger than a screen
    if short < _SMALLEST_SIDE and long * 2 <= _LARGEST_SIDE:  # thumbnails are enlarged by a whole number
        factor = float(min(-(-_SMALLEST_SIDE // short), _LARGEST_SIDE // long))
    height, width = max(1, round(height * factor)), max(1, round(width * factor))
    shown, _, overlay = inspected.panels((height, width), max(1, round(min(height, width) / 180)))

    size = max(14, round(min(height, width) / 22))
    gap = size // 2
    head = round(3.4 * size)
    inside = max(2 * width + gap, _SMALLEST_WIDTH)  # a tall, narrow image still needs room for the words
    left = gap + (inside - 2 * width - gap) // 2
    threshold = format_number(inspected.threshold)
    grey = "; grey: not inspected" if np.isnan(inspected.anomaly_map).any() else ""
    bar = colour_bar(inside, text_size=max(12, round(0.8 * size)), unit=f" (1 = {threshold})", remark=grey)
    sheet = Image.new("RGB", (inside + 2 * gap, head + height + gap + bar.height), "white")
    draw = ImageDraw.Draw(sheet)
    verdict, colour = inspected.verdict
    words = f"{verdict}: score {format_number(inspected.score)}, threshold {threshold}"
    draw_text(draw, (gap, 0.3 * size), words, size=round(1.2 * size), room=inside, colour=colour)
    label = f"{inspected.name}  {remark}".rstrip()
    draw_text(draw, (gap, 1.9 * size), label, size=size, room=inside, colour=FAINT)
    sheet.paste(Image.fromarray(shown), (left, head))
    sheet.paste(Image.fromarray(overlay), (left + width + gap, head))
    sheet.paste(bar, (gap, head + height + gap))
    return np.array(sheet)


def inspection_sheet(rows: Sequence[Inspected], *, title: str, subtitle: str) -> UInt8Array:
    """The sheet as (h,w,3) uint8; scores are in thresholds, so that rows of several models compare."""
    width = _LEFT[-1] + _CELL + _GAP
    bar = colour_bar(3 * _CELL + 2 * _GAP, text_size=14)
    sheet = Image.new("RGB", (width, _HEAD + len(rows) * (_CELL + _GAP) + bar.height + 2 * _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw_text(draw, (_GAP, 6), title, size=20, room=width - 2 * _GAP)
    draw_text(draw, (_GAP, 32), subtitle, size=15, room=width - 2 * _GAP, colour=FAINT)
    for left, words in zip(_LEFT, _COLUMNS, strict=True):
        draw_text(draw, (left + _CELL / 2, _HEAD - 22), words, size=15, room=_CELL, centre=True)
    for number, row in enumerate(rows):
        top = _HEAD + number * (_CELL + _GAP)
        for offset, words, size, colour in _labels(row):
            draw_text(draw, (2 * _GAP, top + offset), words, size=size, room=_LABEL - 2 * _GAP, colour=colour)
        for left, cell in zip(_LEFT, _cells(row), strict=True):
            sheet.paste((235, 235, 235), (left, top, left + _CELL, top + _CELL))
            dx, dy = (_CELL - cell.shape[1]) // 2, (_CELL - cell.shape[0]) // 2
            sheet.paste(Image.fromarray(cell), (left + dx, top + dy))
    sheet.paste(bar, (_LEFT[1] - _CELL // 2, sheet.height - bar.height - _GAP))
    return np.array(sheet)


def _labels(row: Inspected) -> list[tuple[int, str, int, Colour]]:
    """Offset from the top, words, size and colour of each line beside a row."""
    defective = row.truth is not None and bool(row.truth.any())
    verdict, colour = row.verdict
    right = defective == row.is_anomalous
    outcome = "right" if right else ("missed defect" if defective else "false alarm")
    relative = row.score / row.threshold if row.threshold > 0 else row.score
    return [
        (26, row.name, 16, INK),
        (50, f"truth: {'defective' if defective else 'good'}", 15, INK),
        (82, verdict, 20, colour),
        (110, f"{relative:.2f} x threshold", 15, INK),
        (134, outcome, 15, FAINT if right else BAD),
    ]


def _cells(row: Inspected) -> tuple[UInt8Array, ...]:
    """The four pictures of a row, each as large as its square cell allows."""
    height, width = row.image.shape[:2]
    factor = _CELL / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    image, heat_map, overlay = row.panels(size, 2)
    known = row.truth if row.truth is not None else np.zeros((height, width), dtype=bool)
    truth = resize(known, size, Image.Resampling.NEAREST)
    shaded = image.copy()
    shaded[truth] = np.rint(0.55 * image[truth] + 0.45 * np.array(_TRUTH)).astype(np.uint8)
    return image, outline(shaded, truth, _TRUTH, 2), heat_map, overlay
