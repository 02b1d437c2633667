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

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray
from ..errors import TooFewImagesError

# For k > 1: neighbours that are asked for at first, for each image that is wanted.
_NEIGHBOURS = 8


def check_witnesses(images: int, witnesses: int) -> None:
    """Raises TooFewImagesError if an image among so many different ones has fewer than ``witnesses`` others."""
    if images <= witnesses:
        raise TooFewImagesError(
            f"witnesses: {witnesses} other images are to confirm each, and there are {images} different images; give "
            "more images or fewer witnesses"
        )


def confirm(
    rows: FloatArray, image: int, bank: kernels.Bank, witnesses: int = 1, backend: str = "auto"
) -> tuple[FloatArray, IndexArray]:
    """Confirmation distances of an image's patches.

    Args:
        rows: (P, D) float32, the image's descriptors. image: its number among the bank's groups.
        bank: the patches of all images, grouped by image; its floor is ignored.
        witnesses: k.

    Returns:
        Squared distances, float32 (P,), infinite where there are fewer than k other images; and the bank row of each
        witness, int64 (P,), -1 there.
    """
    bank = bank.with_floor(None)
    group = np.full(len(rows), image, dtype=np.int64)
    if witnesses == 1:
        found = kernels.nearest(rows, bank, query_group=group, backend=backend)
        return found.sq_distance, found.index
    distance, witness = np.full(len(rows), np.inf, np.float32), np.full(len(rows), -1, np.int64)
    left, asked = np.arange(len(rows)), min(len(bank), _NEIGHBOURS * witnesses)
    assert bank.groups is not None
    while len(left):
        found = kernels.nearest(rows[left], bank, k=asked, query_group=group[left], backend=backend)
        index, sq_distance = (a.reshape(len(left), asked) for a in (found.index, found.sq_distance))
        place = _kth_image(np.where(index >= 0, bank.groups[index], -1), witnesses)
        enough = np.flatnonzero(place >= 0)
        at = left[enough]
        distance[at], witness[at] = sq_distance[enough, place[enough]], index[enough, place[enough]]
        # Where some neighbour is missing, there are no further ones.
        left = left[(place < 0) & (index[:, -1] >= 0)] if asked < len(bank) else left[:0]
        asked = min(len(bank), 2 * asked)
    return distance, witness


def _kth_image(images: IndexArray, k: int) -> IndexArray:
    """Where the k-th different image begins in each row of (m, n) image numbers, -1 for none; -1 is no image."""
    out = np.full(len(images), -1, dtype=np.int64)
    for i, row in enumerate(images):
        different, first = np.unique(row, return_index=True)
        first = np.sort(first[different >= 0])
        if len(first) >= k:
            out[i] = first[k - 1]
    return out
