"""Labels, drawn in the font that Pillow brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from PIL import ImageDraw, ImageFont

Colour: TypeAlias = tuple[int, int, int]

INK: Colour = (30, 30, 30)
FAINT: Colour = (110, 110, 110)
GOOD: Colour = (0, 110, 60)
BAD: Colour = (190, 20, 30)

font = lru_cache(maxsize=32)(ImageFont.load_default)
"""Pillow's font at a size in pixels."""


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
