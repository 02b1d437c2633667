"""`select_members` for descriptors that are all in memory: what tests hold against the references."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inreach_fast.method.association import NO_CHANNEL
from inreach_fast.method.channels import ChannelFilters, Members, select_members


class NominalRows(NamedTuple):
    """Patch numbers (image * P + patch, ascending) of the nominal patches, and the channel of each."""

    rows: NDArray[np.int64]
    channel_seed_image: NDArray[np.int64]
    channel_seed_patch: NDArray[np.int64]
    counts: dict[str, int]


def select_nominal(
    descriptors: NDArray[np.float32],
    joined: NDArray[np.int64],
    seed_images: NDArray[np.int64],
    *,
    min_length: int | None,
    max_std: float | None,
) -> NominalRows:
    """The nominal patches of (N * P, D) descriptors; ``joined``, (N, P), is the associator's answer for each image."""
    patches = joined.shape[1]
    is_member = joined != NO_CHANNEL
    is_member[seed_images] = True
    row_of = np.flatnonzero(is_member.ravel())
    members = Members(
        seed_images, patches, is_member.sum(axis=1), row_of % patches, np.ascontiguousarray(joined.ravel()[row_of])
    )
    filters = ChannelFilters(min_length, max_std)
    selection = select_members(members, descriptors[row_of], filters, memory=0)
    channel = selection.channel[selection.nominal]
    return NominalRows(row_of[selection.nominal], seed_images[channel // patches], channel % patches, selection.counts)
