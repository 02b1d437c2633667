"""Anomaly maps as colours, on one scale: 0 to twice the threshold, so that the threshold is its middle.

The maps of a model can then be compared between images and between runs. A scale fitted to each image would show
the noise of a good part as brightly as a crack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ...array_types import Array, BoolArray, FloatArray, UInt8Array
from .text import BAD, FAINT, GOOD, Colour, draw_text

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


@dataclass(frozen=True, eq=False)
class Inspected:
    """One inspected image.

    Attributes:
        name: label.
        image: (H,W,3) uint8, the input.
        anomaly_map: (H,W) float32 in the input's frame; NaN where nothing was inspected.
        score: of the image.
        threshold: of the model.
        is_anomalous: the verdict.
        truth: (H,W) bool, True on defects; None if unknown.
    """

    name: str
    image: UInt8Array
    anomaly_map: FloatArray
    score: float
    threshold: float
    is_anomalous: bool
    truth: BoolArray | None = None

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
        return (
            shown,
            outline(heat(relative), above, colour=OUTLINE, width=line),
            outline(blend(shown, relative), above, colour=OUTLINE, width=line),
        )


def inferno(values: npt.ArrayLike) -> UInt8Array:
    """Colours of values.

    Args:
        values: any shape, 0 (black) to 1 (pale yellow); clipped outside; NaN gets a neutral grey.

    Returns:
        uint8, the shape of `values` and a last axis of 3 (red, green, blue).
    """
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
    """The heat over the image: transparent where the map is low, dense from the threshold on.

    Args:
        image: (H,W,3) uint8.
        relative: (H,W) map in thresholds; where it is NaN (not inspected), the image is shown greyed.
    """
    step = np.clip((np.nan_to_num(relative) - 0.5) / 0.5, 0.0, 1.0)
    opacity = (0.75 * step * step * (3 - 2 * step))[..., None]
    mixed = image * (1 - opacity) + heat(relative) * opacity
    missing = np.isnan(relative)
    mixed[missing] = 0.35 * image[missing] + 0.65 * 128
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def outline(picture: UInt8Array, region: BoolArray, *, colour: Colour, width: int) -> UInt8Array:
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
    """A horizontal colour bar with ticks in thresholds and a mark at the threshold.

    Args:
        width: pixels.
        text_size: of the labels, pixels.
        unit: words after "anomaly in thresholds".
        remark: words at the end of the line below the bar.
    """
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
