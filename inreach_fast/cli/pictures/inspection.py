"""Pictures to judge an inspection by: of one image, and of many in rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...array_types import UInt8Array
from ..tables import format_number
from .heat import Inspected, colour_bar, outline, resize
from .text import BAD, FAINT, INK, Colour, draw_text

# Pixels. The picture of one image:
_SMALLEST_SIDE, _LARGEST_SIDE, _SMALLEST_WIDTH = 256, 1600, 520
# The sheet:
_CELL, _GAP, _LABEL, _HEAD = 200, 8, 176, 78
_COLUMNS = ("input", "truth", "anomaly map", "overlay")
_LEFT = [2 * _GAP + _LABEL + column * (_CELL + _GAP) for column in range(len(_COLUMNS))]
_TRUTH: Colour = (255, 60, 60)


def inspection_picture(inspected: Inspected, *, remark: str = "") -> UInt8Array:
    """Input and heat-map overlay side by side below the verdict.

    Args:
        inspected: the image; its `truth` is not shown.
        remark: more words for the second line.

    Returns:
        (h,w,3) uint8. The input keeps its size unless that is too small to read or too large for a screen.
    """
    height, width = _display_size(*inspected.image.shape[:2])
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


def _display_size(height: int, width: int) -> tuple[int, int]:
    """Size at which an image is shown: thumbnails enlarged by a whole number, large images made smaller."""
    short, long = min(height, width), max(height, width)
    if short < _SMALLEST_SIDE and long * 2 <= _LARGEST_SIDE:
        factor = float(min(-(-_SMALLEST_SIDE // short), _LARGEST_SIDE // long))
    else:
        factor = min(1.0, _LARGEST_SIDE / long)
    return max(1, round(height * factor)), max(1, round(width * factor))


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
    return image, outline(shaded, truth, colour=_TRUTH, width=2), heat_map, overlay
