"""Training images given by number or by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..array_types import IndexArray
from ..errors import ParameterError


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
