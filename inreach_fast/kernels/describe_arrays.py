"""Patch descriptors by NumPy, the `describe` of backends that have nothing faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..array_types import FloatArray
from .describe_plan import AxisResample, Plan, Stage


def describe_images(levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
    """See `Backend.describe`; the order of operations is that of csrc/cpu/engine/describe.cpp."""
    with np.errstate(all="ignore"):  # NaN and infinity are passed on
        for image, patches in enumerate(out):
            for stage in plan.stages():
                sums = _stage_sums([levels[i][image] for i in stage.levels], plan, stage)
                first = plan.levels[stage.levels[0]]
                table = _resampled(_resampled(sums, first.rows, 1), first.columns, 2)
                value = table.reshape(len(sums), -1).T
                own = stage.first_output + stage.shared
                patches[:, stage.first_output : own] += value[:, : stage.shared]
                patches[:, own : stage.end_output] = value[:, stage.shared :]


def _stage_sums(levels: Sequence[FloatArray], plan: Plan, stage: Stage) -> FloatArray:
    """Outputs of one stage at its own resolution, (outputs, h, w)."""
    height, width = levels[0].shape[1:]
    pad = plan.neighbourhood // 2
    sums = np.empty((stage.end_output - stage.first_output, height * width), np.float32)
    begun = 0  # leading outputs that an earlier level of the stage has begun
    for data, i in zip(levels, stage.levels, strict=True):
        taps = plan.levels[i].taps
        padded = np.pad(data, ((0, 0), (pad, pad), (pad, pad)))
        shifted = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))  # (C, ky, kx, h, w)
        features = shifted.reshape(-1, height * width)
        runs = zip(taps.feature_begin, taps.tap_begin, taps.tap_begin[1:], strict=False)
        for row, (feature, begin, end) in enumerate(runs, taps.first_output - stage.first_output):
            terms = taps.weights[begin:end, None] * features[feature : feature + end - begin]
            total = sums[row]
            if row >= begun:
                total[:] = terms[0]
            for term in terms[row >= begun :]:  # one after another: a sum by NumPy may have another order
                total += term
        begun = plan.levels[i].end_output - stage.first_output
    return sums.reshape(-1, height, width)


def _resampled(x: FloatArray, axis: AxisResample, along: int) -> FloatArray:
    low, last = x.take(axis.i0, along), x.shape[along] - 1
    if not axis.w1.any():
        return low
    high = x.take(np.minimum(axis.i0 + 1, last), along)  # past the end only where w1 is 0
    w0, w1 = (weight if along == 2 else weight[:, None] for weight in (axis.w0, axis.w1))
    return np.where(w1 == 0, low, w0 * low + w1 * high)
