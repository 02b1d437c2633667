"""Association of patches into channels (paper, section 3.2; ALGORITHM section 4).

Patch q of an image and seed patch p associate if each is the other's nearest; of several seed images the one with the
patch nearest to q is used. Images are processed one at a time, so that only the seeds need to stay in memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray, Int32Array
from ..errors import ParameterError
from ..images.source import image_numbers
from .descriptors import in_memory

NO_CHANNEL = -1


def given_seeds(seeds: Any, names: Sequence[str], used: Sequence[int]) -> IndexArray:
    """Seed images that a caller chose (numbers or names, see `image_numbers`): training indices, ascending, int64 (S,).

    Args:
        names: of all images given. used: the numbers of those that could be read, in the order of training.

    Raises:
        ParameterError: no such image, or one that could not be read.
    """
    place = {number: training for training, number in enumerate(used)}
    chosen = []
    for number in image_numbers(seeds, names, "seeds").tolist():
        if number not in place:
            raise ParameterError(f"seeds: {names[number]} could not be read and was skipped; choose another image")
        chosen.append(place[number])
    return np.array(chosen, dtype=np.int64)


class Associator:
    """The seed images, prepared for search once; `associate` takes one image at a time, in any order.

    All seed images form one bank: the nearest seed patch over the whole bank is the nearest patch of the nearest
    seed image, and with seed images in ascending order the bank's lowest row on ties is section 4's lowest seed.
    One search replaces one for each seed image, and only the seed patches that it found need the reverse search.

    Args:
        seed_images: int64 (S,), training index of each seed image, ascending.
        seed_rows: the seed images' descriptors, (S, P, D) float32, or more images'; not copied.
        at: int64 (S,), where the seed images' are in ``seed_rows``; None: at 0 to S - 1 if there are S of them,
            otherwise at ``seed_images``.
        pairs: "all": an image is compared with every seed image but itself (paper); "later": only with those of a
            lower training index (reference).
    """

    def __init__(
        self,
        seed_images: IndexArray,
        seed_rows: FloatArray,
        *,
        at: IndexArray | None = None,
        pairs: str = "all",
        backend: str = "auto",
    ) -> None:
        self._seed_images = np.asarray(seed_images, dtype=np.int64)
        self._patches = seed_rows.shape[1]
        self._pairs = pairs
        self._backend = backend
        self._rows = seed_rows.reshape(-1, seed_rows.shape[2])
        count = len(self._seed_images)
        if at is None:
            at = np.arange(count) if len(seed_rows) == count else self._seed_images
        first = at * self._patches
        # The row of each seed patch, (S, P).
        self._places = first[:, None] + np.arange(self._patches)
        self._bank = self._bank_of(len(self._seed_images))
        self._first_seeds: dict[int, kernels.Bank] = {len(self._seed_images): self._bank}

    def associate(self, image: int, rows: Any) -> IndexArray:
        """The channel that each patch of an image joins, int64 (P,): ``slot * P + p`` for seed patch p, or -1.

        Args:
            image: its training index.
            rows: (P, D) float32 descriptors, in the CPU's memory or on a GPU (the seeds are copied there once).
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
        """The seed images that an image is compared with. (The search skips its own group.)"""
        count = len(self._seed_images)
        if self._pairs == "later":
            count = int(np.searchsorted(self._seed_images, image))
        if count == 0:
            return None
        if count not in self._first_seeds:  # "later", and the image is a seed or before one
            self._first_seeds[count] = self._bank_of(count)
        return self._first_seeds[count]

    def _bank_of(self, count: int) -> kernels.Bank:
        groups = np.repeat(self._seed_images[:count], self._patches)
        return kernels.Bank(self._rows, groups, index=self._places[:count].ravel())


class ImageMembers(NamedTuple):
    """An image's members of channels.

    Attributes:
        patch: int32 (m,), patch numbers of its members, ascending: those that joined; of a seed image all.
        joined: int64 (m,), the channel that each joined, or -1.
        rows: float32 (m, D), their descriptors.
        rest: float32 (P - m, D), the other patches in their order, if they were asked for; else None.
        seconds: wall-clock time of describing and of associating.
    """

    patch: Int32Array
    joined: IndexArray
    rows: FloatArray
    rest: FloatArray | None
    seconds: tuple[float, float]


def members_of(associator: Associator | None, number: int, rows: Any, *, is_seed: bool, whole: bool) -> ImageMembers:
    """Associates one image's patches, (P, D) float32, perhaps on a GPU; of a seed image all are members.

    Without an associator (association="all") every patch is a member and joins nothing. The result is in the CPU's
    memory.
    """
    begin = time.perf_counter()
    if associator is None:
        every = np.arange(len(rows), dtype=np.int32)
        return ImageMembers(every, np.full(len(rows), NO_CHANNEL, dtype=np.int64), in_memory(rows), None, (0.0, 0.0))
    joined = associator.associate(number, rows)
    member = np.full(len(joined), True) if is_seed else joined != NO_CHANNEL
    patch = np.flatnonzero(member)
    rest = in_memory(rows, np.flatnonzero(~member)) if whole else None
    kept = in_memory(rows, patch)
    seconds = time.perf_counter() - begin
    return ImageMembers(patch.astype(np.int32), joined[patch], kept, rest, (0.0, seconds))


def no_members(dim: int) -> ImageMembers:
    """Of an image that is left out."""
    empty = np.empty((0, dim), np.float32)
    return ImageMembers(np.empty(0, np.int32), np.empty(0, np.int64), empty, None, (0.0, 0.0))
