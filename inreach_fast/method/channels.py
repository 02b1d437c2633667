"""From associations to nominal patches: the two channel filters (paper, section 3.3; ALGORITHM section 5).

A channel (s, p), numbered ``slot * P + p`` with ``slot`` the place of s among the seed images, holds seed patch p and
every patch that joined it. For members' rows in memory the filters are `kernels.filter_channels`; rows on disk are read
image by image, with one float64 sum for each channel (`filter_streamed`). Both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..array_types import BoolArray, DoubleArray, FloatArray, IndexArray
from ..errors import NoChannelsError
from ..kernels.registry import cpu_backend
from ..parameters import Parameters
from .association import NO_CHANNEL

FILTER_PARAMETERS = ("span_filter", "spread_filter", "spread_rule", "min_channel_length", "max_channel_std")


class MemberRows(Protocol):
    """(n, D) float32 rows that need not be in memory; ``dim`` is D."""

    dim: int

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop, (stop - start, D); not to be written to."""


@dataclass(frozen=True, eq=False)
class Members:
    """The members of channels before the filters: all patches of the seed images, and all patches that joined.

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

    def whole_image(self, image: int, rows: FloatArray, rest: FloatArray) -> FloatArray:
        """All patches of an image, (P, D), in their order: its members' ``rows`` and the ``rest``."""
        is_member = self.are_members(image)
        out = np.empty((self.patches, rows.shape[1]), dtype=np.float32)
        out[is_member] = rows
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

    def rows_of(self, images: IndexArray) -> IndexArray:
        """The numbers of the members of these images, image by image, int64."""
        counts = self.counts[images]
        ends = np.cumsum(counts)
        return np.repeat(self.starts[images] - (ends - counts), counts) + np.arange(int(counts.sum()))

    def of_images(self, images: IndexArray) -> Members:
        """The members of some of the images, which are renumbered in the order given.

        All seed images are among them, in their order.
        """
        rows = self.rows_of(images)
        place = np.full(len(self.counts), -1, dtype=np.int64)
        place[images] = np.arange(len(images))
        return Members(place[self.seed_images], self.patches, self.counts[images], self.patch[rows], self.joined[rows])


@dataclass(frozen=True)
class ChannelFilters:
    """The two filters.

    Attributes:
        min_length: span filter: a channel needs more members than this; None switches it off.
        max_std, about_mean: spread filter, see `kernels.filter_channels`; None switches it off.
        backend: kernel backend.
    """

    min_length: int | None
    max_std: float | None
    backend: str = "auto"
    about_mean: bool = False

    @classmethod
    def of(cls, p: Parameters) -> ChannelFilters:
        """The filters of a fit's parameters."""
        min_length = p.min_channel_length if p.span_filter else None
        max_std = p.max_channel_std if p.spread_filter else None
        return cls(min_length, max_std, kernels.backend_of(p), p.spread_rule == "about_mean")


@dataclass(frozen=True, eq=False)
class Selection:
    """The filters' result.

    Attributes:
        nominal: bool (n,), which members are nominal.
        channel: int64 (n,), the channel under which each nominal member is stored; meaningless for the others.
        counts: JSON-able counts for the fit's report.
    """

    nominal: BoolArray
    channel: IndexArray
    counts: dict[str, int]


def every_member(members: Members) -> Selection:
    """All members as nominal, under no channel: association="all"."""
    count = len(members)
    counts = {"members": count, "members_kept": count, "nominal": count}
    return Selection(np.ones(count, dtype=bool), np.full(count, NO_CHANNEL, dtype=np.int64), counts)


def select_members(members: Members, rows: FloatArray | MemberRows, filters: ChannelFilters, memory: int) -> Selection:
    """Applies span and spread filter; the members of the channels that are left are nominal.

    With both filters off every seed patch is nominal, and every patch that joined any channel (the ablation's "Base
    InReaCh"). A seed image's patch can be a member of two channels: it is stored once, under its own channel if it
    stays there, otherwise under the other.

    Args:
        rows: the members' rows, (n, D), in memory or read image by image.
        memory: bytes of channel sums at a time, for rows that are not in memory.

    Raises:
        NoChannelsError: nothing is left; the message says what each filter removed.
    """
    own, joined = members.own(), members.joined
    channels = len(members.seed_images) * members.patches
    # Memberships in the members' order: a member's own channel, then the one that it joined.
    both = np.stack([own, joined], axis=1)
    have = both != NO_CHANNEL
    member, channel = np.repeat(np.arange(len(members)), 2)[have.ravel()], both[have]
    min_length, max_std = filters.min_length, filters.max_std
    if isinstance(rows, np.ndarray):
        keep = kernels.filter_channels(
            rows,
            channel,
            min_length=min_length,
            max_std=max_std,
            about_mean=filters.about_mean,
            rows=member,
            backend=filters.backend,
        ).keep
    else:
        keep = filter_streamed(rows, members, member, channel, filters, memory)

    lengths = np.bincount(channel, minlength=channels)
    too_short = 0 if min_length is None else int(np.count_nonzero(lengths <= min_length))
    living = len(np.unique(channel[keep]))
    counts = {
        "associated": int(np.count_nonzero(joined != NO_CHANNEL)),
        "channels_formed": channels,
        "channels_too_short": too_short,
        "channels_spread_out": channels - too_short - living,
        "channels_living": living,
        "members": len(channel),
        "members_kept": int(np.count_nonzero(keep)),
    }
    if not keep.any():
        raise NoChannelsError(
            f"no channel is left of {channels} formed by {counts['associated']} associations: the span filter "
            f"(min_channel_length={min_length}) removed {too_short}, the spread filter (max_channel_std={max_std}) "
            f"{channels - too_short}; {_advice(filters, int(lengths.max(initial=0)), len(members.counts))}"
        )
    kept = np.zeros_like(have)
    kept[have] = keep
    nominal = kept.any(axis=1)
    counts["nominal"] = int(np.count_nonzero(nominal))
    return Selection(nominal, np.where(kept[:, 0], own, joined), counts)


def _advice(filters: ChannelFilters, longest: int, images: int) -> str:
    """What to change where no channel is left; each change alone leaves one. ``longest``: members of the longest."""
    off = "switch the spread filter off (spread_filter=False, --no-spread-filter)"
    if filters.min_length is None or longest > filters.min_length:
        return f"{off}, which removes channels whose members are all about equally far from their mean"
    few = images <= filters.min_length
    span = f"the longest channel has {longest} members (at most one of each image); "
    more = f"give more than {filters.min_length} different images, or " if few else ""
    if filters.max_std is None or filters.about_mean:
        # What the spread filter leaves of the longest channel for certain: see `kernels.filter_channels`.
        share = 1.0 if filters.max_std is None else 1.0 - 1.0 / (1.0 + filters.max_std**2)
        lower = max(0, math.ceil(longest * share) - 1)
        return f"{span}{more}lower min_channel_length (--min-channel-length) to {lower}"
    return f"{span}{more}lower min_channel_length (--min-channel-length) to {max(0, longest - 1)} and {off}"


def filter_streamed(
    rows: MemberRows, members: Members, member: IndexArray, channel: IndexArray, filters: ChannelFilters, memory: int
) -> BoolArray:
    """Which memberships (member, channel) pass both filters, bool; `kernels.filter_channels` for rows on disk.

    Rows are read image by image, at most twice for each ``memory`` bytes of channel sums.
    """
    count = len(members.seed_images) * members.patches
    least = 0 if filters.min_length is None else filters.min_length
    length = np.bincount(channel, minlength=count)
    lives = length > least
    stays = lives[channel]
    if filters.max_std is not None and stays.any():
        distance = _distances(rows, members, lives, length, memory, filters.backend)
        distance = distance[member, (channel != members.joined[member]).astype(np.int64)]
        # bincount adds its weights one by one, in their order: the members', as kernels.filter_channels does.
        some = np.maximum(length, 1)
        mean = np.bincount(channel[stays], distance[stays], count) / some
        off = distance[stays] - mean[channel[stays]]
        sigma = np.sqrt(np.bincount(channel[stays], off * off, count) / some)
        least_limit = mean if filters.about_mean else 0.0
        limit = np.where(sigma > 0.0, least_limit + filters.max_std * sigma, np.inf)
        stays[stays] = distance[stays] < limit[channel[stays]]
    lives &= np.bincount(channel[stays], minlength=count) > least
    return np.asarray(stays & lives[channel])


def _distances(
    rows: MemberRows, members: Members, lives: BoolArray, length: IndexArray, memory: int, backend: str
) -> DoubleArray:
    """Distance of each member to the means of the channel that it joined and of its own, (n, 2); NaN if removed."""
    distance = np.full((len(members), 2), np.nan)
    slots = np.flatnonzero(lives)
    step = max(1, memory // (8 * rows.dim)) if rows.dim else max(1, len(slots))
    own = members.own()
    engine = cpu_backend(backend)  # copying rows to a GPU would take longer
    for first in range(0, len(slots), step):
        part = slots[first : first + step]
        place = np.full(len(lives) + 1, NO_CHANNEL, dtype=np.int64)  # its last entry answers for -1
        place[part] = np.arange(len(part))
        sums = np.zeros((len(part), rows.dim))
        places = place[members.joined], place[own]
        for start, stop, stretch in _by_image(rows, members, places):
            for where in places:
                if (where[start:stop] >= 0).any():
                    engine.add_rows(stretch, where[start:stop], sums)
        sums /= length[part, None]
        for start, stop, stretch in _by_image(rows, members, places):
            for side, where in enumerate(places):
                if (where[start:stop] >= 0).any():
                    found = engine.distances(stretch, where[start:stop], sums)
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
