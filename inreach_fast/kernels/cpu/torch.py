"""A backend of torch operations, for machines that have neither the compiled extension nor numba.

A tile of queries times bank rows is one float32 matrix product, the filter of `float32_filter`; what it
leaves is decided in float64 by elementwise operations alone, which round in the same way everywhere. No array grows
with m * n: tiles are of fixed size, and the pairs to decide are taken a few megabytes at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...array_types import DoubleArray, FloatArray, IndexArray
from ...system.threads import before_torch
from ..bank import Bank
from ..distance import exact_sq_distance
from .float32_filter import STRETCH, FilterBackend, FilterFrame, framed_rows

_TILE_QUERIES = 512
_TILE_ROWS = 4096
_DECIDE_BYTES = 32 << 20
_pid = os.getpid()


class TorchBackend(FilterBackend):
    """torch operations."""

    name = "torch"

    def product_loss(self) -> float:
        """With any of torch's switches for TF32 or bfloat16 on, both factors may lose all but 8 bits (or be cut)."""
        backends: Any = torch.backends
        switches = [torch.get_float32_matmul_precision() == "highest", not backends.cuda.matmul.allow_tf32]
        for owner in (backends, backends.cuda.matmul, getattr(backends.mkldnn, "matmul", None)):
            switches.append(getattr(owner, "fp32_precision", "ieee") in ("ieee", "none"))
        return 0.0 if all(switches) else 2.0**-6

    def decide(self, queries: Bank, bank: Bank, frame: FilterFrame, index: IndexArray, sq_distance: DoubleArray) -> int:
        m, n = len(queries), len(bank)
        kept = min(sq_distance.shape[1], n)
        decided = 0
        with _plain():
            for first in range(0, m, _TILE_QUERIES):
                stop = min(first + _TILE_QUERIES, m)
                original, tile, length, low = _part(queries, frame, first, stop)
                best = _RunningNearest(index[first:stop, :kept], sq_distance[first:stop, :kept])
                for start in range(0, n, _TILE_ROWS):
                    end = min(start + _TILE_ROWS, n)
                    b_original, b_tile, b_length, b_low = _part(bank, frame, start, end)
                    value = torch.mm(tile, b_tile.T).mul_(-2.0).add_(low[:, None]).add_(b_low[None, :])  # `low`
                    if queries.groups is not None and bank.groups is not None:
                        same = queries.groups[first:stop, None] == bank.groups[None, start:end]
                        value.masked_fill_(torch.from_numpy(same), torch.inf)
                    scale = STRETCH * frame.scale * frame.scale
                    floor = None if bank.floor is None else bank.floor[start:end].astype(np.float64)
                    limit = torch.from_numpy(best.distance[:, -1] * scale + frame.floor)  # P1, for the k-th best
                    if kept <= end - start:
                        limit = torch.minimum(limit, _achieved(value, length, b_length, floor, kept, frame))
                    # Rounded up to float32; the filter's floor is far above what is lost where that is subnormal.
                    rounded = (limit * (1.0 + 2.0**-22)).float()
                    wanted = ((value <= rounded[:, None]) & (value < torch.inf)).numpy()
                    if floor is not None:
                        wanted &= floor <= np.minimum(best.distance[:, -1:], np.finfo(np.float64).max)
                    row, column = np.nonzero(wanted)
                    step = max(1, _DECIDE_BYTES // (8 * bank.dim))
                    for i in range(0, len(row), step):
                        r, c = row[i : i + step], column[i : i + step]
                        distance = exact_sq_distance(original[r], b_original[c])
                        best.merge(r, c + start, distance if floor is None else np.maximum(distance, floor[c]))
                    decided += len(row)
        return decided


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """No autograd and no autocast; in a forked child, no intra-op threads: OpenMP's do not survive a fork."""
    if os.getpid() != _pid and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    before_torch(torch.get_num_threads())
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        yield


def _part(
    bank: Bank, frame: FilterFrame, first: int, stop: int
) -> tuple[FloatArray, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`framed_rows`, and (1 - e) A in float32."""
    original, framed, length = framed_rows(bank, frame, first, stop)
    low = (length * (1.0 - frame.error)).astype(np.float32)
    return original, torch.from_numpy(framed), torch.from_numpy(length), torch.from_numpy(low)


@dataclass
class _RunningNearest:
    """The k best bank rows of each row so far, (rows, k): ties to the lowest index."""

    index: IndexArray
    distance: DoubleArray

    def merge(self, row: IndexArray, index: IndexArray, distance: DoubleArray) -> None:
        """Take in decided pairs. They come by ascending index, after all pairs of a lower index."""
        k = self.distance.shape[1]
        touched, local = np.unique(row, return_inverse=True)
        owner = np.concatenate([np.repeat(np.arange(len(touched)), k), local.reshape(-1)])
        value = np.concatenate([self.distance[touched].reshape(-1), distance])
        number = np.concatenate([self.index[touched].reshape(-1), index])
        order = np.lexsort((value, owner))  # stable: on ties what stood before stays before
        first = np.searchsorted(owner[order], np.arange(len(touched)))
        take = order[first[:, None] + np.arange(k)]
        self.distance[touched], self.index[touched] = value[take], number[take]


def _achieved(
    low: torch.Tensor, length: torch.Tensor, other: torch.Tensor, floor: DoubleArray | None, k: int, frame: FilterFrame
) -> torch.Tensor:
    """A limit in the sense of P1 that k pairs of each row of the tile keep for certain, by P2."""
    value, column = torch.topk(low, k, dim=1, largest=False)
    upper = value.double() + 2.0 * frame.error * (length[:, None] + other[column])
    if floor is not None:
        upper = torch.maximum(upper, torch.from_numpy(floor * frame.scale**2)[column])
    worst = upper.max(dim=1).values
    return STRETCH * (STRETCH * worst + frame.floor) + frame.floor
