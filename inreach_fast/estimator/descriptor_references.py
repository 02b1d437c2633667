"""Descriptors that a caller handed over, as long as the caller keeps the array: the model holds no copy of them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ..array_types import FloatArray

Reference = tuple["weakref.ref[Any]", int]


def references(x: Any, count: int) -> list[Reference | None]:
    """Where the descriptors of each image are, as long as the caller keeps them."""
    return [(weakref.ref(x), i) for i in range(count)] if isinstance(x, np.ndarray) else [None] * count


def referenced(reference: Reference | None) -> FloatArray | None:
    """An image's descriptors, where they are still there."""
    array = None if reference is None else reference[0]()
    return None if array is None or reference is None else np.ascontiguousarray(array[reference[1]], np.float32)
