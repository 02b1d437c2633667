"""`describe` in torch operations, on any torch device, with the order of operations of the compiled engine.

Tap t of all outputs of a level is gathered at once from shifted views of the padded level, multiplied, and
added: two operations of torch, which no device fuses, so that the bits are those of the other backends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....array_types import FloatArray
from ...describe_plan import AxisResample, Plan, Stage


def describe(levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
    """Execute ``plan`` on (B, C, h, w) levels in memory into ``out`` (B, P, dim)."""
    for image in range(len(out)):  # one by one: a batch's intermediates could be larger than its descriptors
        # torch refuses negative strides and warns of read-only arrays; such inputs are copied.
        parts = [x[image : image + 1] for x in levels]
        usable = [p if p.flags.writeable and min(p.strides) >= 0 else p.copy() for p in parts]
        out[image] = describe_on_device([torch.from_numpy(p) for p in usable], plan)[0].numpy()


def describe_on_device(levels: Sequence[torch.Tensor], plan: Plan) -> torch.Tensor:
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
    if not axis.w1.any():
        if len(axis.i0) == x.shape[dim]:
            return x
        return x.index_select(dim, torch.from_numpy(axis.i0.astype(np.int64)).to(x.device))
    shape = [1] * x.ndim
    shape[dim] = -1
    i0 = axis.i0.astype(np.int64)
    i1 = np.minimum(i0 + 1, x.shape[dim] - 1)  # past the end only where w1 is 0
    w0, w1 = (torch.from_numpy(w.copy()).to(x.device).reshape(shape) for w in (axis.w0, axis.w1))
    low = x.index_select(dim, torch.from_numpy(i0).to(x.device))
    high = x.index_select(dim, torch.from_numpy(i1).to(x.device))
    return torch.where(w1 == 0, low, w0 * low + w1 * high)
