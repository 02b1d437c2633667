"""From samples to pixels: the one conversion in which every image ends, wherever it comes from.

A path, the bytes of a file, a file object, a PIL image, an array, a tensor or an item of a Dataset all become uint8
RGB, (H, W, 3), by these rules:

* uint8 is kept, and bool becomes 0 and 255.
* Samples that are stored in 16 bits become ``round(v * 255 / (2**bits - 1))``. Bits are those that the file's format
  states (12-bit TIFF), and else 16: 65535 becomes 255, and equal greys stay equal. Cameras of 10, 12 or 14 bits often
  write 16-bit files of which they use the lower bits. Nothing in such a file says so, and guessing from the values
  would give each image another brightness: `PixelRule.bit_depth` says it for all. A `PixelRangeWarning` is given where
  less than a quarter of the 16-bit range is used.
* Other integers (int16, int32, ...) have no defined range and are refused, unless `PixelRule.bit_depth` gives it.
* Floating-point samples are in 0..1 and become ``round(v * 255)``; where that is outside 0..255, and NaN, is refused.
* Grey becomes three equal channels; palettes are looked up; Pillow converts CMYK, YCbCr and others to RGB.
* Alpha (LA, PA, RGBA, a palette's or a transparent colour) is composited over black. Colours under a transparent pixel
  are invisible to people who judge the image and often differ from file to file; dropping alpha would show them.
* The orientation in EXIF or TIFF's own tag is applied, so that the array is the picture that a viewer shows.
* An image of more than `PixelRule.max_pixels` pixels is refused, before it is decoded.

Arrays and tensors are (H, W), or (H, W, C) with 1 to 4 channels (grey, grey and alpha, RGB, RGBA), or (C, H, W) with 1,
3 or 4. Where both readings are possible the shape is refused.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ..array_types import Array, UInt8Array
from ..errors import ImageError, ImageTooLargeError, PixelRangeWarning

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is read by default: a gigabyte while it is converted."""


@dataclass(frozen=True)
class PixelRule:
    """The choices in the conversion; see the module. `InReaCh` takes them from its parameters of the same names.

    Attributes:
        bit_depth: bits in use of samples that are stored in more than 8, 8 to 16; "auto": those that the format states.
        max_pixels: pixels of the largest image that is read.
    """

    bit_depth: int | str = "auto"
    max_pixels: int = MAX_PIXELS


DEFAULT_RULE = PixelRule()


@dataclass(frozen=True, eq=False)
class Samples:
    """The numbers of an image before conversion.

    Attributes:
        values: (H, W, C) of any dtype; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        bits: of a sample, where the format states them; None: those of the dtype.
        orientation: EXIF's, 1 to 8, not yet applied.
        kind: name of the sample's type in the file, for errors; empty: that of the dtype.
    """

    values: Array
    bits: int | None = None
    orientation: int = 1
    kind: str = ""


def check_size(height: int, width: int, name: str, rule: PixelRule) -> None:
    """Raises ImageError for an image without pixels, ImageTooLargeError for one with too many."""
    if not height or not width:
        raise ImageError(f"{name}: no pixels ({height}x{width}); give an image with some")
    if height * width > rule.max_pixels:
        raise ImageTooLargeError(
            f"{name}: {height}x{width} is {height * width:,} pixels, more than max_pixels={rule.max_pixels:,}; raise "
            "max_pixels (--max-pixels) if the image is meant to be so large, or give a smaller one"
        )


def to_pixels(samples: Samples, name: str, rule: PixelRule) -> UInt8Array:
    """The samples as uint8 RGB, (H, W, 3), C-contiguous; see the module. Raises ImageError."""
    values = samples.values
    check_size(values.shape[0], values.shape[1], name, rule)
    kind = values.dtype.kind
    if kind == "b":
        values, bits = values.astype(np.uint8) * np.uint8(255), 8
    elif kind == "f":
        values, bits = _from_floats(values, name), 8
    elif values.dtype == np.uint8:
        bits = 8
    elif kind in "iu":
        values, bits = _from_integers(samples, name, rule)
    else:
        raise ImageError(f"{name}: dtype {values.dtype} is not an image's; give uint8, uint16, or floats in 0..1")
    return np.ascontiguousarray(upright(_scaled(values, bits), samples.orientation))


def _from_floats(values: Array, name: str) -> UInt8Array:
    low, high = float(values.min()), float(values.max())
    if not (low * 255 > -0.5 and high * 255 < 255.5):  # NaN fails too
        raise ImageError(
            f"{name}: {values.dtype} values from {low:g} to {high:g} have no defined range; give floats in 0..1 (undo "
            "a normalisation, divide by the greatest possible value), or uint8 or uint16"
        )
    # Alpha is composited after rounding, so that floats made of 8-bit samples give the pixels of these samples.
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _from_integers(samples: Samples, name: str, rule: PixelRule) -> tuple[Array, int]:
    values, chosen = samples.values, rule.bit_depth
    kind = samples.kind or str(values.dtype.newbyteorder("="))
    automatic = chosen == "auto"
    if automatic and (values.dtype.kind != "u" or values.dtype.itemsize != 2):
        raise ImageError(
            f"{name}: {kind} samples have no defined range; convert them to 8 or 16 bits (uint8, uint16), or give "
            "bit_depth (--bit-depth), the bits that are in use"
        )
    bits = (samples.bits or 16) if automatic else int(chosen)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >> bits:
        raise ImageError(
            f"{name}: {kind} samples from {low} to {high} do not fit {bits} bits (0..{(1 << bits) - 1}); give the "
            "bit_depth (--bit-depth) of the images, or convert them to uint8 or uint16"
        )
    if automatic and bits == 16 and 0 < high < 1 << 14:
        used = next(depth for depth in (8, 10, 12, 14) if not high >> depth)
        # Without the image's name: a warning is then shown once, not for each image.
        warnings.warn(
            f"bit_depth: 16-bit samples use only {used} of their bits, so that few grey levels are left in 8 bits; if "
            f"that is the camera's depth, give bit_depth={used} (--bit-depth {used}) to keep its grey levels",
            PixelRangeWarning,
            stacklevel=2,
        )
    return values.astype(np.uint16), bits


def _table(bits: int) -> UInt8Array:
    """The grey level of each value."""
    top = (1 << bits) - 1
    levels = (np.arange(top + 1, dtype=np.uint64) * 255 + top // 2) // top
    return np.asarray(levels.astype(np.uint8))


def _scaled(samples: Array, bits: int) -> UInt8Array:
    """(H, W, 1..4) samples of `bits` bits to (H, W, 3) uint8; alpha composited over black at full depth."""
    if samples.shape[2] in (2, 4):
        top = (1 << bits) - 1
        colour, alpha = samples[:, :, :-1].astype(np.uint64), samples[:, :, -1:].astype(np.uint64)
        out = ((colour * alpha * 255 + top * top // 2) // (top * top)).astype(np.uint8)
    else:
        out = samples if bits == 8 and samples.dtype == np.uint8 else _table(bits)[samples]
    return np.repeat(out, 3, axis=2) if out.shape[2] == 1 else out


def upright(array: Array, orientation: int) -> Array:
    """Undo EXIF's orientation 2 to 8; anything else leaves the array alone."""
    if orientation not in range(2, 9):
        return array
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    return array[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def channels_last(array: Array, name: str) -> Array:
    """An array of one image as (H, W, C); see the module. Raises ImageError."""
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        return array[:, :, None]
    last, first = is_channels(array.shape, last=True), is_channels(array.shape, last=False)
    if array.ndim == 3 and last and first:
        raise ImageError(
            f"{name}: shape {array.shape} can be channels first or last; give (H, W, 3) with H above 4, or a "
            "larger image"
        )
    if last:
        return array
    if first:
        return np.asarray(array.transpose(1, 2, 0))
    what = f"a batch of {array.shape[0]} images" if array.ndim == 4 else "not an image"
    raise ImageError(
        f"{name}: {what} (shape {array.shape}); give (H, W), (H, W, C) with 1 to 4 channels, or (C, H, W) with 1, 3 "
        "or 4"
    )


def is_channels(shape: tuple[int, ...], *, last: bool) -> bool:
    """Whether the last, or the first, of three dimensions can be that of the channels."""
    return len(shape) == 3 and (shape[2] in (1, 2, 3, 4) if last else shape[0] in (1, 3, 4))
