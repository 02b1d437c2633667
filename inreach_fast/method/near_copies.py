"""Images that look nearly the same as another: several shots of one part.

They are no copies, so that each keeps its place in the fit; but the leave-one-image-out score of such an image is too
low, since another shot of the same part is left in, and so is a threshold that is chosen from many of them.

Two images are near copies if, reduced to 32 x 32 blocks, they are nearer to each other than 0.12 times the distance to
the k-th nearest image, k being half of the other images and at most 16. On the good images of MVTec AD's bottle, pill
and screw the nearest image is at 0.25 to 0.8, 0.57 to 0.8 and 0.11 to 0.36 of that distance; shots that differ by
sensor noise of 4 grey levels are at 0.10, 0.17 and 0.03.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array

_BLOCKS = 32
_NEAR = 0.12
_RANK = 16


def near_copies(images: Collection[UInt8Array], chosen: Iterable[UInt8Array], places: IndexArray) -> IndexArray:
    """The near copy of each chosen image, its place among ``images``, int64 (n,); -1 where there is none.

    Args:
        images: uint8 (h, w, 3) of one size, gone over once.
        chosen: n of them. places: int64 (n,), where they are among ``images``.
    """
    if len(images) < 4 or not len(places):  # too few to say what is near
        return np.full(len(places), -1, dtype=np.int64)
    queries = np.stack([_blocks(image) for image in chosen])
    distance = np.empty((len(queries), len(images)), np.float32)
    for place, image in enumerate(images):
        difference = queries - _blocks(image)
        distance[:, place] = np.einsum("ij,ij->i", difference, difference)
    distance[np.arange(len(queries)), places] = np.inf
    rank = min((len(images) - 1) // 2, _RANK) - 1
    limit = _NEAR**2 * np.partition(distance, rank, axis=1)[:, rank]
    nearest = distance.argmin(axis=1)
    return np.where(distance.min(axis=1) < limit, nearest, -1).astype(np.int64)


def _blocks(image: UInt8Array) -> FloatArray:
    """Means of blocks of an image, float32 (blocks * blocks * 3,)."""
    height, width = image.shape[:2]
    rows, columns = (np.arange(min(_BLOCKS, n)) * n // min(_BLOCKS, n) for n in (height, width))
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0, dtype=np.float32), columns, axis=1)
    counts = np.diff(np.append(rows, height))[:, None, None] * np.diff(np.append(columns, width))[None, :, None]
    means: FloatArray = (sums / counts).astype(np.float32).ravel()
    return means
