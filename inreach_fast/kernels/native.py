"""The compiled CPU engine, `inreach_fast._core`, as a backend."""

from __future__ import annotations

from .. import _core
from .bank import Bank
from .results import IndexArray, MutualNearest, Nearest


def nearest(queries: Bank, bank: Bank, k: int, query_group: IndexArray | None) -> Nearest:
    """See `inreach_fast.kernels.nearest`."""
    bank_group = None if query_group is None else bank.groups
    index, sq_distance = _core.nearest(
        queries.rows, queries.index, query_group, bank.rows, bank.index, bank_group, k
    )
    return Nearest(index, sq_distance)


def mutual_nearest(a: Bank, b: Bank) -> MutualNearest:
    """See `inreach_fast.kernels.mutual_nearest`."""
    forward = nearest(a, b, 1, None)
    backward = nearest(b, a, 1, None)
    return MutualNearest(
        forward.index[:, 0], forward.sq_distance[:, 0], backward.index[:, 0], backward.sq_distance[:, 0]
    )
