"""One image in any form as uint8 RGB: a path, bytes of a file, a file object, a PIL image, an array, a tensor, an item.

Each form becomes `Samples` here and pixels in `pixels.to_pixels`, so that the same picture gives the same pixels by
every door.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..array_types import Array, UInt8Array
from ..errors import ImageError
from ..kernels.gpu.devices.interop import library_of, lives_on_gpu
from .decoding import IMAGE_SUFFIXES, REMEDY, decode_file, decode_picture
from .folders import is_special, list_images, natural_key
from .pixels import DEFAULT_RULE, PixelRule, Samples, channels_last, is_channels, to_pixels

__all__ = [
    "IMAGE_KEY",
    "IMAGE_SUFFIXES",
    "as_image",
    "image_part",
    "is_array",
    "is_item",
    "is_single_image",
    "list_images",
    "natural_key",
    "read_image",
    "read_samples",
    "to_rgb8",
]

IMAGE_KEY = "image"
"""The key of the image in an item that is a dictionary."""
_FORMS = (
    "a path, the bytes of an image file, a file opened in binary mode, a PIL image, an array, a tensor, or a tuple "
    f"(image, ...) or dictionary with {IMAGE_KEY!r} of these"
)


def read_image(path: str | os.PathLike[str], rule: PixelRule = DEFAULT_RULE) -> UInt8Array:
    """Read an image file as a uint8 array (H, W, 3), RGB, C-contiguous, writable.

    `pixels` describes the conversion of bit depth, grey, palette, alpha and orientation.

    Raises:
        ImageError: the file is missing, unreadable, truncated, not an image, or of a kind without a defined
            conversion to 8 bits; the message names the file.
    """
    name = os.fspath(path)
    return _writable(to_pixels(read_samples(path, rule), str(name), rule))


def read_samples(path: str | os.PathLike[str], rule: PixelRule = DEFAULT_RULE) -> Samples:
    """The samples of an image file, not converted to 8 bits. Raises ImageError."""
    name = str(os.fspath(path))
    if is_special(path):
        raise ImageError(f"{name}: a FIFO, socket or device, which is not opened; give a file")
    try:
        with open(path, "rb") as file:
            return decode_file(file, name, rule)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{name}: cannot be opened ({error}); {REMEDY}") from error


def to_rgb8(array: Array, name: str = "image", rule: PixelRule = DEFAULT_RULE) -> UInt8Array:
    """An array of one image as (H, W, 3) uint8, C-contiguous, by the rules of `pixels`; itself if it already is that.

    ImageError for a shape, dtype or values that are not an image's.
    """
    return to_pixels(Samples(channels_last(np.asarray(array), name)), name, rule)


def as_image(item: Any, name: str = "image", rule: PixelRule = DEFAULT_RULE) -> UInt8Array:
    """One image in any form, as uint8 (H, W, 3), C-contiguous.

    ImageError: unreadable, or of a shape, dtype or range that is not an image's; the message names it.
    """
    item = image_part(item, name)
    if isinstance(item, (str, os.PathLike)):
        return read_image(item, rule)
    try:
        item = plain(item)
        if _is_picture(item):
            return _writable(to_pixels(decode_picture(item, name, rule), name, rule))
        file = _as_file(item, name)
        if file is not None:
            return _writable(to_pixels(decode_file(file, name, rule), name, rule))
        if is_array(item) or hasattr(item, "__array__") or isinstance(item, memoryview):
            return to_rgb8(_as_array(item), name, rule)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever an object does that only looks like an image
        raise ImageError(f"{name}: not an image ({error or type(error).__name__}); give {_FORMS}") from error
    raise ImageError(f"{name}: expected an image, got {type(item).__name__}; give {_FORMS}")


def image_part(item: Any, name: str = "image") -> Any:
    """The image in an item of a Dataset: a dictionary's "image", the first of a tuple or list. Raises ImageError."""
    for _ in range(8):
        if isinstance(item, Mapping):
            if IMAGE_KEY not in item:
                keys = ", ".join(map(repr, list(item)[:5])) or "none"
                raise ImageError(
                    f"{name}: a dictionary without the key {IMAGE_KEY!r} (its keys: {keys}); give one with it"
                )
            item = item[IMAGE_KEY]
        elif isinstance(item, (tuple, list)):
            if not item:
                raise ImageError(f"{name}: an empty {type(item).__name__}; give (image, ...)")
            if isinstance(item, list) and len(item) > 1 and all(map(_is_surely_image, item[:2])):
                raise ImageError(
                    f"{name}: a list of {len(item)} images where one is expected; give them one by one, or tuples "
                    "(image, ...) if only the first is the image"
                )
            item = item[0]
        else:
            return item
    raise ImageError(f"{name}: tuples, lists or dictionaries within each other; give {_FORMS}")


def is_array(item: Any) -> bool:
    """Whether it is a NumPy array or a torch tensor."""
    is_tensor = hasattr(item, "detach") and hasattr(item, "ndim") and not getattr(item, "is_nested", False)
    return is_tensor or isinstance(item, np.ndarray)


def plain(item: Any) -> Any:
    """Another library's array with ``__dlpack__`` as a NumPy array (copied from a GPU); anything else as it is."""
    if isinstance(item, np.ndarray) or hasattr(item, "detach") or not hasattr(item, "__dlpack__"):
        return item
    if lives_on_gpu(item):
        library = library_of(item)
        return library.to_host(library.adopt(item))
    return np.from_dlpack(item)


def is_item(value: Any) -> bool:
    """Whether it looks like an image, or like an item of a Dataset with one; text does not, which may be a label."""
    return isinstance(value, (tuple, list, Mapping, os.PathLike)) or _is_image_in_memory(value)


def is_single_image(images: Any) -> bool:
    """Whether ``images`` is one image rather than a collection of images (`open_images`).

    Arrays and tensors: (H, W), (H, W, C) with 1 to 4 channels, (1, H, W) and (3, H, W).
    """
    images = plain(images)
    if isinstance(images, (str, os.PathLike)):
        return not os.path.isdir(images)
    if isinstance(images, Mapping):
        part = images.get(IMAGE_KEY)
        return part is None or isinstance(part, Mapping) or is_single_image(part)
    if is_array(images):
        shape = tuple(images.shape)
        return len(shape) == 2 or is_channels(shape, last=True) or (is_channels(shape, last=False) and shape[0] != 4)
    is_file = hasattr(images, "read") and (hasattr(images, "seek") or not hasattr(images, "__getitem__"))
    return is_file or _is_picture(images) or isinstance(images, (bytes, bytearray, memoryview))


def _is_picture(item: Any) -> bool:
    return hasattr(item, "convert") and hasattr(item, "getbands")


def _is_image_in_memory(item: Any) -> bool:
    return _is_picture(item) or (is_array(item) and item.ndim >= 2)


def _is_surely_image(item: Any) -> bool:
    is_path = isinstance(item, os.PathLike) or (isinstance(item, str) and item.lower().endswith(IMAGE_SUFFIXES))
    return is_path or _is_image_in_memory(item)


def _as_file(item: Any, name: str) -> Any:
    """The encoded image as an open file; None if the item holds none."""
    if isinstance(item, memoryview) and item.ndim > 1:
        return None  # of samples
    if isinstance(item, (bytes, bytearray, memoryview)):
        return io.BytesIO(item)
    if not hasattr(item, "read"):
        return None
    if isinstance(item, io.TextIOBase):
        raise ImageError(f"{name}: a file opened as text; open it in binary mode, 'rb'")
    if getattr(item, "seekable", lambda: False)():
        return item
    return io.BytesIO(item.read())


def _as_array(item: Any) -> Array:
    if not hasattr(item, "detach"):
        if isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item):
            raise ValueError("a masked array with masked pixels; fill them")
        return np.asarray(item)
    tensor = item.detach()
    if getattr(tensor, "is_sparse", False):
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()  # bfloat16 has no counterpart in NumPy; no bit is lost
    array: Array = tensor.cpu().resolve_conj().resolve_neg().numpy()
    return array


def _writable(pixels: UInt8Array) -> UInt8Array:
    return np.require(pixels, requirements=["C", "W", "O"])
