"""From associations to nominal patches: the two channel filters (paper, section 3.3; ALGORITHM section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import kernels
from .association import NO_CHANNEL
from .errors import NoChannelsError

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NominalRows:
    """Which patches are nominal, and what the filters took.

    Attributes:
        rows: int64 (n,), ascending: patch number ``image * P + patch`` of each nominal patch.
        channel_seed_image, channel_seed_patch: int64 (n,), the channel under which each is stored.
        counts: JSON-able counts for the fit's report.
    """

    rows: IndexArray
    channel_seed_image: IndexArray
    channel_seed_patch: IndexArray
    counts: dict[str, int]


def select_nominal(
    descriptors: FloatArray,
    joined: IndexArray,
    seed_images: IndexArray,
    *,
    min_length: int | None,
    max_std: float | None,
    backend: str = "auto",
) -> NominalRows:
    """Applies span and spread filter; what stays in a living channel is nominal.

    A channel (s, p) holds seed patch p of seed image s and every patch that joined it, so with both filters
    off every seed patch is nominal, and every patch that joined any channel (the ablation's "Base InReaCh").
    A seed image's patch can be a member of two channels: it is stored once, under its own where it stays
    there, else under the other.

    Args:
        descriptors: (N * P, D) float32; read in place, never copied as a whole.
        joined: int64 (N, P), `Associator.associate`'s answer for each image.
        seed_images: int64 (S,), ascending.
        min_length: span filter: a channel lives with more members than this; None switches it off.
        max_std: spread filter: see `kernels.filter_channels`; None switches it off.
        backend: kernel backend.

    Raises:
        NoChannelsError: nothing is left; the message says which filter took how many.
    """
    n_patches = joined.shape[1]
    slots = np.arange(len(seed_images) * n_patches, dtype=np.int64)
    seed_row = seed_images[slots // n_patches] * n_patches + slots % n_patches
    joined_row = np.flatnonzero(joined.ravel() != NO_CHANNEL)
    row = np.concatenate([seed_row, joined_row])
    channel = np.concatenate([slots, joined.ravel()[joined_row]])
    # (image, patch) order, and for a patch in two channels the order of the channels: the filters' sums
    # follow it, so that it must not depend on how the memberships were gathered.
    order = np.lexsort((channel, row))
    row, channel = row[order], channel[order]

    kept = kernels.filter_channels(
        descriptors, channel, min_length=min_length, max_std=max_std, rows=row, backend=backend
    )
    lengths = np.bincount(channel, minlength=len(slots))
    too_short = 0 if min_length is None else int(np.count_nonzero(lengths <= min_length))
    counts = {
        "associated": len(joined_row),
        "channels_formed": len(slots),
        "channels_too_short": too_short,
        "channels_spread_out": len(slots) - too_short - len(kept.channels),
        "channels_living": len(kept.channels),
        "members": len(row),
        "members_kept": int(np.count_nonzero(kept.keep)),
    }
    row, channel = row[kept.keep], channel[kept.keep]
    if not len(row):
        raise NoChannelsError(
            f"no channel is left of {len(slots)} formed by {len(joined_row)} associations: the span filter "
            f"(min_channel_length={min_length}) took {counts['channels_too_short']}, the spread filter "
            f"(max_channel_std={max_std}) {counts['channels_spread_out']}. Give more images, or lower "
            "min_channel_length (a channel has at most one member an image), or raise max_channel_std"
        )
    # Own channel first among a patch's memberships, then the first of each patch.
    own = seed_row[channel] == row
    order = np.lexsort((~own, row))
    row, channel = row[order], channel[order]
    first = np.ones(len(row), dtype=bool)
    first[1:] = row[1:] != row[:-1]
    row, channel = row[first], channel[first]
    counts["nominal"] = len(row)
    return NominalRows(row, seed_images[channel // n_patches], channel % n_patches, counts)
