"""From associations to nominal patches: the two channel filters (paper, section 3.3; ALGORITHM section 5).

A channel (s, p), numbered ``slot * P + p`` with ``slot`` the place of s among the seed images, holds seed patch p and
every patch that joined it. Where the members' rows are in memory, `kernels.filter_channels` looks at them all at once;
where they lie on disk, the filters go over them image by image and keep one float64 sum a channel (`spread_streamed`).
Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..array_types import BoolArray, DoubleArray, FloatArray, IndexArray
from ..errors import NoChannelsError
from ..kernels import channel_sums
from .association import NO_CHANNEL

FILTER_PARAMETERS = ("span_filter", "spread_filter", "min_channel_length", "max_channel_std")


class MemberRows(Protocol):
    """(n, D) float32 rows that need not be in memory; ``dim`` is D."""

    dim: int

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop, (stop - start, D); not to be written to."""


@dataclass(frozen=True, eq=False)
class Members:
    """Every patch that is a member of a channel before the filters: the seed images' patches, and all that joined.

    Attributes:
        seed_images: int64 (S,), ascending.
        patches: P, patches of an image.
        counts: int64 (N,), members of each image.
        patch: int64 or int32 (n,), patch number of each member, in (image, patch) order.
        joined: int64 (n,), the channel that it joined, or -1 (a seed image's patch that joined none).
    """

    seed_images: IndexArray
    patches: int
    counts: IndexArray
    patch: npt.NDArray[np.integer]
    joined: IndexArray

    def __len__(self) -> int:
        return len(self.patch)

    @property
    def image(self) -> IndexArray:
        """Training image of each member, int64 (n,)."""
        return np.repeat(np.arange(len(self.counts), dtype=np.int64), self.counts)

    @cached_property
    def starts(self) -> IndexArray:
        """Where each image's members begin, int64 (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def span(self, image: int) -> tuple[int, int]:
        """(first member, last member + 1) of an image."""
        first, last = self.starts[image : image + 2].tolist()
        return first, last

    def own(self) -> IndexArray:
        """The channel that each member founds, int64 (n,), -1 for patches of other images than the seeds."""
        own = np.full(len(self), NO_CHANNEL, dtype=np.int64)
        for slot, image in enumerate(self.seed_images.tolist()):
            first, last = self.span(image)
            own[first:last] = slot * self.patches + self.patch[first:last]
        return own

    def are_members(self, image: int) -> BoolArray:
        """Which patches of an image are members, bool (P,)."""
        first, last = self.span(image)
        out = np.zeros(self.patches, dtype=bool)
        out[self.patch[first:last]] = True
        return out

    def rest_span(self, images: IndexArray, image: int) -> tuple[int, int]:
        """(start, stop) of an image's other patches in an array that has those of ``images`` (ascending), in order."""
        lengths = self.patches - self.counts[images]
        ends, place = np.cumsum(lengths), int(np.searchsorted(images, image))
        return int(ends[place] - lengths[place]), int(ends[place])

    def whole_image(self, rows: MemberRows, image: int, rest: FloatArray) -> FloatArray:
        """All patches of an image, (P, D): its members' rows and the others, ``rest``, in patch order."""
        is_member = self.are_members(image)
        out = np.empty((self.patches, rows.dim), dtype=np.float32)
        out[is_member] = rows.read(*self.span(image))
        out[~is_member] = rest
        return out

    def seed_rows(self, rows: MemberRows) -> FloatArray:
        """The seed images' descriptors, (S, P, D): all their patches are members."""
        out = np.empty((len(self.seed_images), self.patches, rows.dim), np.float32)
        for slot, image in enumerate(self.seed_images.tolist()):
            out[slot] = rows.read(*self.span(image))
        return out

    def extended(self, others: Members) -> Members:
        """These members, then those of further images."""
        return Members(
            self.seed_images,
            self.patches,
            np.concatenate([self.counts, others.counts]),
            np.concatenate([self.patch, others.patch]),
            np.concatenate([self.joined, others.joined]),
        )

    def of_images(self, images: IndexArray) -> Members:
        """The members of some of the images (ascending, all seed images among them), which are numbered anew."""
        stays = np.repeat(np.isin(np.arange(len(self.counts)), images), self.counts)
        return Members(
            np.searchsorted(images, self.seed_images).astype(np.int64),
            self.patches,
            self.counts[images],
            self.patch[stays],
            self.joined[stays],
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """Which members are nominal, and what the filters took.

    Attributes:
        nominal: bool (n,), by member.
        channel: int64 (n,), the channel under which each nominal member is stored; of the others meaningless.
        counts: JSON-able counts for the fit's report.
    """

    nominal: BoolArray
    channel: IndexArray
    counts: dict[str, int]


Spread = Callable[[IndexArray, IndexArray], BoolArray]
"""(member, channel) of each membership, in the members' order -> which memberships pass both filters."""


def select_members(members: Members, spread: Spread, *, min_length: int | None, max_std: float | None) -> Selection:
    """Applies span and spread filter; what stays in a living channel is nominal.

    With both filters off every seed patch is nominal, and every patch that joined any channel (the ablation's "Base
    InReaCh"). A seed image's patch can be a member of two channels: it is stored once, under its own where it stays
    there, else under the other.

    Args:
        members: all of them.
        spread: applies the filters, `spread_in_memory` or `spread_streamed`.
        min_length, max_std: those of ``spread``, for the report.

    Raises:
        NoChannelsError: nothing is left; the message says which filter took how many.
    """
    own, joined = members.own(), members.joined
    channels = len(members.seed_images) * members.patches
    # A member's own channel beside the one that it joined, so that memberships are in the members' order.
    both = np.stack([own, joined], axis=1)
    have = both != NO_CHANNEL
    member, channel = np.repeat(np.arange(len(members)), 2)[have.ravel()], both[have]
    keep = spread(member, channel)

    lengths = np.bincount(channel, minlength=channels)
    too_short = 0 if min_length is None else int(np.count_nonzero(lengths <= min_length))
    living = len(np.unique(channel[keep]))
    associated = int(np.count_nonzero(joined != NO_CHANNEL))
    counts = {
        "associated": associated,
        "channels_formed": channels,
        "channels_too_short": too_short,
        "channels_spread_out": channels - too_short - living,
        "channels_living": living,
        "members": len(channel),
        "members_kept": int(np.count_nonzero(keep)),
    }
    if not keep.any():
        raise NoChannelsError(
            f"no channel is left of {channels} formed by {associated} associations: the span filter "
            f"(min_channel_length={min_length}) took {counts['channels_too_short']}, the spread filter "
            f"(max_channel_std={max_std}) {counts['channels_spread_out']}. Give more images, or lower "
            "min_channel_length (a channel has at most one member an image), or raise max_channel_std"
        )
    kept = np.zeros_like(have)
    kept[have] = keep
    nominal = kept.any(axis=1)
    counts["nominal"] = int(np.count_nonzero(nominal))
    return Selection(nominal, np.where(kept[:, 0], own, joined), counts)


def spread_in_memory(rows: FloatArray, *, min_length: int | None, max_std: float | None, backend: str) -> Spread:
    """The filters over the members' rows, (n, D), in memory."""

    def spread(member: IndexArray, channel: IndexArray) -> BoolArray:
        return kernels.filter_channels(
            rows, channel, min_length=min_length, max_std=max_std, rows=member, backend=backend
        ).keep

    return spread


def spread_streamed(
    rows: MemberRows,
    members: Members,
    *,
    min_length: int | None,
    max_std: float | None,
    memory: int,
    backend: str,
) -> Spread:
    """The filters over rows that are read image by image, each at most twice for each ``memory`` bytes of sums."""

    def spread(member: IndexArray, channel: IndexArray) -> BoolArray:
        count = len(members.seed_images) * members.patches
        length = np.bincount(channel, minlength=count)
        lives = length > (0 if min_length is None else min_length)
        stays = lives[channel]
        if max_std is not None and stays.any():
            distance = _distances(rows, members, lives, length, memory, backend)
            distance = distance[member, (channel != members.joined[member]).astype(np.int64)]
            # bincount adds its weights one by one, in their order: the members', as kernels.filter_channels does.
            some = np.maximum(length, 1)
            mean = np.bincount(channel[stays], distance[stays], count) / some
            off = distance[stays] - mean[channel[stays]]
            sigma = np.sqrt(np.bincount(channel[stays], off * off, count) / some)
            limit = np.where(sigma > 0.0, max_std * sigma, np.inf)
            stays[stays] = distance[stays] < limit[channel[stays]]
        left = np.bincount(channel[stays], minlength=count)
        lives &= left > (0 if min_length is None else min_length)
        return np.asarray(stays & lives[channel])

    return spread


def _distances(
    rows: MemberRows, members: Members, lives: BoolArray, length: IndexArray, memory: int, backend: str
) -> DoubleArray:
    """Distance of each member to the means of the channel that it joined and of its own, (n, 2); NaN where dead."""
    distance = np.full((len(members), 2), np.nan)
    slots = np.flatnonzero(lives)
    step = max(1, memory // (8 * rows.dim)) if rows.dim else max(1, len(slots))
    own = members.own()
    for first in range(0, len(slots), step):
        part = slots[first : first + step]
        place = np.full(len(lives) + 1, NO_CHANNEL, dtype=np.int64)  # its last entry answers for -1
        place[part] = np.arange(len(part))
        sums = np.zeros((len(part), rows.dim))
        places = place[members.joined], place[own]
        for start, stop, stretch in _by_image(rows, members, places):
            for where in places:
                if (where[start:stop] >= 0).any():
                    channel_sums.add_rows(stretch, where[start:stop], sums, backend=backend)
        sums /= length[part, None]
        for start, stop, stretch in _by_image(rows, members, places):
            for side, where in enumerate(places):
                if (where[start:stop] >= 0).any():
                    found = channel_sums.distances(stretch, where[start:stop], sums, backend=backend)
                    here = where[start:stop] >= 0
                    distance[start:stop, side][here] = found[here]
    return distance


def _by_image(
    rows: MemberRows, members: Members, places: tuple[IndexArray, IndexArray]
) -> Iterator[tuple[int, int, FloatArray]]:
    """(first member, last member + 1, their rows) of each image that has a member in any place."""
    starts = members.starts.tolist()
    for start, stop in pairwise(starts):
        if any((where[start:stop] >= 0).any() for where in places):
            yield start, stop, rows.read(start, stop)
