"""Parts of images around a patch, and images as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...array_types import UInt8Array
from ...predict.explanation import Box
from ..pictures import font, inferno
from .html import Html

CROP_SIDE: Final = 168
"""Pixels of a crop's longer side on the page."""
SHOWN_SIDE: Final = 480
"""Pixels of a whole image's longer side on the page."""
_SMALLEST_SIDE: Final = 240
_CONTEXT: Final = 7.0  # sides of the patch that a crop is wide
_LEAST_CROP: Final = 24
_INSIDE, _AROUND = (0, 255, 255), (0, 0, 0)


def jpeg_uri(image: UInt8Array, quality: int = 85) -> Html:
    """An image, (H, W, 3), as the URI of a JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="JPEG", quality=quality)
    return file_uri(out.getvalue())


def file_uri(data: bytes, kind: str = "jpeg") -> Html:
    """An image file as a URI."""
    return Html(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def sized(image: UInt8Array) -> UInt8Array:
    """The image with a longer side of at most `SHOWN_SIDE` pixels; small ones are enlarged by a whole number."""
    height, width = image.shape[:2]
    long = max(height, width)
    factor = SHOWN_SIDE / long if long > SHOWN_SIDE else float(max(1, _SMALLEST_SIDE // long))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return image if factor == 1.0 else np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def crop(image: UInt8Array, box: Box) -> UInt8Array:
    """The surroundings of a box, enlarged or shrunk to `CROP_SIDE`, with the box outlined."""
    height, width = image.shape[:2]
    wanted = max(_LEAST_CROP, round(_CONTEXT * max(box.bottom - box.top, box.right - box.left)))
    high, wide = min(wanted, height), min(wanted, width)
    top = min(max((box.top + box.bottom - high) // 2, 0), height - high)
    left = min(max((box.left + box.right - wide) // 2, 0), width - wide)
    part = image[top : top + high, left : left + wide]
    return outlined(part, (box.top - top, box.left - left, box.bottom - top, box.right - left), CROP_SIDE)


def outlined(image: UInt8Array, box: tuple[float, float, float, float], side: int) -> UInt8Array:
    """The image at a longer side of ``side`` pixels, with a box, in pixels of the image, outlined."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(np.ascontiguousarray(image)).resize(size, method)
    draw_box(ImageDraw.Draw(picture), tuple(edge * factor for edge in box), size)
    return np.array(picture)


def draw_box(
    draw: ImageDraw.ImageDraw, box: tuple[float, ...], size: tuple[int, int], number: int | None = None
) -> None:
    """A box of two colours, seen on any ground, with a number at its corner; ``size``: (width, height)."""
    top, left, bottom, right = box
    corners = (
        max(left - 1, 1),
        max(top - 1, 1),
        min(max(right, left + 2), size[0] - 2),
        min(max(bottom, top + 2), size[1] - 2),
    )
    corners = (min(corners[0], corners[2]), min(corners[1], corners[3]), corners[2], corners[3])
    around = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
    draw.rectangle(around, outline=_AROUND, width=1)
    draw.rectangle(corners, outline=_INSIDE, width=2)
    if number is not None:
        text, face = str(number), font(16)
        wide = face.getlength(text) + 8
        x = min(max(corners[0], 0), size[0] - wide)
        y = corners[1] - 21 if corners[1] >= 21 else min(corners[3] + 2, size[1] - 20)
        draw.rectangle((x, y, x + wide, y + 19), fill=_AROUND)
        draw.text((x + 4, y), text, fill=_INSIDE, font=face)


def numbered(image: UInt8Array, boxes: list[Box]) -> UInt8Array:
    """The image as `sized`, with boxes that are numbered from 1."""
    height = image.shape[0]
    picture = Image.fromarray(sized(image))
    factor = picture.height / height
    draw = ImageDraw.Draw(picture)
    for number, box in reversed(list(enumerate(boxes, start=1))):  # the worst on top
        draw_box(draw, tuple(edge * factor for edge in box), picture.size, number)
    return np.array(picture)


def grid_uri(values: npt.NDArray[np.floating], side: int = 224) -> Html:
    """A grid of values from 0 to 1 as coloured cells, as the URI of a PNG of about ``side`` pixels."""
    cell = max(1, side // max(values.shape))
    picture = Image.fromarray(np.repeat(np.repeat(inferno(values), cell, axis=0), cell, axis=1))
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return file_uri(out.getvalue(), "png")
