"""Descriptors of the training images: given again, still in the caller's array, or computed anew."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..array_types import FloatArray, UInt8Array
from ..errors import DescriptorsNeededError, MixedSizesError, ParameterError
from ..images.alignment import rotate
from ..images.pixels import PixelRule
from ..images.preprocess import Geometry
from ..images.source import open_images
from ..method.descriptors import check_descriptors
from .fitted_state import FittedState, Reference


def references(x: Any, count: int) -> list[Reference | None]:
    """References to the descriptors of each image; the model holds no copy of them."""
    return [(weakref.ref(x), i) for i in range(count)] if isinstance(x, np.ndarray) else [None] * count


def referenced(reference: Reference | None) -> FloatArray | None:
    """An image's descriptors, (P, D), if their array still exists."""
    array = None if reference is None else reference[0]()
    return None if array is None or reference is None else np.ascontiguousarray(array[reference[1]], np.float32)


def checked_rows(x: Any, state: FittedState, name: str = "x", *, every: bool = False) -> FloatArray:
    """Descriptors (N, P, D), checked: of the model's grid and dimension and, with ``every``, of all training images."""
    array = check_descriptors(x, name)
    expected = (state.grid[0] * state.grid[1], state.nominal.patches.shape[1])
    if array.shape[1:] != expected:
        raise MixedSizesError(f"{name}: expected (P, D) = {expected} as in the fit, got {array.shape[1:]}")
    if every and len(array) != state.n_images:
        raise ParameterError(f"{name}: expected all {state.n_images} images of the model, got {len(array)}")
    return array


def every_row(state: FittedState) -> FloatArray:
    """The descriptors of all training images, (N, P, D), which a model with association="all" holds."""
    assert state.growth is not None
    members, rows = state.growth.members, state.nominal.patches
    if not members.counts.all():
        raise DescriptorsNeededError(
            "bank_images: the model does not hold the descriptors of all images; fit all of them again"
        )
    return np.stack([rows[slice(*members.span(place))] for place in state.arrangement.place.tolist()])


def training_rows(
    state: FittedState,
    images: Any,
    rule: PixelRule,
    geometry: Geometry,
    describe: Callable[[UInt8Array], list[FloatArray]],
) -> Callable[[int], FloatArray]:
    """Returns the descriptors, (P, D), of training image i; ``images``: as in `InReaCh.training_scores`.

    ``rule`` and ``geometry`` make network inputs of images, and ``describe`` descriptors of these (B, H, W, 3).
    """
    if not state.from_descriptors:
        read = _training_inputs(state, images, rule, geometry)
        angles = np.zeros(state.n_images, np.int64) if state.alignment is None else state.alignment.angles
        return lambda i: describe(rotate(read(i), int(angles[i]))[None])[0]
    if images is not None:
        array = checked_rows(images, state, "images", every=True)
        return lambda i: array[i]

    def kept(i: int) -> FloatArray:
        rows = referenced(state.references[i]) if state.references else None
        if rows is None:
            raise ParameterError("images: the model keeps no descriptors; give those that fit_descriptors was given")
        return rows

    kept(0)
    return kept


def _training_inputs(
    state: FittedState, images: Any, rule: PixelRule, geometry: Geometry
) -> Callable[[int], UInt8Array]:
    """Returns the network input, uint8 (H, W, 3), of training image i."""
    if images is None:
        inputs = None if state.growth is None else state.growth.inputs
        if inputs is None:
            raise ParameterError(
                "images: a model that was compressed or saved with final=True keeps no training images; give them"
            )
        return lambda i: np.array(inputs[i])
    source = open_images(images, rule=rule)
    used = list(range(state.n_images))
    if len(source) != state.n_images:
        place = {name: i for i, name in enumerate(source.names)}
        if not all(name in place for name in state.image_names):
            raise ParameterError(f"images: the fit had {state.n_images} images, got {len(source)}; give the same ones")
        used = [place[name] for name in state.image_names]
    return lambda i: geometry.apply(source.load(used[i]), source.names[used[i]])
