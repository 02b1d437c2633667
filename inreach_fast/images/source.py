"""A collection of images in any form (a count, a name for each, and each as uint8 RGB); images by number or name."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import IndexArray, UInt8Array
from ..errors import EmptyFolderError, ImageError, InReachError, MixedSizesError, ParameterError, PassedOverWarning
from .folders import images_of
from .pixels import DEFAULT_RULE, PixelRule
from .reading import IMAGE_KEY, as_image, image_part, is_array, is_item, is_single_image, plain


@dataclass(frozen=True)
class ImageSource:
    """Images by number, loaded one at a time; made by `open_images`.

    Attributes:
        names: of each image: a path (in a folder: relative to it) or "images[3]".
        load: returns image ``i``, uint8 (H, W, 3) RGB. Raises ImageError, with its name, if it cannot be loaded.
        sizes: int64 (N, 2), (height, width) of the images that those of ``load`` were made of; None: of themselves.
    """

    names: list[str]
    load: Callable[[int], UInt8Array]
    sizes: IndexArray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, UInt8Array]]:
        return ((name, self.load(i)) for i, name in enumerate(self.names))


def open_images(images: Any, name: str = "images", rule: PixelRule = DEFAULT_RULE) -> ImageSource:
    """Wraps a folder, paths, arrays, a torch Dataset or a DataLoader.

    Args:
        images: a folder or one image file (str or Path); a list of images in any form that `as_image` takes; an array
            or tensor (N, H, W, C), (N, C, H, W) or (N, H, W); a map-style Dataset whose items are images, (image, ...)
            tuples or dictionaries with "image"; or any iterable of these, such as a DataLoader, whose batches are taken
            apart. All of an iterable's items are in memory; so give the DataLoader's Dataset if it is large.
        rule: how samples become pixels.

    Raises:
        EmptyFolderError: no image in it. DataError: the folder does not exist. MixedSizesError: arrays of
            several dtypes. ParameterError: anything else, or a single image in memory.

    A folder's files that are passed over are reported by a `PassedOverWarning`.
    """
    images = plain(images)
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if os.path.isfile(path):
            return ImageSource([str(path)], lambda i: as_image(path, str(path), rule))
        found = images_of(path)
        if found.notable:
            warnings.warn(f"{path}: passed over: {found.passed_over()}", PassedOverWarning, stacklevel=3)
        names = [file.relative_to(path).as_posix() for file in found.images]
        return ImageSource(names, lambda i: as_image(found.images[i], names[i], rule))
    if isinstance(images, Mapping) and not is_single_image(images):
        images = image_part(images, name)  # a batch
    if is_array(images):
        images = _checked_array(images, name)
    if is_single_image(images):
        what = f"of shape {tuple(images.shape)}" if is_array(images) else f"({type(images).__name__})"
        raise ParameterError(f"{name}: one image {what}; give several, as a list or (N, H, W, 3)")
    if isinstance(images, (list, tuple)) or not _is_indexed(images):
        if not hasattr(images, "__iter__"):
            raise ParameterError(
                f"{name}: expected a folder, paths, arrays or a torch Dataset, got {type(images).__name__}"
            )
        images = list(single_images(images))
    try:
        count = len(images)
    except Exception as error:  # a Dataset whose length is not known, for instance
        raise ParameterError(f"{name}: a {type(images).__name__} without a length ({error}); give a list") from error
    if not count:
        raise EmptyFolderError(f"{name}: no image; give at least one")
    if not isinstance(images, list):
        # Items of a Dataset are not looked at: that would decode them all.
        names = [f"{name}[{i}]" for i in range(count)]
        return ImageSource(names, lambda i: as_image(_item(images, i, names[i]), names[i], rule))
    dtypes = {str(item.dtype) for item in images if isinstance(item, np.ndarray)}
    if len(dtypes) > 1:
        raise MixedSizesError(
            f"{name}: arrays of different dtypes ({', '.join(sorted(dtypes))}), so that equal numbers mean "
            "different intensities; convert them to one dtype"
        )
    # Paths name themselves.
    names = [
        str(os.fspath(item)) if isinstance(item, (str, os.PathLike)) else f"{name}[{i}]"
        for i, item in enumerate(images)
    ]
    return ImageSource(names, lambda i: as_image(images[i], names[i], rule))


def single_images(images: Iterable[Any]) -> Iterator[Any]:
    """The items of an iterable, with batches taken apart: (B, H, W, C) or (B, C, H, W), and those of a DataLoader.

    Raises ParameterError for a batch that cannot be taken apart.
    """
    batched = getattr(images, "batch_sampler", None) is not None  # a DataLoader that collates
    size = (getattr(images, "batch_size", None) or sys.maxsize) if batched else 0
    for number, item in enumerate(images):
        try:
            part = _part_of_batch(item, size) if batched else _batch_in(item)
        except ImageError as error:
            raise ParameterError(f"batch {number}: {error}") from error
        if part is None:
            yield item
        else:
            yield from part


def _batch_in(item: Any) -> Any:
    """The images of an item that is a batch by its shape, alone or as an item's image; None if it is none."""
    with suppress(ImageError):  # of an item that is no image: it is reported when it is loaded
        part = image_part(item)
        return part if is_array(part) and part.ndim == 4 else None
    return None


def _part_of_batch(batch: Any, size: int) -> Any:
    """The images in a DataLoader's batch of at most ``size``; None if it is one item.

    A batch is collated (a tensor, alone, first in a list, or as "image"), or a list of items; ImageError if it can be
    both.
    """
    if isinstance(batch, Mapping):
        found = batch.get(IMAGE_KEY)
        return found if isinstance(found, (list, tuple)) or _is_batch(found, size) else None
    if not isinstance(batch, (list, tuple)) or not batch:
        return batch if _is_batch(batch, size) else None
    if isinstance(batch, list) and _are_paths(batch):
        return batch
    first, second = batch[0], batch[1] if len(batch) > 1 else None
    collated = _is_batch(first, size) or _are_paths(first)
    items = len(batch) <= size and is_item(first) and (len(batch) == 1 or is_item(second))
    if collated and items and not (is_array(first) and first.ndim == 4):
        raise ImageError(
            f"a list of {len(batch)}, either of items or of collated images and masks; let collate_fn return one "
            'tensor (B, C, H, W), or {"image": tensor}'
        )
    return first if collated else batch if items else None


def _is_batch(value: Any, size: int) -> bool:
    return is_array(value) and (value.ndim == 4 or (value.ndim == 3 and len(value) <= size))


def _are_paths(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(path, str) for path in value)


def _checked_array(images: Any, name: str) -> Any:
    """An array or tensor, if it can be several images or one; text and objects as a list."""
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU" and images.ndim == 1:
        return images.tolist()
    shape = tuple(images.shape)
    if len(shape) == 3 and shape[0] == 4 and not is_single_image(images):
        raise ParameterError(
            f"{name}: shape {shape} can be one image with alpha or four grey ones; give (4, H, W, 1) for four, "
            "(H, W, 4) or (1, 4, H, W) for one"
        )
    if len(shape) not in (3, 4) and not is_single_image(images):
        raise ParameterError(f"{name}: expected an array (N, H, W, 3), (N, 3, H, W) or (N, H, W), got shape {shape}")
    return images


def _is_indexed(images: Any) -> bool:
    """Whether items are had by number; a torch IterableDataset inherits a __getitem__ that raises."""
    iterable = any(kind.__name__ == "IterableDataset" for kind in type(images).__mro__)
    return hasattr(images, "__getitem__") and hasattr(images, "__len__") and not iterable


def _item(images: Any, number: int, name: str) -> Any:
    try:
        return images[number]
    except (InReachError, MemoryError):
        raise
    except Exception as error:  # a Dataset reads files: what that raises is an image that cannot be read
        raise ImageError(
            f"{name}: the {type(images).__name__} does not give it ({type(error).__name__}: {error}); repair it, or "
            "skip broken images with skip_bad (--skip-bad)"
        ) from error


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
