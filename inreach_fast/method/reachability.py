"""Graded evidence: how far other images confirm each patch (ALGORITHM section 8).

The confirmation distance r(b) of a patch b is the squared distance to the nearest patch of the k-th nearest other
image, its witness. A patch q then scores the least max(|q - b|^2, r(b)) over all b: the reachability distance of LOF
(Breunig et al., SIGMOD 2000) with images in place of points. What resembles a defect that was seen in one image only
remains anomalous, since no other image confirms it.

*Rounding.* r(b) is stored as the float32 rounding of the float64 distance. No score changes by that: rounding is
monotone, so that the rounded minimum of max(d, r) is the minimum of the rounded values, and rounding r twice is
rounding it once. Which b attains a score is decided with the stored r(b).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray
from ..errors import TooFewImagesError

# Neighbours that are asked for at first, for each image that is wanted.
_NEIGHBOURS = 4


class Confirmation(NamedTuple):
    """Confirmation distances of an image's patches, squared, each infinite where there are too few other images.

    Attributes:
        distance: float32 (P,), r: to the nearest patch of the k-th nearest other image.
        witness: int64 (P,), that patch's bank row; -1 where there is none.
        following: float32 (P,), the same for image k + 1: what r would be without one of the k images before it.
    """

    distance: FloatArray
    witness: IndexArray
    following: FloatArray


def check_witnesses(images: int, witnesses: int) -> None:
    """Raises TooFewImagesError if an image among so many different ones has fewer than ``witnesses`` others."""
    if images <= witnesses:
        raise TooFewImagesError(
            f"witnesses: {witnesses} other images are to confirm each, and there are {images} different images; give "
            "more images or fewer witnesses"
        )


def confirm(
    rows: FloatArray, image: int | IndexArray, bank: kernels.Bank, witnesses: int = 1, backend: str = "auto"
) -> Confirmation:
    """How far the other images confirm an image's patches.

    Args:
        rows: (P, D) float32, the image's descriptors. image: its number among the bank's groups; or that of each row,
            int64 (P,).
        bank: the patches of all images, grouped by image; its floor is ignored.
        witnesses: k.
    """
    bank = bank.with_floor(None)
    assert bank.groups is not None
    found = Confirmation(
        np.full(len(rows), np.inf, np.float32), np.full(len(rows), -1, np.int64), np.full(len(rows), np.inf, np.float32)
    )
    own = np.broadcast_to(np.asarray(image, dtype=np.int64), len(rows))
    left, asked = np.arange(len(rows)), min(len(bank), _NEIGHBOURS * (witnesses + 1))
    while len(left):
        near = kernels.nearest(rows[left], bank, k=asked, query_group=own[left], backend=backend)
        index, sq_distance = (a.reshape(len(left), asked) for a in (near.index, near.sq_distance))
        places = _first_of_images(np.where(index >= 0, bank.groups[index], -1), witnesses + 1)
        for place, distance in ((places[:, -2], found.distance), (places[:, -1], found.following)):
            have = np.flatnonzero(place >= 0)
            distance[left[have]] = sq_distance[have, place[have]]
        have = np.flatnonzero(places[:, -2] >= 0)
        found.witness[left[have]] = index[have, places[have, -2]]
        # Where some neighbour is missing, there are no further ones.
        left = left[(places[:, -1] < 0) & (index[:, -1] >= 0)] if asked < len(bank) else left[:0]
        asked = min(len(bank), 2 * asked)
    return found


def _first_of_images(images: IndexArray, count: int) -> IndexArray:
    """Where each of the first ``count`` different images begins in each row of (m, n) image numbers: (m, count).

    -1 where there are fewer; the number -1 is no image.
    """
    out = np.full((len(images), count), -1, dtype=np.int64)
    for i, row in enumerate(images):
        different, first = np.unique(row, return_index=True)
        first = np.sort(first[different >= 0])[:count]
        out[i, : len(first)] = first
    return out
