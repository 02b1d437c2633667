"""Labels, drawn with the font inside Pillow: nothing to install, nothing to find on the machine."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from PIL import ImageDraw, ImageFont

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"
Colour: TypeAlias = tuple[int, int, int]

INK: Colour = (30, 30, 30)
FAINT: Colour = (110, 110, 110)
GOOD: Colour = (0, 110, 60)
BAD: Colour = (190, 20, 30)


@lru_cache(maxsize=32)
def font(size: int) -> Font:
    """Pillow's font at a size in pixels (its one fixed bitmap font where Pillow has no FreeType)."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):  # Pillow before 10.1, or built without FreeType
        return ImageFont.load_default()


def width_of(text: str, size: int) -> float:
    """Width of a line of text in pixels."""
    return font(size).getlength(text)


def shorten(text: str, size: int, room: float) -> str:
    """`text`, its middle replaced by an ellipsis where it is wider than `room` pixels."""
    if width_of(text, size) <= room:
        return text
    for keep in range(len(text) - 1, 1, -1):
        head = keep // 2
        candidate = text[:head] + "..." + text[len(text) - (keep - head) :]
        if width_of(candidate, size) <= room:
            return candidate
    return text[:1]


def draw_text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size: int,
    colour: Colour = INK,
    centre: bool = False,
    room: float | None = None,
) -> None:
    """One line of text, its top at `at`; `centre` takes the x of `at` as the middle; shortened to `room`."""
    if room is not None:
        text = shorten(text, size, room)
    x, y = at
    if centre:
        x -= width_of(text, size) / 2
    # Characters that the bitmap font of an old Pillow lacks must not end the program.
    face = font(size)
    if not isinstance(face, ImageFont.FreeTypeFont):
        text = text.encode("latin-1", "replace").decode("latin-1")
    draw.text((x, y), text, fill=colour, font=face)
