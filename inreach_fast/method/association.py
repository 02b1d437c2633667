"""Association of patches into channels (paper, section 3.2; ALGORITHM section 4).

Patch q of an image and seed patch p associate when they are each other's nearest; the seed image whose nearest
patch is closest to q decides for q. Images are met one at a time and nothing but one channel id a patch is kept,
so that the seeds alone need to stay in memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray, Int32Array
from ..errors import ParameterError
from ..images.ids import image_numbers
from .descriptors import in_memory

NO_CHANNEL = -1


def choose_seeds(n_images: int, depth: int, selection: str, random_state: int) -> IndexArray:
    """The seed images, ascending, int64 (min(depth, n_images),): the first, or a seeded random choice."""
    depth = min(depth, n_images)
    if selection == "first":
        return np.arange(depth, dtype=np.int64)
    chosen = np.random.default_rng(random_state).choice(n_images, size=depth, replace=False)
    return np.sort(chosen).astype(np.int64)


def given_seeds(seeds: Any, names: Sequence[str], used: Sequence[int]) -> IndexArray:
    """Seed images that a caller chose, as training indices, ascending, int64 (S,).

    Args:
        seeds: numbers or names, as `image_numbers` takes them, of the images given.
        names: of all images given. used: the numbers of those that could be read, in the order of training.

    Raises:
        ParameterError: no such image, or one that could not be read.
    """
    chosen = image_numbers(seeds, names, "seeds")
    place = {number: training for training, number in enumerate(used)}
    for number in chosen.tolist():
        if number not in place:
            raise ParameterError(f"seeds: {names[number]} could not be read and was passed over; choose another")
    return np.array([place[number] for number in chosen.tolist()], dtype=np.int64)


class Associator:
    """The seed images, prepared once; `associate` takes one image at a time, in any order.

    All seed images form one bank. The nearest seed patch over the whole bank is the nearest patch of the nearest
    seed image, and with seed images in ascending order the bank's lowest row on ties is section 4's lowest seed.
    So one search replaces one for each seed image, and only the seed patches that it found need to answer.

    Args:
        seed_images: int64 (S,), training index of each seed image, ascending.
        seed_rows: the seed images' descriptors, (S, P, D) float32 or S arrays of (P, D); or all images'
            (N, P, D) float32, of which the seeds' are taken. Of one array nothing is copied.
        pairs: "all": an image meets every seed image but itself (paper); "later": only those with a lower
            training index (reference).
        backend: kernel backend.
    """

    def __init__(
        self,
        seed_images: IndexArray,
        seed_rows: Sequence[FloatArray] | FloatArray,
        *,
        pairs: str = "all",
        backend: str = "auto",
    ) -> None:
        self._seed_images = np.asarray(seed_images, dtype=np.int64)
        self._patches = len(seed_rows[0])
        self._pairs = pairs
        self._backend = backend
        own = np.arange(len(self._seed_images))
        if isinstance(seed_rows, np.ndarray):
            self._rows = seed_rows.reshape(-1, seed_rows.shape[2])
            # As many images as seeds: they are the seeds, whatever they are numbered in the training set.
            first = (own if len(seed_rows) == len(own) else self._seed_images) * self._patches
        else:
            self._rows = np.concatenate(list(seed_rows))
            first = own * self._patches
        # Where each seed image's patches lie among the rows, (S, P).
        self._places = first[:, None] + np.arange(self._patches)
        self._bank = self._bank_of(len(self._seed_images))
        self._first_seeds: dict[int, kernels.Bank] = {len(self._seed_images): self._bank}

    def associate(self, image: int, rows: Any) -> IndexArray:
        """The channel that each patch of an image joins.

        Args:
            image: its training index.
            rows: (P, D) float32 descriptors, in the CPU's memory or on a GPU (the seeds' go there once).

        Returns:
            int64 (P,): ``slot * P + p`` for seed patch p of the seed image number ``slot``, or -1.
        """
        channel = np.full(len(rows), NO_CHANNEL, dtype=np.int64)
        bank = self._met_by(image)
        if bank is None:
            return channel
        own = np.full(len(rows), image)
        patches = kernels.Bank(rows, basis=self._bank) if isinstance(rows, np.ndarray) else rows
        found = kernels.nearest_answered(patches, bank, query_group=own, backend=self._backend)
        answered, index = (in_memory(x) for x in (found.answered, found.index))
        channel[answered] = index[answered]
        return channel

    def _met_by(self, image: int) -> kernels.Bank | None:
        """The seeds that an image meets, itself among them (its group keeps it apart)."""
        count = len(self._seed_images)
        if self._pairs == "later":
            count = int(np.searchsorted(self._seed_images, image))
        if count == 0:
            return None
        if count not in self._first_seeds:  # only the seed images themselves meet fewer than all
            self._first_seeds[count] = self._bank_of(count)
        return self._first_seeds[count]

    def _bank_of(self, count: int) -> kernels.Bank:
        groups = np.repeat(self._seed_images[:count], self._patches)
        return kernels.Bank(self._rows, groups, index=self._places[:count].ravel())


class ImageMembers(NamedTuple):
    """What an image gives to the channels.

    Attributes:
        patch: int32 (m,), patch numbers of its members, ascending: those that joined; of a seed image all.
        joined: int64 (m,), the channel that each joined, or -1.
        rows: float32 (m, D), their descriptors.
        rest: float32 (P - m, D), the other patches in their order, where the whole image was wanted.
        seconds: describing and associating, wall clock.
    """

    patch: Int32Array
    joined: IndexArray
    rows: FloatArray
    rest: FloatArray | None
    seconds: tuple[float, float]


def members_of(associator: Associator, number: int, rows: Any, *, is_seed: bool, whole: bool) -> ImageMembers:
    """Lets the patches of one image, (P, D) float32, join channels; of a seed image all are members.

    Rows may be on a GPU; those of the result are in the CPU's memory.
    """
    begin = time.perf_counter()
    joined = associator.associate(number, rows)
    member = np.full(len(joined), True) if is_seed else joined != NO_CHANNEL
    patch = np.flatnonzero(member)
    rest = in_memory(rows, np.flatnonzero(~member)) if whole else None
    kept = in_memory(rows, patch)
    seconds = time.perf_counter() - begin
    return ImageMembers(patch.astype(np.int32), joined[patch], kept, rest, (0.0, seconds))
