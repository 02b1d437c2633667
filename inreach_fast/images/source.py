"""A collection of images in any form: a count, a name for each, and each as uint8 RGB."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import UInt8Array
from ..errors import EmptyFolderError, MixedSizesError, ParameterError
from .reading import as_image, is_single_image, list_images


@dataclass(frozen=True)
class ImageSource:
    """Images by number, loaded one at a time; made by `open_images`.

    Attributes:
        names: of each image: a path (in a folder: relative to it) or "images[3]".
        load: returns image ``i``, uint8 (H, W, 3) RGB. Raises ImageError, with its name, if it cannot be loaded.
    """

    names: list[str]
    load: Callable[[int], UInt8Array]

    def __len__(self) -> int:
        return len(self.names)


def open_images(images: Any, name: str = "images") -> ImageSource:
    """Wraps a folder, paths, arrays or a torch Dataset.

    Args:
        images: a folder or one image file (str or Path); a list of paths or of images (uint8 (H, W, 3) or
            (H, W) arrays, PIL images, torch tensors (C, H, W) of uint8 or of floats from 0 to 1); an array
            (N, H, W, 3) or (N, H, W); or a map-style Dataset whose items are images or (image, ...) tuples.

    Raises:
        EmptyFolderError: no image in it. DataError: the folder does not exist. MixedSizesError: arrays of
            several dtypes. ParameterError: anything else, or a single image in memory.
    """
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if path.is_file():
            return ImageSource([str(path)], lambda i: as_image(path))
        files = list_images(path)
        return ImageSource([file.relative_to(path).as_posix() for file in files], lambda i: as_image(files[i]))
    if not hasattr(images, "__getitem__") or not hasattr(images, "__len__"):
        if not hasattr(images, "__iter__"):
            raise ParameterError(
                f"{name}: expected a folder, paths, arrays or a torch Dataset, got {type(images).__name__}"
            )
        images = list(images)
    if len(images) == 0:
        raise EmptyFolderError(f"{name}: no image; give at least one")
    if isinstance(images, np.ndarray) and images.ndim not in (3, 4):
        raise ParameterError(f"{name}: expected an array (N, H, W, 3) or (N, H, W), got shape {images.shape}")
    if is_single_image(images):
        raise ParameterError(
            f"{name}: one image of shape {tuple(images.shape)}; give several, as a list or (N, H, W, 3)"
        )
    if isinstance(images, (list, tuple)):
        dtypes = {str(item.dtype) for item in images if isinstance(item, np.ndarray)}
        if len(dtypes) > 1:
            raise MixedSizesError(
                f"{name}: arrays of different dtypes ({', '.join(sorted(dtypes))}), so that equal numbers mean "
                "different intensities; convert them to one dtype"
            )

        # Paths name themselves. Items of a Dataset are not looked at: that would decode them all.
        names = [
            str(os.fspath(item)) if isinstance(item, (str, os.PathLike)) else f"{name}[{i}]"
            for i, item in enumerate(images)
        ]
    else:
        names = [f"{name}[{i}]" for i in range(len(images))]
    return ImageSource(names, lambda i: as_image(images[i], names[i]))
