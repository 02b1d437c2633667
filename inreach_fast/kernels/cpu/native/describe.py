"""`describe` by the compiled CPU engine (csrc/cpu/engine/describe.cpp)."""

from __future__ import annotations

from collections.abc import Sequence

from .... import _core
from ....array_types import FloatArray
from ...describe_plan import Plan


def describe(levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
    """Execute ``plan`` on (B, C, h, w) levels of any strides into ``out`` (B, P, dim)."""
    _core.describe(
        [
            (
                data,
                level.taps.first_output,
                level.taps.feature_begin,
                level.taps.tap_begin,
                level.taps.weights,
                (level.rows.i0, level.rows.w0, level.rows.w1),
                (level.columns.i0, level.columns.w0, level.columns.w1),
            )
            for data, level in zip(levels, plan.levels, strict=True)
        ],
        plan.neighbourhood,
        *plan.grid,
        out,
    )
