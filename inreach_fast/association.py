"""Association of patches into channels (paper, section 3.2; ALGORITHM section 4).

Every image meets each seed image once: patch q of the image and seed patch p associate when they are each
other's nearest. The seed image whose nearest patch is closest to q decides for q. Images are met one at a
time and nothing but one channel id a patch is kept, so that the seeds alone need to stay in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernels

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]

NO_CHANNEL = -1
_LANES = 16


def choose_seeds(n_images: int, depth: int, selection: str, random_state: int) -> IndexArray:
    """The seed images, ascending, int64 (min(depth, n_images),): the first, or a seeded random choice."""
    depth = min(depth, n_images)
    if selection == "first":
        return np.arange(depth, dtype=np.int64)
    chosen = np.random.default_rng(random_state).choice(n_images, size=depth, replace=False)
    return np.sort(chosen).astype(np.int64)


class Associator:
    """The seed images, prepared once; `associate` takes one image at a time, in any order.

    Args:
        seed_images: int64 (S,), training index of each seed image, ascending.
        seed_rows: S arrays of (P, D) float32, the seed images' descriptors (kept by reference).
        pairs: "all": an image meets every seed image but itself (paper); "later": only those with a lower
            training index (reference).
        backend: kernel backend.
    """

    def __init__(
        self,
        seed_images: IndexArray,
        seed_rows: Sequence[FloatArray],
        *,
        pairs: str = "all",
        backend: str = "auto",
    ) -> None:
        self._seed_images = seed_images
        # One basis for all, so that an image is projected once and not once for each seed image.
        first = kernels.Bank(seed_rows[0])
        self._banks = [first, *(kernels.Bank(rows, basis=first) for rows in seed_rows[1:])]
        for bank in self._banks:
            bank.keep_projected = True
        self._patches = len(seed_rows[0])
        self._pairs = pairs
        self._backend = backend

    def associate(self, image: int, rows: FloatArray) -> IndexArray:
        """The channel that each patch of an image joins.

        Args:
            image: its training index.
            rows: (P, D) float32 descriptors.

        Returns:
            int64 (P,): ``slot * P + p`` for seed patch p of the seed image number ``slot``, or -1.
        """
        meets = [
            slot
            for slot, seed in enumerate(self._seed_images.tolist())
            if seed < image or (self._pairs == "all" and seed != image)
        ]
        channel = np.full(len(rows), NO_CHANNEL, dtype=np.int64)
        if not meets:
            return channel
        own = np.flatnonzero(self._seed_images == image)
        if len(own):
            bank = self._banks[int(own[0])]
        else:
            bank = kernels.Bank(rows, basis=self._banks[0])
            bank.keep_projected = True
        best = np.full(len(rows), np.inf, dtype=np.float32)
        best_slot = np.full(len(rows), -1, dtype=np.int64)
        best_patch = np.zeros(len(rows), dtype=np.int64)
        q = np.arange(len(rows))
        for slot in meets:
            found = kernels.mutual_nearest(bank, self._banks[slot], backend=self._backend)
            distance, seed_patch = found.ab_sq_distance, found.ab_index
            closer = distance < best
            # Equal float32 values may hide different float64 ones, and only those decide.
            tied = np.flatnonzero((distance == best) & (best_slot >= 0))
            if len(tied):
                closer[tied] = self._closer_in_float64(rows, tied, slot, seed_patch, best_slot, best_patch)
            best[closer] = distance[closer]
            best_slot[closer] = slot
            best_patch[closer] = seed_patch[closer]
            mutual = found.ba_index[seed_patch] == q
            channel[closer] = np.where(mutual, slot * self._patches + seed_patch, NO_CHANNEL)[closer]
        return channel

    def _closer_in_float64(
        self,
        rows: FloatArray,
        tied: IndexArray,
        slot: int,
        seed_patch: IndexArray,
        best_slot: IndexArray,
        best_patch: IndexArray,
    ) -> npt.NDArray[np.bool_]:
        new = exact_sq_distance(rows[tied], self._banks[slot].rows[seed_patch[tied]])
        held = np.stack([self._banks[s].rows[p] for s, p in zip(best_slot[tied], best_patch[tied], strict=True)])
        return np.asarray(new < exact_sq_distance(rows[tied], held))


def exact_sq_distance(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Squared L2 distance of matching rows, (m, D) and (m, D) -> float64 (m,), in the kernels' own order.

    Sixteen virtual lanes, each product rounded before it is added, folded in a fixed tree (csrc/README.md).
    """
    d = x.astype(np.float64) - y.astype(np.float64)
    d *= d
    width = -(-d.shape[1] // _LANES) * _LANES
    padded = np.zeros((len(d), width), dtype=np.float64)
    padded[:, : d.shape[1]] = d
    lanes = np.zeros((len(d), _LANES), dtype=np.float64)
    for start in range(0, width, _LANES):
        lanes += padded[:, start : start + _LANES]
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
    return np.asarray(lanes[:, 0])
