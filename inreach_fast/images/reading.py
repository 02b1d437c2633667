"""One image, from a file or from memory, as an 8-bit RGB array.

* Files: PNG, JPEG, TIFF and BMP; the first frame or page.
* Samples of 8 bits are kept. 16 bits become ``round(v / 257)``, so that 65535 becomes 255 and equal greys stay equal
  (other depths up to 16 bits, such as 12-bit TIFF: ``round(v * 255 / (2**bits - 1))``). 32-bit and floating-point
  samples have no defined range and are refused with an `ImageError`.
* Grey becomes three equal channels; palettes are looked up; Pillow converts CMYK to RGB.
* Alpha is composited over black. Colours under a transparent pixel are invisible to people who judge the image and
  often differ from file to file; dropping the alpha channel would make them visible.
* The orientation in EXIF or TIFF's own tag is applied, so that the array is the picture that a viewer shows.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..array_types import Array, UInt8Array
from ..errors import DataError, EmptyFolderError, ImageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Suffixes of image files, in any case (`list_images`)."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_PLANAR_TAG = 284
_REMEDY = "replace or remove the file, or skip broken images with skip_bad (--skip-bad)"


def read_image(path: str | os.PathLike[str]) -> UInt8Array:
    """Read an image file as a uint8 array (H, W, 3), RGB, C-contiguous, writable.

    The module's docstring describes the conversion of bit depth, grey, palette, alpha and orientation.

    Raises:
        ImageError: the file is missing, unreadable, truncated, not an image, or of a kind without a defined
            conversion to 8 bits; the message names the file.
    """
    name = os.fspath(path)
    try:
        with Image.open(name, formats=_FORMATS) as image:
            samples, bits = _decode(image, name)
            orientation = _orientation(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        samples, bits, orientation = _decode_unusual_tiff(name)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels for an inspection image ({error}); {_REMEDY}") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise almost any error on damaged files
        raise ImageError(f"{name}: truncated or damaged ({error}); {_REMEDY}") from error
    return np.array(_upright(_to_rgb8(samples, bits), orientation), order="C")


def to_rgb8(array: Array, name: str = "image") -> UInt8Array:
    """An array, converted to (H, W, 3) uint8, C-contiguous, as `read_image` would; itself if it already is that.

    It is (H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4): grey, grey+alpha, RGB or RGBA, in uint8, uint16 (scaled
    by 1/257, rounded) or bool (0 and 255). Others, and those without pixels, raise ImageError.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise ImageError(f"{name}: not an image (shape {array.shape}); give (H, W), (H, W, 3) or (H, W, 4)")
    if 0 in array.shape:
        raise ImageError(f"{name}: no pixels (shape {array.shape}); give an image with some")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: dtype {array.dtype} has no defined range; convert it to uint8 or uint16 (0..65535)")
    return np.ascontiguousarray(_to_rgb8(array, 8 * array.itemsize))


def as_image(item: Any, name: str = "image") -> UInt8Array:
    """One image in any form (a path, array, PIL image, tensor, or a Dataset's item) as uint8 (H, W, 3).

    ImageError: unreadable, or of a shape, dtype or range that is not an image's; the message names it.
    """
    if isinstance(item, (tuple, list)) and len(item):
        item = item[0]  # a Dataset's (image, label)
    if isinstance(item, (str, os.PathLike)):
        return read_image(item)
    if hasattr(item, "detach"):
        item = _from_tensor(item, name)
    elif hasattr(item, "convert") and hasattr(item, "getbands"):
        item = np.asarray(item if item.mode in ("L", "LA", "RGB", "RGBA", "I;16") else item.convert("RGB"))
    if not isinstance(item, np.ndarray):
        raise ImageError(f"{name}: expected an image, got {type(item).__name__}")
    try:
        return to_rgb8(item, name)
    except ImageError:
        raise
    except (TypeError, ValueError) as error:
        raise ImageError(f"{name}: not an image ({error}); give a path, array, PIL image or tensor") from error


def _from_tensor(tensor: Any, name: str) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError(f"{name}: values outside 0..1; give a float tensor that is not normalised")
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return array


def is_single_image(images: Any) -> bool:
    """Whether ``images`` is one image rather than a collection of images (`open_images`)."""
    if isinstance(images, (str, os.PathLike)):
        return not os.path.isdir(images)
    if hasattr(images, "getbands"):
        return True
    if hasattr(images, "detach"):
        return int(images.ndim) <= 3
    if isinstance(images, np.ndarray):
        return images.ndim == 2 or (images.ndim == 3 and images.shape[2] <= 4)
    return False


def list_images(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """The image files of a folder, in natural order: ``2.png`` before ``10.png``.

    The order depends on the names alone (numbers by value, letters without case, then the plain name), not on the
    file system. Hidden files (".name") and files without one of `IMAGE_SUFFIXES` are left out. `recursive` includes
    sub-folders, but does not follow links to folders.

    Raises:
        DataError: `folder` does not exist or is not a folder. EmptyFolderError: it holds no image.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {what}; give a folder of images")
    found: list[Path] = []
    try:
        for here, folders, files in os.walk(root, onerror=_raise):
            folders[:] = [f for f in folders if recursive and not f.startswith(".")]
            found += [Path(here, f) for f in files if not f.startswith(".") and f.lower().endswith(IMAGE_SUFFIXES)]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error}); check its permissions") from error
    if not found:
        hint = "" if recursive else " (sub-folders are searched only with recursive=True, --recursive)"
        raise EmptyFolderError(f"{root}: holds no image{hint}; give a folder of {', '.join(IMAGE_SUFFIXES)} files")
    return sorted(found, key=lambda path: natural_key(path.relative_to(root).as_posix()))


def _raise(error: OSError) -> None:
    raise error  # os.walk would skip a folder that it may not read


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key of natural order; equal only for equal texts, so that sorting by it is deterministic."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p], text


# --- decoding: samples (H, W, channels), and how many bits each uses ---------------------------------------


def _decode(image: Image.Image, name: str) -> tuple[Array, int]:
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageError(f"{name}: {kind} samples have no defined range; convert the file to 8 or 16 bits")
    if _tiff_tag(image, _PLANAR_TAG) == 2 and _tiff_bits(image) > 8:
        raise UnidentifiedImageError  # Pillow opens these planes and decodes them wrongly
    deep = _decode_16_bit_colour(image)
    if deep is not None:
        return deep, 16
    if image.mode.startswith("I"):  # 16-bit grey; older Pillow opens such a PNG as "I"
        image.load()
        grey = np.asarray(image).astype(np.uint16)
        bits = _tiff_bits(image)
        if image.format == "TIFF" and _tiff_tag(image, _PHOTOMETRIC_TAG) == 0:
            grey = ((1 << bits) - 1 - grey).astype(np.uint16)  # "white is zero", which Pillow ignores
        return grey[:, :, None], bits
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)[:, :, None], 8
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB")), 8


def _decode_16_bit_colour(image: Any) -> npt.NDArray[np.uint16] | None:
    """All 16 bits of a colour file, or None if it has no such samples.

    Pillow has no 16-bit colour mode and keeps only the more significant byte of each sample. Decoding the file again
    with the byte order swapped yields the other byte.
    """
    if not image.tile:
        return None
    args = image.tile[0][3]
    rawmode = args[0] if isinstance(args, tuple) else args
    if not isinstance(rawmode, str) or ";16" not in rawmode or rawmode.startswith("I"):
        return None
    if rawmode == "LA;16B":  # four bytes a pixel, which is what RGBA reads
        return _decode_as(image, "RGBA", "RGBA").view(">u2").astype(np.uint16)
    mode, order = rawmode.split(";16")
    if mode not in ("RGB", "RGBA") or order not in ("B", "L", "N"):
        return None
    big_endian = order == "B" or (order == "N" and sys.byteorder == "big")
    swapped = "L" if big_endian else "B"
    low = _decode_as(image, mode, f"{mode};16{swapped}")
    high = _decode_as(image, mode, rawmode)
    return np.stack([high, low], axis=3).view(">u2")[..., 0].astype(np.uint16)


def _decode_as(image: Any, mode: str, rawmode: str) -> UInt8Array:
    """Decode the whole file again with another unpacker."""
    assert image.filename  # read_image opens by name
    again: Any
    with Image.open(image.filename, formats=_FORMATS) as again:
        again.tile = [_with_rawmode(tile, rawmode) for tile in again.tile]
        again._mode = mode
        return np.array(again)


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    codec, extents, offset, args = tile
    new_args = (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode
    return tile._replace(args=new_args) if hasattr(tile, "_replace") else (codec, extents, offset, new_args)


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    return getattr(image, "tag_v2", {}).get(tag)


def _tiff_bits(image: Image.Image) -> int:
    bits = _tiff_tag(image, _BITS_PER_SAMPLE_TAG)
    return int(bits[0]) if bits else 16


def _decode_unusual_tiff(name: str) -> tuple[Array, int, int]:
    """TIFF layouts that Pillow cannot read (planar 16-bit colour, 16-bit grey with alpha), by tifffile."""
    try:
        with open(name, "rb") as file:
            magic = file.read(4)
        if magic not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise ImageError(f"{name}: not a PNG, JPEG, TIFF or BMP image; {_REMEDY}")
        import tifffile

        with tifffile.TiffFile(name) as tiff:
            page: Any = tiff.pages[0]
            samples = page.asarray()
            bits = int(page.bitspersample)
            planar = samples.ndim == 3 and int(page.planarconfig) == 2
            orientation = int(page.tags[_ORIENTATION_TAG].value) if _ORIENTATION_TAG in page.tags else 1
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error}); {_REMEDY}") from error
    except Exception as error:
        raise ImageError(f"{name}: a damaged TIFF, or of an unknown kind ({error}); {_REMEDY}") from error
    if planar:
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if samples.dtype not in (np.uint8, np.uint16) or samples.ndim != 3 or samples.shape[2] not in (1, 2, 3, 4):
        raise ImageError(
            f"{name}: a TIFF of shape {samples.shape} and dtype {samples.dtype} has no defined conversion; convert "
            "the file to 8 or 16 bits, grey or RGB"
        )
    return samples, bits, orientation


# --- conversion --------------------------------------------------------------------------------------------


def _to_rgb8(samples: Array, bits: int) -> UInt8Array:
    """(H, W, 1..4) samples of `bits` bits to (H, W, 3) uint8; alpha composited over black at full depth."""
    if bits == 8 and samples.shape[2] in (1, 3):
        return samples if samples.shape[2] == 3 else np.repeat(samples, 3, axis=2)
    top = (1 << bits) - 1
    if samples.shape[2] in (2, 4):
        colour, alpha = samples[:, :, :-1].astype(np.uint64), samples[:, :, -1:].astype(np.uint64)
        numerator, denominator = colour * alpha * 255, top * top
    else:
        numerator, denominator = samples.astype(np.uint64) * 255, top
    out = ((numerator + denominator // 2) // denominator).astype(np.uint8)
    return np.repeat(out, 3, axis=2) if out.shape[2] == 1 else out


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # the pixels may be intact when the EXIF block is not
        return 1


def _upright(array: UInt8Array, orientation: int) -> UInt8Array:
    """Undo EXIF's orientation 2 to 8; anything else leaves the array alone."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    return array[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]
