"""Training images by number or by name, as a caller says which ones are meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..array_types import IndexArray
from ..errors import ParameterError


def image_numbers(ids: Any, names: Sequence[str], argument: str) -> IndexArray:
    """The numbers of the images that ``ids`` names, ascending, each once.

    Args:
        ids: a number or a name, or several of them: whole numbers from 0, or names as in ``names`` (str or Path).
            Of a path its last parts do ("3.png", "good/3.png"), where only one image ends so.
        names: of all images, by number.
        argument: what to call ``ids`` in errors.

    Returns:
        int64 (n,).

    Raises:
        ParameterError: no id; a number out of range; a name that no image has, or several; another type.
    """
    if isinstance(ids, np.ndarray):
        ids = ids.tolist()
    single = isinstance(ids, (str, bytes, os.PathLike)) or not isinstance(ids, Iterable)
    given = [ids] if single else list(ids)
    if not given:
        raise ParameterError(f"{argument}: names no image; give numbers or names of at least one")
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
    return np.unique(np.array([_number(item, names, places, argument) for item in given], dtype=np.int64))


def _number(item: Any, names: Sequence[str], places: dict[str, list[int]], argument: str) -> int:
    if isinstance(item, (str, os.PathLike)):
        name = os.fspath(item)
        found = places.get(str(name), [])
        if not found and not isinstance(name, bytes):
            found = [number for number, other in enumerate(names) if other.endswith("/" + name)]
        if not found:
            like = ", ".join(map(repr, names[:2])) + (", ..." if len(names) > 2 else "")
            raise ParameterError(
                f"{argument}: no training image is called {name!r}; they are called {like} (image_names_ and "
                "`inreach info --json` list a model's)"
            )
        if len(found) > 1:
            raise ParameterError(
                f"{argument}: {len(found)} training images are called {name!r} (numbers {found[0]}, {found[1]}, ...); "
                "give its number"
            )
        return found[0]
    if isinstance(item, (bool, np.bool_)) or not hasattr(item, "__index__"):
        raise ParameterError(f"{argument}: expected numbers or names of images, got {item!r}")
    number = int(item)
    if not 0 <= number < len(names):
        raise ParameterError(f"{argument}: there is no image {number}; they are numbered 0 to {len(names) - 1}")
    return number
