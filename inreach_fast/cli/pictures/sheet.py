"""Many inspected images on one sheet: input, truth, map and verdict in rows, one colour scale for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...array_types import BoolArray, UInt8Array
from .heat import OUTLINE, blend, colour_bar, heat, in_thresholds, outline, resize_image, resize_map, resize_mask
from .text import BAD, FAINT, GOOD, INK, draw_text

TRUTH = (255, 60, 60)
_CELL = 200
_GAP = 8
_LABEL = 176
_COLUMNS = ("input", "truth", "anomaly map", "overlay")


@dataclass(frozen=True)
class SheetRow:
    """One inspected image whose truth is known.

    Attributes:
        image: (H,W,3) uint8.
        truth: (H,W) bool, True on defects.
        anomaly_map: (H,W) in the image's frame.
        score: of the image.
        threshold: of the model that gave the score.
        is_anomalous: the verdict.
        name: short label.
    """

    image: UInt8Array
    truth: BoolArray
    anomaly_map: npt.NDArray[np.floating]
    score: float
    threshold: float
    is_anomalous: bool
    name: str


def inspection_sheet(rows: Sequence[SheetRow], *, title: str, subtitle: str) -> UInt8Array:
    """The sheet as (h,w,3) uint8; scores are in thresholds, so that rows of several models compare."""
    size = 15
    head = 78
    width = 2 * _GAP + _LABEL + len(_COLUMNS) * (_CELL + _GAP)
    bar = colour_bar(len(_COLUMNS) // 2 * (_CELL + _GAP) + _CELL, text_size=14)
    sheet = Image.new("RGB", (width, head + len(rows) * (_CELL + _GAP) + bar.height + 2 * _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw_text(draw, (_GAP, 6), title, size=20, room=width - 2 * _GAP)
    draw_text(draw, (_GAP, 32), subtitle, size=size, colour=FAINT, room=width - 2 * _GAP)
    for column, words in enumerate(_COLUMNS):
        draw_text(draw, (_column(column) + _CELL / 2, head - size - 7), words, size=size, centre=True)
    for number, row in enumerate(rows):
        top = head + number * (_CELL + _GAP)
        _row_label(draw, row, top)
        for column, cell in enumerate(_cells(row)):
            sheet.paste(Image.fromarray(cell), (_column(column), top))
    sheet.paste(bar, (_column(1) - _CELL // 2, sheet.height - bar.height - _GAP))
    return np.asarray(sheet, dtype=np.uint8)


def _column(number: int) -> int:
    return 2 * _GAP + _LABEL + number * (_CELL + _GAP)


def _row_label(draw: ImageDraw.ImageDraw, row: SheetRow, top: int) -> None:
    relative = row.score / row.threshold if row.threshold > 0 else row.score
    verdict, colour = ("ANOMALOUS", BAD) if row.is_anomalous else ("nominal", GOOD)
    defective = bool(row.truth.any())
    right = defective == row.is_anomalous
    outcome = "right" if right else ("missed defect" if defective else "false alarm")
    left, room = 2 * _GAP, _LABEL - 2 * _GAP
    draw_text(draw, (left, top + 26), row.name, size=16, room=room)
    draw_text(
        draw,
        (left, top + 50),
        f"truth: {'defective' if defective else 'good'}",
        size=15,
        colour=INK,
        room=room,
    )
    draw_text(draw, (left, top + 82), verdict, size=20, colour=colour, room=room)
    draw_text(draw, (left, top + 110), f"{relative:.2f} x threshold", size=15, colour=INK, room=room)
    draw_text(draw, (left, top + 134), outcome, size=15, colour=FAINT if right else BAD, room=room)


def _cells(row: SheetRow) -> tuple[UInt8Array, UInt8Array, UInt8Array, UInt8Array]:
    """The four pictures of a row, each fitted into a square cell without changing its proportions."""
    height, width = row.image.shape[:2]
    factor = _CELL / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    image = resize_image(row.image, size)
    truth = resize_mask(row.truth, size)
    relative = resize_map(in_thresholds(row.anomaly_map, row.threshold), size)
    with np.errstate(invalid="ignore"):
        over = relative > 1.0
    shaded = image.copy()
    shaded[truth] = np.rint(0.55 * image[truth] + 0.45 * np.array(TRUTH)).astype(np.uint8)
    cells = (
        image,
        outline(shaded, truth, colour=TRUTH, width=2),
        outline(heat(relative), over, colour=OUTLINE, width=2),
        outline(blend(image, relative), over, colour=OUTLINE, width=2),
    )
    return tuple(_centred(cell) for cell in cells)  # type: ignore[return-value]


def _centred(cell: UInt8Array) -> UInt8Array:
    square = np.full((_CELL, _CELL, 3), 235, dtype=np.uint8)
    top, left = (_CELL - cell.shape[0]) // 2, (_CELL - cell.shape[1]) // 2
    square[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return square
