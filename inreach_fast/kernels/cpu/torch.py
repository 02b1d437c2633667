"""A backend of torch operations, for machines that have neither the compiled extension nor numba.

A tile of queries times bank rows is one float32 matrix product, the filter of `float32_filter`; what it
leaves is decided in float64 by elementwise operations alone, which round in the same way everywhere. No array grows
with m * n: tiles are of fixed size, and the pairs to decide are taken a few megabytes at a time.

Searches run on the CPU. `TorchBackend.describe_tensors` runs on any torch device: tap t of all outputs of a level is
gathered at once from shifted views of the padded level, multiplied, and added. These are two operations of torch, which
no device fuses, so the bits are those of the other backends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...array_types import DoubleArray, FloatArray, IndexArray
from ...threads import before_torch
from ..bank import Bank
from ..describe_plan import AxisResample, Plan, Stage
from ..distance import exact_sq_distance
from .float32_filter import STRETCH, FilterBackend, FilterFrame

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
        """See `FilterBackend`."""
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
                    limit = torch.from_numpy(best.distance[:, -1] * scale + frame.floor)  # P1, for the k-th best
                    if kept <= end - start:
                        limit = torch.minimum(limit, _achieved(value, length, b_length, kept, frame))
                    # Rounded up to float32; the filter's floor is far above what is lost where that is subnormal.
                    rounded = (limit * (1.0 + 2.0**-22)).float()
                    wanted = (value <= rounded[:, None]) & (value < torch.inf)
                    row, column = np.nonzero(wanted.numpy())
                    step = max(1, _DECIDE_BYTES // (8 * bank.dim))
                    for i in range(0, len(row), step):
                        r, c = row[i : i + step], column[i : i + step]
                        best.merge(r, c + start, exact_sq_distance(original[r], b_original[c]))
                    decided += len(row)
        return decided

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """See `Backend`."""
        for image in range(len(out)):  # one by one: a batch's intermediates could be larger than its descriptors
            # torch refuses negative strides and warns of read-only arrays; such inputs are copied.
            parts = [x[image : image + 1] for x in levels]
            usable = [p if p.flags.writeable and min(p.strides) >= 0 else p.copy() for p in parts]
            out[image] = self.describe_tensors([torch.from_numpy(p) for p in usable], plan)[0].numpy()

    def describe_tensors(self, levels: Sequence[torch.Tensor], plan: Plan) -> torch.Tensor:
        """Execute ``plan`` on (B, C, h, w) tensors of one device; (B, P, dim) there."""
        with torch.no_grad():
            first = levels[0]
            batch, (height, width) = first.shape[0], plan.grid
            result = torch.empty((batch, height * width, plan.dim), dtype=torch.float32, device=first.device)
            for stage in plan.stages():
                sums = _stage_sums([levels[i].detach() for i in stage.levels], plan, stage)
                level = plan.levels[stage.levels[0]]
                resampled = _resample(_resample(sums, level.rows, 2), level.columns, 3)
                value = resampled.permute(1, 2, 3, 0).reshape(batch, height * width, -1)
                own = stage.first_output + stage.shared
                result[:, :, stage.first_output : own] += value[:, :, : stage.shared]
                result[:, :, own : stage.end_output] = value[:, :, stage.shared :]
            return result


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
    """Rows first to stop-1: original, in the frame, their squared lengths A (float64), and (1 - e) A in float32."""
    original = bank.rows[first:stop] if bank.index is None else bank.rows[bank.index[first:stop]]
    framed = torch.from_numpy(((original - frame.centre) * frame.scale).astype(np.float32))
    length = framed.double().square().sum(dim=1)
    return original, framed, length, (length * (1.0 - frame.error)).float()


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


def _achieved(low: torch.Tensor, length: torch.Tensor, other: torch.Tensor, k: int, frame: FilterFrame) -> torch.Tensor:
    """A limit in the sense of P1 that k pairs of each row of the tile keep for certain, by P2."""
    value, column = torch.topk(low, k, dim=1, largest=False)
    upper = value.double() + 2.0 * frame.error * (length[:, None] + other[column])
    worst = upper.max(dim=1).values
    return STRETCH * (STRETCH * worst + frame.floor) + frame.floor


def _stage_sums(levels: Sequence[torch.Tensor], plan: Plan, stage: Stage) -> torch.Tensor:
    """Outputs of one stage at its own resolution, (outputs, B, h, w)."""
    k = plan.neighbourhood
    device = levels[0].device
    batch, _, height, width = levels[0].shape
    sums = torch.empty((stage.end_output - stage.first_output, batch, height, width), device=device)
    begun = 0  # leading outputs that an earlier level of the stage has begun
    for data, i in zip(levels, stage.levels, strict=True):
        taps = plan.levels[i].taps
        padded = torch.nn.functional.pad(data, (k // 2,) * 4)
        views = padded.unfold(2, k, 1).unfold(3, k, 1)  # (B, C, h, w, ky, kx), nothing copied
        shift = taps.first_output - stage.first_output
        lengths = np.diff(taps.tap_begin)
        for t in range(int(lengths.max())):
            chosen = np.flatnonzero(lengths > t)
            feature = taps.feature_begin[chosen] + t
            place = feature % k**2
            c, ky, kx = (torch.from_numpy(n).to(device) for n in (feature // k**2, place // k, place % k))
            weight = torch.from_numpy(taps.weights[taps.tap_begin[chosen] + t]).to(device)
            product = weight[:, None, None, None] * views[:, c, :, :, ky, kx]
            if t == 0:  # every output has a first tap
                inside = max(begun - shift, 0)
                sums[shift : shift + inside] += product[:inside]
                sums[shift + inside : shift + len(lengths)] = product[inside:]
            elif len(chosen) == len(lengths):
                sums[shift : shift + len(lengths)] += product
            else:
                rows = torch.from_numpy(chosen + shift).to(device)
                sums[rows] = sums[rows] + product
        begun = plan.levels[i].end_output - stage.first_output
    return sums


def _resample(x: torch.Tensor, axis: AxisResample, dim: int) -> torch.Tensor:
    between = bool(axis.w1.any())
    if not between and len(axis.i0) == x.shape[dim]:
        return x
    i0 = torch.from_numpy(axis.i0.astype(np.int64)).to(x.device)
    low = x.index_select(dim, i0)
    if not between:
        return low
    high = x.index_select(dim, (i0 + 1).clamp_(max=x.shape[dim] - 1))  # past the end only where w1 is 0
    shape = [-1 if i == dim else 1 for i in range(x.ndim)]
    w0, w1 = (torch.from_numpy(w.copy()).to(x.device).reshape(shape) for w in (axis.w0, axis.w1))
    return torch.where(w1 == 0, low, w0 * low + w1 * high)
