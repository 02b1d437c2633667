"""A collection of images in any form (a count, a name for each, and each as uint8 RGB); images by number or name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import IndexArray, UInt8Array
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


def image_numbers(ids: Any, names: Sequence[str], argument: str) -> IndexArray:
    """The numbers of the images given by ``ids``, int64 (n,), ascending, each once.

    Args:
        ids: a number or a name, or several of them: whole numbers from 0, or names as in ``names`` (str or Path).
            The last parts of a path suffice ("3.png", "good/3.png") if only one image has them.
        names: of all images, by number. argument: name of ``ids`` in ParameterErrors.
    """
    if isinstance(ids, np.ndarray):
        ids = ids.tolist()
    single = isinstance(ids, (str, bytes, os.PathLike)) or not isinstance(ids, Iterable)
    given = [ids] if single else list(ids)
    if not given:
        raise ParameterError(f"{argument}: no image; give the number or name of at least one")
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
    return np.unique(np.array([_number(item, names, places, argument) for item in given], dtype=np.int64))


def _number(item: Any, names: Sequence[str], places: dict[str, list[int]], argument: str) -> int:
    if isinstance(item, (str, os.PathLike)):
        name = str(os.fspath(item))
        found = places.get(name) or [number for number, other in enumerate(names) if other.endswith("/" + name)]
        if not found:
            like = ", ".join(map(repr, names[:2])) + (", ..." if len(names) > 2 else "")
            raise ParameterError(
                f"{argument}: no training image has the name {name!r}; give one like {like} (image_names_ and "
                "`inreach info --json` list them)"
            )
        if len(found) > 1:
            raise ParameterError(
                f"{argument}: {len(found)} training images have the name {name!r} (numbers {found[0]}, {found[1]}, "
                "...); give a number"
            )
        return found[0]
    if isinstance(item, (bool, np.bool_)) or not hasattr(item, "__index__"):
        raise ParameterError(f"{argument}: expected numbers or names of images, got {item!r}")
    number = int(item)
    if not 0 <= number < len(names):
        raise ParameterError(f"{argument}: no image {number}; give a number from 0 to {len(names) - 1}")
    return number
