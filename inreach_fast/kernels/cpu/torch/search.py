"""Search and filters in torch operations, for any torch device.

A tile of queries times bank rows is one float32 matrix product, the filter of `float32_filter`; what it
leaves is decided in float64 by elementwise operations alone, which round in the same way on every device. A
device without float64 (Apple's) leaves the decisions to the CPU. No array grows with m * n: tiles are of
fixed size, and the pairs to decide are taken a few megabytes at a time.

The device is the CPU, or where `on_device` says, for the calling thread:

    with torch_backend.on_device("cuda"):
        nearest(queries, bank, backend="torch")
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ....array_types import DoubleArray, FloatArray, IndexArray
from ....errors import BackendError
from ...bank import Bank
from ...results import MutualNearest, Nearest, SearchCounts
from ..float32_filter import STRETCH, Frame, make_frame

_TILE_QUERIES = 512
_TILE_ROWS = 4096
_DECIDE_BYTES = 32 << 20
_LANES = 16

_local = threading.local()
_CPU = torch.device("cpu")


# ------------------------------------------------------------------------------- devices and their state


@contextlib.contextmanager
def on_device(device: str | torch.device) -> Iterator[None]:
    """Run this backend's kernels on ``device`` for as long as the context lasts, in the calling thread.

    Raises:
        BackendError: torch does not know the device, or it is not there.
    """
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"device: torch cannot use {device!r} here: {error}") from error
    before = _device()
    _local.device = chosen
    try:
        yield
    finally:
        _local.device = before


def _device() -> torch.device:
    device: torch.device = getattr(_local, "device", _CPU)
    return device


@contextlib.contextmanager
def _plain(device: torch.device) -> Iterator[None]:
    """No autograd and no autocast; in a forked child, no intra-op threads: OpenMP's do not survive a fork."""
    if os.getpid() != _pid and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield


_pid = os.getpid()


def _product_loss() -> float:
    """Relative error that torch's settings allow a float32 product of two numbers before it is summed.

    With any of its switches for TF32 or bfloat16 on, both factors may lose all but 8 bits (or be cut).
    """
    backends: Any = torch.backends
    switches = [torch.get_float32_matmul_precision() == "highest", not backends.cuda.matmul.allow_tf32]
    for owner in (backends, backends.cuda.matmul, getattr(backends.mkldnn, "matmul", None)):
        switches.append(getattr(owner, "fp32_precision", "ieee") in ("ieee", "none"))
    return 0.0 if all(switches) else 2.0**-6


# ------------------------------------------------------------------------------------------------ search


class _Side:
    """One set of rows: its original rows for decisions, its tiles in the frame for the filter."""

    def __init__(self, bank: Bank, frame: Frame, device: torch.device) -> None:
        self._rows = bank.rows
        self._index = bank.index
        self._frame = frame
        self._device = device
        self.decide_on = device if device.type != "mps" else _CPU

    def original(self, first: int, stop: int) -> torch.Tensor:
        """Rows first..stop-1 as they are, on the device that decides."""
        chosen = self._rows[first:stop] if self._index is None else self._rows[self._index[first:stop]]
        if not chosen.flags.writeable:  # torch would warn about a memory-mapped model; nothing writes here
            chosen = chosen.copy()
        return torch.from_numpy(chosen).to(self.decide_on)

    def tile(self, original: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows in the frame; their squared lengths A (float64); (1 - e) A in float32."""
        centre = torch.from_numpy(self._frame.centre).to(self.decide_on)
        rows = ((original.double() - centre) * self._frame.scale).float()
        length = rows.double().square().sum(dim=1)
        low = (length * (1.0 - self._frame.error)).float()
        return rows.to(self._device), length, low.to(self._device)


class _Best:
    """The k best bank rows of each row so far: float64 distance and index, ties to the lowest index."""

    def __init__(self, rows: int, k: int, device: torch.device) -> None:
        self.distance = torch.full((rows, k), torch.inf, dtype=torch.float64, device=device)
        self.index = torch.full((rows, k), -1, dtype=torch.int64, device=device)

    def merge(self, row: torch.Tensor, index: torch.Tensor, distance: torch.Tensor) -> None:
        """Take in decided pairs. They come by ascending index, after all pairs of a lower index."""
        k = self.distance.shape[1]
        touched, local = torch.unique(row, return_inverse=True)
        own = torch.arange(len(touched), device=row.device).repeat_interleave(k)
        # Stable sorts, by distance and then by row, of (what stood before, what came): ties keep that order.
        owner = torch.cat([own, local])
        value = torch.cat([self.distance[touched].reshape(-1), distance])
        where = torch.cat([self.index[touched].reshape(-1), index])
        value, order = torch.sort(value, stable=True)
        owner, by_owner = torch.sort(owner[order], stable=True)
        value, where = value[by_owner], where[order][by_owner]
        starts = torch.searchsorted(owner, torch.arange(len(touched), device=row.device))
        take = starts[:, None] + torch.arange(k, device=row.device)
        self.distance[touched] = value[take]
        self.index[touched] = where[take]

    def limit(self, frame: Frame) -> torch.Tensor:
        """(1 + 2t) s^2 best + f of P1, for the k-th best; shape (rows,)."""
        return self.distance[:, -1] * (STRETCH * frame.scale * frame.scale) + frame.floor


def nearest(queries: Bank, bank: Bank, k: int, query_group: IndexArray | None) -> Nearest:
    """See `inreach_fast.kernels.nearest`."""
    m, n = len(queries), len(bank)
    index = np.full((m, k), -1, np.int64)
    sq_distance = np.full((m, k), np.inf, np.float32)
    grouped = query_group is not None and bank.groups is not None
    kept = min(k, n)
    device = _device()
    frame = make_frame(queries, bank, _product_loss())
    q_side, b_side = _Side(queries, frame, device), _Side(bank, frame, device)
    decided = 0
    with _plain(device):
        for first in range(0, m, _TILE_QUERIES):
            stop = min(first + _TILE_QUERIES, m)
            original = q_side.original(first, stop)
            tile, length, low = q_side.tile(original)
            best = _Best(stop - first, kept, q_side.decide_on)
            for start in range(0, n, _TILE_ROWS):
                end = min(start + _TILE_ROWS, n)
                b_original = b_side.original(start, end)
                b_tile, b_length, b_low = b_side.tile(b_original)
                value = _low(tile, low, b_tile, b_low)
                if grouped and query_group is not None and bank.groups is not None:
                    same = query_group[first:stop, None] == bank.groups[None, start:end]
                    value.masked_fill_(torch.from_numpy(same).to(device), torch.inf)
                limit = best.limit(frame)
                if kept <= end - start:
                    limit = torch.minimum(limit, _achieved(value, length, b_length, kept, frame))
                wanted = (value <= _round_up(limit, device)[:, None]) & (value < torch.inf)
                row, column = (x.to(q_side.decide_on) for x in torch.nonzero(wanted, as_tuple=True))
                for part in _pieces(len(row), tile.shape[1]):
                    r, c = row[part], column[part]
                    best.merge(r, c + start, _sq_distance(original[r], b_original[c]))
                decided += len(row)
            index[first:stop, :kept] = best.index.cpu().numpy()
            sq_distance[first:stop, :kept] = best.distance.float().cpu().numpy()
    return Nearest(index, sq_distance, SearchCounts(m * n, 0, m * n, decided, brute_force=True))


def mutual_nearest(a: Bank, b: Bank) -> MutualNearest:
    """See `inreach_fast.kernels.mutual_nearest`."""
    m, n = len(a), len(b)
    device = _device()
    frame = make_frame(a, b, _product_loss())
    a_side, b_side = _Side(a, frame, device), _Side(b, frame, device)
    decided = 0
    with _plain(device):
        forward = _Best(m, 1, a_side.decide_on)
        backward = _Best(n, 1, a_side.decide_on)
        for first in range(0, m, _TILE_QUERIES):
            stop = min(first + _TILE_QUERIES, m)
            a_original = a_side.original(first, stop)
            a_tile, a_length, a_low = a_side.tile(a_original)
            for start in range(0, n, _TILE_ROWS):
                end = min(start + _TILE_ROWS, n)
                b_original = b_side.original(start, end)
                b_tile, b_length, b_low = b_side.tile(b_original)
                value = _low(a_tile, a_low, b_tile, b_low)
                across = torch.minimum(forward.limit(frame)[first:stop], _achieved(value, a_length, b_length, 1, frame))
                down = torch.minimum(backward.limit(frame)[start:end], _achieved(value.T, b_length, a_length, 1, frame))
                wanted = value <= _round_up(across, device)[:, None]
                wanted |= value <= _round_up(down, device)[None, :]
                row, column = (x.to(a_side.decide_on) for x in torch.nonzero(wanted, as_tuple=True))
                for part in _pieces(len(row), a_tile.shape[1]):
                    r, c = row[part], column[part]
                    distance = _sq_distance(a_original[r], b_original[c])
                    forward.merge(r + first, c + start, distance)
                    backward.merge(c + start, r + first, distance)
                decided += len(row)
        ab_index, ab_distance = (x[:, 0].cpu().numpy() for x in (forward.index, forward.distance.float()))
        ba_index, ba_distance = (x[:, 0].cpu().numpy() for x in (backward.index, backward.distance.float()))
    counts = SearchCounts(m * n, 0, m * n, decided, brute_force=True)
    return MutualNearest(ab_index, ab_distance, ba_index, ba_distance, counts)


def _low(a: torch.Tensor, a_low: torch.Tensor, b: torch.Tensor, b_low: torch.Tensor) -> torch.Tensor:
    """`low` of the filter for a tile, float32 (m, n)."""
    return torch.mm(a, b.T).mul_(-2.0).add_(a_low[:, None]).add_(b_low[None, :])


def _achieved(low: torch.Tensor, length: torch.Tensor, other: torch.Tensor, k: int, frame: Frame) -> torch.Tensor:
    """A limit in the sense of P1 that k pairs of each row of the tile keep for certain, by P2."""
    value, column = torch.topk(low, k, dim=1, largest=False)
    value, column = value.to(length.device).double(), column.to(length.device)
    upper = value + 2.0 * frame.error * (length[:, None] + other[column])
    worst = upper.max(dim=1).values
    return STRETCH * (STRETCH * worst + frame.floor) + frame.floor


def _round_up(limit: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To float32, not downwards; the filter's floor is far above what is lost where float32 is subnormal."""
    return (limit * (1.0 + 2.0**-22)).float().to(device)


def _pieces(count: int, dim: int) -> Iterator[slice]:
    size = max(1, _DECIDE_BYTES // (8 * dim))
    for first in range(0, count, size):
        yield slice(first, first + size)


def _sq_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared distances of paired rows, (p, D) twice -> float64 (p,), by the sixteen-lane rule.

    Only elementwise subtraction, multiplication and addition, each an operation of its own: nothing can be
    fused, and no reduction of torch's, whose order is its own affair, is used.
    """
    squares = x.double() - y.double()
    squares *= squares.clone()
    dim = squares.shape[1]
    lanes = torch.zeros((len(squares), _LANES), dtype=torch.float64, device=squares.device)
    for start in range(0, dim, _LANES):
        width = min(_LANES, dim - start)
        lanes[:, :width] += squares[:, start : start + width]
    for width in (8, 4, 2, 1):
        lanes = lanes[:, :width] + lanes[:, width : 2 * width]
    return lanes[:, 0]


# ----------------------------------------------------------------------------------------------- filters


def channel_spread(members: FloatArray, rows: IndexArray, starts: IndexArray) -> tuple[DoubleArray, DoubleArray]:
    """See `inreach_fast.kernels.filtering.SpreadBackend`.

    The k-th members of many channels are added at once, k after k: the order within a channel stays.
    """
    device = _device() if _device().type != "mps" else _CPU
    distance = np.empty(len(rows), np.float64)
    sigma = np.empty(len(starts) - 1, np.float64)
    length = np.diff(starts)
    by_length = np.argsort(-length, kind="stable")  # those with a k-th member are then the first ones
    step = max(1, _DECIDE_BYTES // (16 * members.shape[1]))
    with _plain(device):
        for first in range(0, len(by_length), step):
            chosen = by_length[first : first + step]
            begin, count = starts[chosen], length[chosen]
            mean = torch.zeros((len(chosen), members.shape[1]), dtype=torch.float64, device=device)
            active = [int(np.count_nonzero(count > k)) for k in range(int(count[0]))]
            for k, some in enumerate(active):
                mean[:some] += _rows(members, rows[begin[:some] + k], device)
            mean /= torch.from_numpy(count.astype(np.float64)).to(device)[:, None]
            for k, some in enumerate(active):
                squared = _sq_distance(_rows(members, rows[begin[:some] + k], device), mean[:some])
                # NumPy's root is correctly rounded; torch's may come from a vector library that is not.
                distance[begin[:some] + k] = np.sqrt(squared.cpu().numpy())
            sigma[chosen] = _population_std(distance, begin, count, active)
    return distance, sigma


def _population_std(values: DoubleArray, begin: IndexArray, count: IndexArray, active: list[int]) -> DoubleArray:
    """Of ``values[begin[c] : begin[c] + count[c]]`` for each c; both sums in the order of the values."""
    total = np.zeros(len(begin))
    for k, some in enumerate(active):
        total[:some] += values[begin[:some] + k]
    mean = total / count
    squares = np.zeros(len(begin))
    for k, some in enumerate(active):
        difference = values[begin[:some] + k] - mean[:some]
        squares[:some] += difference * difference
    return np.asarray(np.sqrt(squares / count), np.float64)


def _rows(members: FloatArray, index: IndexArray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(members[index]).to(device).double()
