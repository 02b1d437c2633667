"""Which images a fit learns from, and in which order: each content once, and in an order that the content decides.

Images with the same network input (or the same descriptors) are one image: a copy would confirm its original's patches,
and a leave-one-image-out score against it would be 0. Numbers of images appear in two ways:

    number   of an image as it was given, from 0; everything that a user sees
    place    of a content in the arrangement, from 0; images that are copies of each other share one

Sums, ties and random choices of a fit depend on places only. With `CONTENT` a place depends on what the images show, so
that neither their order nor their names change a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..array_types import IndexArray, UInt8Array
from ..parameters import Parameters

CONTENT: Final = "content"
"""Places in the order of the images' digests."""
GIVEN: Final = "given"
"""Places in the order of the numbers; ``assoc_pairs="later"`` refers to it."""
EVERY: Final = "every"
"""Each image has a place of its own, its number: models that were saved before copies were merged."""
ORDERS: Final = (CONTENT, GIVEN, EVERY)


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The places of images.

    Attributes:
        order: `CONTENT`, `GIVEN` or `EVERY`.
        place: int64 (N,), of each image.
    """

    order: str
    place: IndexArray

    @classmethod
    def of(cls, digests: UInt8Array, order: str) -> Arrangement:
        """The arrangement of images with these digests, uint8 (N, 32)."""
        if order == EVERY:
            return cls(order, np.arange(len(digests), dtype=np.int64))
        keys = [digest.tobytes() for digest in digests]
        contents = dict.fromkeys(keys)  # in the order of their first images
        place = {key: i for i, key in enumerate(sorted(contents) if order == CONTENT else contents)}
        return cls(order, np.array([place[key] for key in keys], dtype=np.int64))

    @cached_property
    def first(self) -> IndexArray:
        """The lowest number at each place, int64 (M,)."""
        return np.unique(self.place, return_index=True)[1].astype(np.int64)

    @property
    def originals(self) -> IndexArray:
        """The lowest number of an image with the same content, for each image, int64 (N,)."""
        return self.first[self.place]

    def is_valid(self, images: int) -> bool:
        """Whether this can be the arrangement of so many images: each place from 0 on has one."""
        found = np.unique(self.place)
        return self.place.shape == (images,) and np.array_equal(found, np.arange(len(found)))

    def __len__(self) -> int:
        """Places."""
        return len(self.first)


def order_of(p: Parameters) -> str:
    """How a fit with these parameters arranges its images."""
    return CONTENT if p.assoc_pairs == "all" else GIVEN


def ranked_images(digests: UInt8Array, random_state: int, purpose: bytes = b"") -> IndexArray:
    """All images in the order in which they are drawn for a purpose, int64 (N,).

    They are sorted by the sha256 of the purpose, ``random_state`` and the image's digest, ties by image number. So the
    draw depends on what an image shows and not on its number, and one more image or one less changes a sample by one.

    Args:
        digests: uint8 (N, 32), sha256 of each image's bytes.
        random_state: the seed. purpose: draws for different purposes are independent.
    """
    start = purpose + random_state.to_bytes(8, "little")
    keys = [hashlib.sha256(start + digest.tobytes()).digest() for digest in digests]
    return np.array(sorted(range(len(keys)), key=lambda i: (keys[i], i)), dtype=np.int64)


def choose_seeds(
    arrangement: Arrangement, digests: UInt8Array, depth: int, selection: str, random_state: int
) -> IndexArray:
    """The places of the seed images, ascending, int64 (min(depth, M),).

    Args:
        digests: of all images, (N, 32). depth: how many.
        selection: "first", the images with the lowest numbers, or "random", drawn by content and ``random_state``.
    """
    first = arrangement.first
    ranked = np.argsort(first) if selection == "first" else ranked_images(digests[first], random_state, b"seeds")
    return np.sort(ranked[:depth]).astype(np.int64)


def reference_number(arrangement: Arrangement, seeds: IndexArray, selection: str) -> int:
    """The number of the image that alignment rotates the others to.

    It is a seed image, so that it does not change while a model grows: the first one by number if the first images are
    the seeds (supplement D: the first image), otherwise by place.
    """
    if arrangement.order == EVERY:
        return 0
    return int(arrangement.first[seeds].min() if selection == "first" else arrangement.first[seeds[0]])


def copies(arrangement: Arrangement, names: Sequence[str]) -> list[tuple[str, str]]:
    """(name of an image, name of the first image with the same content) of each image that is a copy."""
    return [(names[i], names[j]) for i, j in enumerate(arrangement.originals.tolist()) if i != j]
