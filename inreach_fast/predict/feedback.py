"""From an image and a region of it to the patches that `method.feedback` works with."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..array_types import BoolArray, UInt8Array
from ..errors import RegionError
from ..images.alignment import rotate_mask
from ..images.masks import Box, region_mask
from ..images.pixels import PixelRule
from ..images.reading import as_image
from ..method.descriptors import all_finite, bad_features
from ..method.feedback import Feedback, chosen_patches, peak_of
from .prediction import Predictor


def give(predictor: Predictor, kind: str, number: int, image: Any, region: Any) -> Feedback:
    """The feedback of this kind and number on an image; ``image``, ``region``: as in `InReaCh.accept`.

    Raises:
        ImageError, RegionError, NonFiniteError.
    """
    name = str(os.fspath(image)) if isinstance(image, (str, os.PathLike)) else "the image"
    p = predictor.parameters
    array = as_image(image, name, PixelRule(p.bit_depth, p.max_pixels))
    size = (int(array.shape[0]), int(array.shape[1]))
    mask, box = region_mask(region, size)
    seen = predictor.geometry.seen(mask)
    return _feedback(predictor, kind, number, name, size, box, predictor.geometry.apply(array, name), seen)


def give_again(predictor: Predictor, entry: Feedback) -> Feedback:
    """The same feedback for another model, from the network's input that it keeps."""
    assert entry.pixels is not None
    assert entry.mask is not None
    return _feedback(
        predictor, entry.kind, entry.number, entry.image, entry.size, entry.region, entry.pixels, entry.mask
    )


def _feedback(
    predictor: Predictor,
    kind: str,
    number: int,
    name: str,
    size: tuple[int, int],
    box: Box | None,
    pixels: UInt8Array,
    mask: BoolArray,
) -> Feedback:
    rotated, degrees = (pixels, 0) if predictor.alignment is None else predictor.alignment.apply(pixels)
    inside = predictor.frame.touched(np.asarray(rotate_mask(mask, degrees)))
    if not inside.any():
        raise RegionError(
            f"region: no patch of {name} lies there: it is cropped away, rotated out of the frame, or outside of the "
            "region of interest; give a region that the model inspects"
        )
    (rows,) = predictor.describe(rotated[None], "float32")
    if not all_finite(rows):
        raise bad_features(name)
    chosen = chosen_patches(kind, inside, predictor.values(rows))
    return Feedback(
        number=number,
        kind=kind,
        image=name,
        size=size,
        region=box,
        patches=predictor.frame.places(chosen),
        rows=np.ascontiguousarray(rows[chosen], np.float32),
        peak=peak_of(chosen, len(rows), predictor.frame),
        pixels=pixels,
        mask=mask,
    )
