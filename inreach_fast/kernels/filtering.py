"""The two filters of channels: span and spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array_types import BoolArray, DoubleArray, IndexArray
from ..errors import ParameterError
from .bank import as_float32, as_ids, check_finite, check_index
from .gpu.arrays import Call, GpuMembers, call_for
from .registry import backends


@dataclass(frozen=True)
class ChannelFilterResult:
    """What passes the filters.

    Attributes:
        keep: bool (n,), the members kept: those of kept channels that passed the spread filter.
        channels: int64 (c,), ids of the kept channels, ascending.
        length: int64 (c,), kept members of each.
        sigma: float64 (c,), standard deviation of the distances to the mean, over all members
            before the spread filter, in units of the descriptors.
    """

    keep: BoolArray
    channels: IndexArray
    length: IndexArray
    sigma: DoubleArray


def filter_channels(
    members: Any,
    channel: Any,
    *,
    min_length: int | None,
    max_std: float | None,
    about_mean: bool = False,
    rows: Any = None,
    backend: str = "auto",
) -> ChannelFilterResult:
    """The span and the spread filter of the paper (section 3.3; ALGORITHM section 5).

    Span: a channel is kept if it has more than ``min_length`` members. Spread: with mu the mean of a
    channel's members and sigma the population standard deviation of their distances to it, a member is kept
    if its distance is below ``max_std * sigma``. The span test is then repeated. Where all members
    are equally far from the mean (sigma 0, as in a channel of identical patches) all of them are kept: a literal
    ``<`` would drop the most regular channels.

    sigma is the deviation of the distances about their own mean, so that a channel whose members are nearly equally
    far from mu, as is usual in a thousand dimensions, is dropped whole. With ``about_mean`` a distance is therefore
    compared with ``mean distance + max_std * sigma``: by Cantelli's inequality at most one member in
    1 + max_std**2 is then dropped, and never all of a channel.

    All sums are float64 in the members' order, so every backend and thread count gives the same bits.

    Args:
        members: (N, D) float32 or anything convertible without loss.
        channel: int64 (n,), the channel of each member, or -1 for none; any ids >= 0, in any order.
        min_length: span filter, a whole number >= 0; None switches it off.
        max_std: spread filter, > 0; None switches it off.
        about_mean: compare a distance with the channel's mean distance + max_std * sigma, instead of max_std * sigma.
        rows: int64 (n,), optional: member i is ``members[rows[i]]``, so that a subset needs no copy and a row
            can be in two channels. Without it n = N and member i is ``members[i]``.
        backend: "auto" or one of `available_backends`.

    Members on a GPU (torch, CuPy, anything with DLPack) are read there, in place.

    Returns:
        `ChannelFilterResult`, in the CPU's memory. Beyond its inputs it takes a few values for each member and one
        mean for each thread.

    Raises:
        ParameterError: wrong type, shape or range. NonFiniteError: a row that is in a channel holds NaN or
        infinity. BackendError: unknown backend, or not usable here.
    """
    call = None if isinstance(members, np.ndarray) else call_for(backend, members)
    on_gpu = GpuMembers(call, members) if isinstance(call, Call) else None
    engine = backends[backend] if on_gpu is None else on_gpu
    members = as_float32(members, "members") if on_gpu is None else on_gpu
    if rows is None:
        channel = as_ids(channel, "channel", len(members))
        row_of = np.arange(len(members), dtype=np.int64)
    else:
        row_of = as_ids(rows, "rows")
        check_index(row_of, len(members), "rows")
        channel = as_ids(channel, "channel", len(row_of))
    if channel.size and int(channel.min()) < -1:
        raise ParameterError(f"channel: ids are 0 and above, or -1 for none; got {channel.min()}")
    _check_limits(min_length, max_std)

    # Members of one channel side by side, each channel's in their own order.
    member = np.flatnonzero(channel >= 0)
    if on_gpu is None:
        check_finite(members, "members", row_of[member])
    else:
        on_gpu.check_finite(row_of[member])
    member = member[np.argsort(channel[member], kind="stable")]
    ids, length = np.unique(channel[member], return_counts=True)
    if min_length is not None:
        kept = length > min_length
        member = member[np.repeat(kept, length)]
        ids, length = ids[kept], length[kept]
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(length, out=starts[1:])

    if len(ids) == 0 or members.shape[1] == 0:
        distance, sigma = np.zeros(len(member)), np.zeros(len(ids))
    else:
        distance, sigma = engine.channel_spread(members, row_of[member], starts)
    stays = np.ones(len(member), np.bool_)
    if max_std is not None:
        mean = np.zeros(len(ids))
        if about_mean and len(ids):
            # bincount adds the distances one by one, in the members' order.
            mean = np.bincount(np.repeat(np.arange(len(ids)), length), distance, len(ids)) / length
        limit = np.where(sigma > 0.0, mean + float(max_std) * sigma, np.inf)
        stays = distance < np.repeat(limit, length)
    if len(ids):
        length = np.add.reduceat(stays, starts[:-1], dtype=np.int64)
    kept = length > (0 if min_length is None else min_length)
    stays &= np.repeat(kept, np.diff(starts))

    keep = np.zeros(len(channel), np.bool_)
    keep[member[stays]] = True
    return ChannelFilterResult(keep, ids[kept], length[kept].astype(np.int64), sigma[kept])


def _check_limits(min_length: Any, max_std: Any) -> None:
    if min_length is not None and (
        isinstance(min_length, bool) or not isinstance(min_length, (int, np.integer)) or min_length < 0
    ):
        raise ParameterError(f"min_length: expected a whole number of at least 0, or None, got {min_length!r}")
    if max_std is None:
        return
    is_number = isinstance(max_std, (int, float, np.integer, np.floating)) and not isinstance(max_std, bool)
    if not is_number or not math.isfinite(max_std) or max_std <= 0:
        raise ParameterError(f"max_std: expected a number above 0, or None, got {max_std!r}")
