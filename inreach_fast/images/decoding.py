"""Files and PIL images to samples: what Pillow decodes, at the full depth of the file, and what it can't.

PNG, JPEG, TIFF, BMP and GIF; WebP and JPEG 2000 where Pillow has them. Of several frames or pages the first is taken,
of a PIL image the one that it is at. Pillow has no 16-bit colour mode: 16-bit colour PNG and TIFF are decoded twice, as
long as the file is at hand. 16-bit colour JPEG 2000 has the 8 bits that Pillow keeps, and so has a 16-bit colour PNG
that was opened from memory and loaded before it is given.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ..array_types import Array, UInt8Array
from ..errors import ImageError
from .pixels import PixelRule, Samples, check_size

_OPTIONAL = {  # Pillow's feature -> format, suffixes
    "webp": ("WEBP", (".webp",)),
    "jpg_2000": ("JPEG2000", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc")),
}
_HERE = [kind for feature, kind in _OPTIONAL.items() if features.check(feature)]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", *(name for name, _ in _HERE))
"""Pillow's names of the formats that are read."""
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".gif"),
    *(suffix for _, suffixes in _HERE for suffix in suffixes),
)
"""Suffixes of image files, in any case."""
REMEDY = "replace or remove the file, or skip broken images with skip_bad (--skip-bad)"

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_PLANAR_TAG = 284
_SAMPLE_FORMAT_TAG = 339
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WORDS = {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}
_DEEP_REMEDY = "give its path, the file's bytes, or an array of uint16"


def decode_file(file: BinaryIO, name: str, rule: PixelRule, frame: int = 0) -> Samples:
    """An image of an open file, which stays open: the first frame or page, or another. Raises ImageError."""
    with _typed(name, REMEDY):
        if not file.seek(0, os.SEEK_END):
            raise ImageError(f"{name}: the file is empty; {REMEDY}")
        file.seek(0)
        try:
            with _without_pillows_limit():
                opened: Any = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            return _decode_unusual_tiff(file, name, rule, frame)
        with opened as image:
            if frame:
                image.seek(frame)
            return _decode(image, name, rule)


def decode_picture(image: Any, name: str, rule: PixelRule) -> Samples:
    """A PIL image; one that is not loaded yet is read from its file and stays unloaded. Raises ImageError."""
    with _typed(name, "give another image"):
        file = getattr(image, "fp", None)
        # A PIL image whose loading fails passes for loaded afterwards, with the rest of its pixels black.
        if file is not None and not getattr(file, "closed", False) and _is_unread(image):
            place = file.tell()
            try:
                return decode_file(file, name, rule, image.tell())
            finally:
                file.seek(place)
        return _decode(image, name, rule)


def _is_unread(image: Any) -> bool:
    """Whether a PIL image is as its file has it: not loaded, and not reduced by `draft`."""
    if image.format in ("JPEG", "MPO") and image.decoderconfig:
        return False
    return image.format in (*FORMATS, "MPO") and bool(image.tile or image.format == "WEBP")


@contextmanager
def _typed(name: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise almost any error on damaged files
        raise ImageError(f"{name}: truncated or damaged ({error or type(error).__name__}); {remedy}") from error


_limit_lock = threading.Lock()
_limit_lifted = 0
_pillows_limit: int | None = None


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lets Pillow open any number of pixels, since `PixelRule.max_pixels` is checked in its place.

    Pillow has one limit for the process. It is lifted while a header is read, and while a picture beyond it is decoded.
    """
    global _limit_lifted, _pillows_limit
    with _limit_lock:
        if not _limit_lifted:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_lifted += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_lifted -= 1
            if not _limit_lifted:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


def _decode(image: Any, name: str, rule: PixelRule) -> Samples:
    width, height = image.size
    check_size(height, width, name, rule)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        with _without_pillows_limit():
            return _samples(image, name, rule)
    return _samples(image, name, rule)


def _samples(image: Any, name: str, rule: PixelRule) -> Samples:
    loaded = not getattr(image, "tile", None)
    if _tiff_tag(image, _PLANAR_TAG) == 2 and _tiff_bits(image) > 8:  # Pillow decodes these planes wrongly
        if loaded:
            raise ImageError(f"{name}: 16-bit colour planes, which Pillow decodes wrongly; {_DEEP_REMEDY}")
        return _decode_unusual_tiff(image.fp, name, rule, page=image.tell())
    deep = None if loaded else _decode_16_bit_colour(image)
    if deep is not None:
        return deep
    if loaded and _was_16_bit_colour(image):
        raise ImageError(f"{name}: a 16-bit colour image of which Pillow has kept 8 bits; {_DEEP_REMEDY}")
    image.load()
    kind = ""
    if image.mode == "F":
        values, bits = np.asarray(image), None
    elif image.mode == "I" and image.format != "PNG":
        values, bits, kind = np.asarray(image), None, _tiff_type(image)
    elif image.mode.startswith("I"):  # 16-bit grey; older Pillow opens such a PNG as "I"
        values, bits = _keyed(image, np.asarray(image).astype(np.uint16)[:, :, None]), _tiff_bits(image)
        if image.format == "TIFF" and _tiff_tag(image, _PHOTOMETRIC_TAG) == 0:
            values = ((1 << bits) - 1 - values).astype(np.uint16)  # "white is zero", which Pillow ignores
    else:
        values, bits = _converted(image, name), 8
        if (_tiff_tag(image, _SAMPLE_FORMAT_TAG) or (1,))[0] == 2:  # which Pillow takes for unsigned
            values = values.view(np.int8)
    if values.ndim == 2:
        values = values[:, :, None]
    return Samples(values, bits, _orientation(image), kind)


def _converted(image: Any, name: str) -> Array:
    """An image of 8-bit samples as (H, W, C)."""
    mode = image.mode
    if mode == "La":  # premultiplied
        image, mode = image.convert("LA"), "LA"
    keyed = mode in ("1", "L", "P", "RGB") and "transparency" in image.info
    if mode in ("1", "L", "LA", "RGB", "RGBA") and not keyed:
        return np.asarray(image)
    try:
        return np.asarray(image.convert("RGBA" if keyed or mode in ("PA", "RGBa") else "RGB"))
    except ValueError as error:
        raise ImageError(f"{name}: Pillow cannot convert the mode {mode} ({error}); convert it to RGB") from error


def _keyed(image: Any, values: Array) -> Array:
    """16-bit samples, with the one colour that a PNG declares transparent in black."""
    key = image.info.get("transparency")
    if key is None or image.format != "PNG":
        return values
    return np.where((values == np.asarray(key)).all(axis=2, keepdims=True), 0, values).astype(np.uint16)


def _decode_16_bit_colour(image: Any) -> Samples | None:
    """All 16 bits of a colour image that is not loaded yet, or None if it has no such samples.

    Pillow has no 16-bit colour mode and keeps only the more significant byte of each sample. Decoding the file again
    with the byte order swapped yields the other byte.
    """
    args = image.tile[0][3]
    rawmode = args[0] if isinstance(args, tuple) else args
    if not isinstance(rawmode, str) or ";16" not in rawmode or rawmode.startswith("I"):
        return None
    if rawmode == "LA;16B":  # four bytes a pixel, which is what RGBA reads
        both, orientation = _decode_as(image, "RGBA", "RGBA")
        return Samples(both.view(">u2").astype(np.uint16), 16, orientation)
    mode, order = rawmode.split(";16")
    if mode not in ("RGB", "RGBA") or order not in ("B", "L", "N"):
        return None
    big_endian = order == "B" or (order == "N" and sys.byteorder == "big")
    swapped = "L" if big_endian else "B"
    low, orientation = _decode_as(image, mode, f"{mode};16{swapped}")
    high, _ = _decode_as(image, mode, rawmode)
    values = np.stack([high, low], axis=3).view(">u2")[..., 0].astype(np.uint16)
    return Samples(_keyed(image, values), 16, orientation)


def _decode_as(image: Any, mode: str, rawmode: str) -> tuple[UInt8Array, int]:
    """Decode the whole file again with another unpacker: samples, and the orientation that is left to apply."""
    place = image.fp.tell()
    again: Any
    try:
        with Image.open(image.fp, formats=FORMATS) as again:
            if image.tell():
                again.seek(image.tell())
            again.tile = [_with_rawmode(tile, rawmode) for tile in again.tile]
            again._mode = mode
            return np.array(again), _orientation(again)
    finally:
        image.fp.seek(place)


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    codec, extents, offset, args = tile
    new_args = (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode
    return tile._replace(args=new_args) if hasattr(tile, "_replace") else (codec, extents, offset, new_args)


def _was_16_bit_colour(image: Any) -> bool:
    """Whether a loaded image's file has 16-bit colour, as far as Pillow still knows it."""
    if image.mode not in ("LA", "RGB", "RGBA"):
        return False
    if getattr(image, "format", None) == "TIFF":
        return _tiff_tag(image, _BITS_PER_SAMPLE_TAG) is not None and _tiff_bits(image) > 8
    path = getattr(image, "filename", "")
    if getattr(image, "format", None) != "PNG" or not path or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        header = file.read(26)
    return header[12:16] == b"IHDR" and header[24] == 16


def _tiff_tag(image: Any, tag: int) -> Any:
    return getattr(image, "tag_v2", {}).get(tag)


def _tiff_bits(image: Any) -> int:
    bits = _tiff_tag(image, _BITS_PER_SAMPLE_TAG)
    return int(bits[0]) if bits else 16


def _tiff_type(image: Any) -> str:
    """The type of a TIFF's integers, for errors: Pillow widens them all to int32."""
    if _tiff_tag(image, _BITS_PER_SAMPLE_TAG) is None:
        return "32-bit (int32)"
    signed = (_tiff_tag(image, _SAMPLE_FORMAT_TAG) or (1,))[0] == 2
    return f"{'int' if signed else 'uint'}{_tiff_bits(image)}"


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # the pixels may be intact when the EXIF block is not
        return 1


def _decode_unusual_tiff(file: BinaryIO, name: str, rule: PixelRule, page: int = 0) -> Samples:
    """TIFF layouts that Pillow cannot read (planar 16-bit colour, 16-bit grey with alpha, float64), by tifffile."""
    file.seek(0)
    if file.read(4) not in _TIFF_MAGIC:
        known = ", ".join(_WORDS.get(kind, kind) for kind in FORMATS)
        raise ImageError(f"{name}: not a PNG or other image that can be read ({known}); {REMEDY}")
    import tifffile

    log = logging.getLogger("tifffile")
    if not log.handlers:  # what it says of damage is in the error; Python would print it besides
        log.addHandler(logging.NullHandler())
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        found: Any = tiff.pages[page]
        check_size(int(found.imagelength), int(found.imagewidth), name, rule)
        values = found.asarray()
        bits = int(found.bitspersample)
        if values.ndim == 3 and int(found.planarconfig) == 2:
            values = np.moveaxis(values, 0, -1)
        orientation = int(found.tags[_ORIENTATION_TAG].value) if _ORIENTATION_TAG in found.tags else 1
        if int(found.photometric) == 0 and values.ndim == 2 and values.dtype.kind == "u":  # "white is zero"
            values = ((1 << bits) - 1 - values).astype(values.dtype)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4):
        raise ImageError(
            f"{name}: a TIFF of shape {values.shape} and dtype {values.dtype} has no defined conversion; convert the "
            "file to 8 or 16 bits, grey or RGB"
        )
    return Samples(values, bits if values.dtype.kind == "u" else None, orientation)
