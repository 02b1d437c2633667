"""Whatever a caller calls images, as one thing: a count, a name for each, and each as uint8 RGB."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import UInt8Array
from ..errors import DataError, EmptyFolderError, ImageError, MixedSizesError, ParameterError
from .reading import list_images, read_image, to_rgb8


class ImageSource:
    """Images by number, loaded one at a time; made by `open_images`.

    Attributes:
        names: one for each image: a path (relative to the folder, where a folder was given) or "images[3]".
    """

    def __init__(self, names: Sequence[str], load: Callable[[int], UInt8Array]) -> None:
        self.names = list(names)
        self._load = load

    def __len__(self) -> int:
        return len(self.names)

    def load(self, i: int) -> UInt8Array:
        """Image ``i``, uint8 (H, W, 3) RGB. Raises ImageError, naming it, where it cannot be had."""
        return self._load(i)


def open_images(images: Any, name: str = "images") -> ImageSource:
    """Wraps a folder, paths, arrays or a torch Dataset.

    Args:
        images: a folder or one image file (str or Path); a list of paths or of images (uint8 (H, W, 3) or
            (H, W) arrays, PIL images, torch tensors (C, H, W) of uint8 or of floats from 0 to 1); an array
            (N, H, W, 3) or (N, H, W); or a map-style Dataset whose items are images or (image, ...) tuples.

    Raises:
        EmptyFolderError: no image in it. DataError: the folder does not exist. MixedSizesError: arrays of
            several dtypes. ParameterError: none of these, or one array (H, W, 3) or tensor (C, H, W): a single image.
    """
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if path.is_file():
            return ImageSource([str(path)], lambda i: read_image(path))
        files = list_images(path)
        return ImageSource([file.relative_to(path).as_posix() for file in files], lambda i: read_image(files[i]))
    if not hasattr(images, "__getitem__") or not hasattr(images, "__len__"):
        if not hasattr(images, "__iter__"):
            raise ParameterError(
                f"{name}: expected a folder, paths, arrays or a torch Dataset, got {type(images).__name__}"
            )
        images = list(images)
    if len(images) == 0:
        raise EmptyFolderError(f"{name}: holds no image; give at least one")
    if isinstance(images, np.ndarray) and images.ndim not in (3, 4):
        raise ParameterError(f"{name}: expected an array (N, H, W, 3) or (N, H, W), got shape {images.shape}")
    if _is_one_image(images):
        raise ParameterError(
            f"{name}: one image of shape {tuple(images.shape)} is given; give several, as a list or (N, H, W, 3)"
        )
    if isinstance(images, (list, tuple)):
        dtypes = {str(item.dtype) for item in images if isinstance(item, np.ndarray)}
        if len(dtypes) > 1:
            raise MixedSizesError(
                f"{name}: arrays of different dtypes ({', '.join(sorted(dtypes))}); bring them to one, "
                "since equal numbers would mean different intensities"
            )

    def named(i: int) -> str:
        item = images[i]
        return os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"{name}[{i}]"

    # Naming a Dataset's items must not decode them all.
    plain = isinstance(images, (list, tuple))
    names = [str(named(i)) if plain else f"{name}[{i}]" for i in range(len(images))]
    return ImageSource(names, lambda i: as_image(images[i], names[i]))


def _is_one_image(images: Any) -> bool:
    """Whether an array or tensor is a single image: neither H grey ones of four columns, nor C grey ones."""
    if hasattr(images, "detach"):
        return int(images.ndim) <= 3
    return isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] <= 4


def as_image(item: Any, name: str = "image") -> UInt8Array:
    """One image in any of the forms of `open_images` (a path, array, PIL image or tensor) as uint8 (H, W, 3).

    Raises:
        ImageError: unreadable, or of a shape, dtype or range that no image has; the message names it.
    """
    if isinstance(item, (tuple, list)) and len(item):
        item = item[0]  # a Dataset's (image, label)
    if isinstance(item, (str, os.PathLike)):
        return read_image(item)
    if hasattr(item, "detach"):
        return _from_tensor(item, name)
    if hasattr(item, "convert") and hasattr(item, "getbands"):
        item = np.asarray(item if item.mode in ("L", "LA", "RGB", "RGBA", "I;16") else item.convert("RGB"))
    if not isinstance(item, np.ndarray):
        raise ImageError(f"{name}: expected an image, got {type(item).__name__}")
    try:
        return to_rgb8(item, name)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise ImageError(f"{name}: is no image ({error})") from error


def is_single_image(images: Any) -> bool:
    """Whether ``images`` is one image, and not what `open_images` takes several from."""
    if isinstance(images, (str, os.PathLike)):
        return not os.path.isdir(images)
    if hasattr(images, "getbands"):
        return True
    if hasattr(images, "detach"):
        return int(images.ndim) <= 3
    if isinstance(images, np.ndarray):
        return images.ndim == 2 or (images.ndim == 3 and images.shape[2] <= 4)
    return False


def _from_tensor(tensor: Any, name: str) -> UInt8Array:
    array = tensor.detach().cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError(f"{name}: a float tensor must hold values from 0 to 1, not normalised ones")
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return to_rgb8(np.ascontiguousarray(array), name)
