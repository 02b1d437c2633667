"""The images on which the ranges of 8-bit products are found (parameter ``quantization``)."""

from __future__ import annotations

from heapq import heappush, heappushpop
from typing import Final

import numpy as np

from ..array_types import UInt8Array
from ..errors import ImageError, TooFewImagesError
from ..images.preprocess import Geometry
from ..images.source import ImageSource
from ..images.tiles import Tiles
from ..parameters import Parameters
from ..storage.inputs import array_digest

CALIBRATION_IMAGES: Final = 16


def calibration_inputs(source: ImageSource, geometry: Geometry, p: Parameters, skip_bad: bool) -> UInt8Array:
    """Inputs of the network, uint8 (n, h, w, 3): those of the 16 images with the least sha256.

    Neither the order of the images nor copies among them change the choice. All images are read for it.

    Raises:
        ImageError: an image cannot be read, unless ``skip_bad``. TooFewImagesError: none can.
    """
    # A heap with the greatest digest on top: their bytes are inverted, since heapq keeps the least there.
    chosen: list[bytes] = []
    kept: dict[bytes, UInt8Array] = {}
    for i in range(len(source)):
        try:
            pixels = geometry.apply(source.load(i), source.names[i])
        except ImageError:
            if not skip_bad:
                raise
            continue
        key = bytes(255 - byte for byte in array_digest(pixels))
        if key in kept:
            continue
        kept[key] = pixels
        if len(kept) <= CALIBRATION_IMAGES:
            heappush(chosen, key)
        else:
            del kept[heappushpop(chosen, key)]
    if not kept:
        raise TooFewImagesError("images: none of the training images can be read; check the folder")
    inputs = [kept[key] for key in sorted(kept)]
    if p.tile is None:
        return np.stack(inputs)
    (height, width), corners = p.image_size, list(Tiles(p.image_size, p.tile, p.tile_overlap).corners())
    return np.stack([x[top : top + height, left : left + width] for x in inputs for top, left in corners])
