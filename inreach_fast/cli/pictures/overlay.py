"""One inspected image as a picture: the verdict in words, the input, the heat over it, the colour scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...array_types import UInt8Array
from ..tables import format_number
from .heat import OUTLINE, blend, colour_bar, in_thresholds, outline, resize_image, resize_map
from .text import BAD, FAINT, GOOD, draw_text

_SMALLEST_SIDE = 256
_LARGEST_SIDE = 1600
_NARROWEST_SHEET = 520


def inspection_picture(
    image: UInt8Array,
    anomaly_map: npt.NDArray[np.floating],
    *,
    name: str,
    score: float,
    threshold: float,
    is_anomalous: bool,
    remark: str = "",
) -> UInt8Array:
    """Input and heat-map overlay side by side under the verdict.

    Args:
        image: (H,W,3) uint8, the input.
        anomaly_map: (H,W) in the input's frame; NaN where nothing was inspected.
        name: of the image, printed.
        score: of the image.
        threshold: of the model; the colour scale runs to twice this.
        is_anomalous: the verdict.
        remark: more words for the second line.

    Returns:
        (h,w,3) uint8. The input keeps its size unless that is too small to read or too large to look at.
    """
    height, width = _display_size(image.shape[0], image.shape[1])
    shown = resize_image(image, (height, width))
    relative = resize_map(in_thresholds(anomaly_map, threshold), (height, width))
    line = max(1, round(min(height, width) / 180))
    with np.errstate(invalid="ignore"):
        over = relative > 1.0
    overlay = outline(blend(shown, relative), over, colour=OUTLINE, width=line)

    size = max(14, round(min(height, width) / 22))
    gap = size // 2
    head = round(3.4 * size)
    # Tall, narrow images still need room for the words.
    inside = max(2 * width + gap, _NARROWEST_SHEET)
    left = gap + (inside - 2 * width - gap) // 2
    grey = "; grey: not inspected" if np.isnan(relative).any() else ""
    bar = colour_bar(inside, text_size=max(12, round(0.8 * size)), threshold=threshold, remark=grey)
    sheet = Image.new("RGB", (inside + 2 * gap, head + height + gap + bar.height), "white")
    draw = ImageDraw.Draw(sheet)
    room = sheet.width - 2 * gap
    verdict, colour = ("ANOMALOUS", BAD) if is_anomalous else ("nominal", GOOD)
    words = f"{verdict}: score {format_number(score)}, threshold {format_number(threshold)}"
    draw_text(draw, (gap, 0.3 * size), words, size=round(1.2 * size), colour=colour, room=room)
    draw_text(draw, (gap, 1.9 * size), f"{name}  {remark}".rstrip(), size=size, colour=FAINT, room=room)
    sheet.paste(Image.fromarray(shown), (left, head))
    sheet.paste(Image.fromarray(overlay), (left + width + gap, head))
    sheet.paste(bar, (gap, head + height + gap))
    return np.asarray(sheet, dtype=np.uint8)


def _display_size(height: int, width: int) -> tuple[int, int]:
    """Size at which an image is shown: whole-number enlargement of thumbnails, large images made smaller."""
    short, long = min(height, width), max(height, width)
    if short < _SMALLEST_SIDE and long * 2 <= _LARGEST_SIDE:
        factor = float(min(-(-_SMALLEST_SIDE // short), _LARGEST_SIDE // long))
    else:
        factor = min(1.0, _LARGEST_SIDE / long)
    return max(1, round(height * factor)), max(1, round(width * factor))
