"""The descriptor map, composed once for each shape of network: what every backend executes in `describe`.

The paper's descriptor (ALGORITHM section 3: unfold, pool to `dim`, concatenate the levels, pool to `dim`
again) is linear. Its channel steps act on each position alone and its resampling on each channel alone, so they
commute, and the channel steps of one level become one small matrix: row j holds the taps of output j,
a *contiguous* run of features of the unfolded vector, in (channel, ky, kx) order. A plan holds the runs of all levels
and the bilinear resampling tables.

Weights are composed in float64 and rounded once to float32. Backends execute a plan in one fixed order of
float32 multiplications and additions (csrc/cpu/describe/README.md), so all of them give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np

from ..array_types import DoubleArray, FloatArray, IndexArray, Int32Array


@dataclass(frozen=True, eq=False)
class LevelTaps:
    """One level's part of the map: outputs `first_output .. first_output + len(feature_begin)`.

    Output `first_output + i` sums the features `feature_begin[i] + t` times `weights[tap_begin[i] + t]`, for
    t = 0 .. tap_begin[i + 1] - tap_begin[i] - 1, in that order. Feature f is channel f // k**2 at the
    neighbour (f % k**2 // k, f % k), counted from the upper left of the k x k neighbourhood.
    """

    channels: int
    first_output: int
    feature_begin: IndexArray
    tap_begin: IndexArray
    weights: FloatArray


@dataclass(frozen=True, eq=False)
class AxisResample:
    """Bilinear resampling of one axis (align_corners=False): w0[i] * x[i0[i]] + w1[i] * x[i0[i] + 1].

    Where w1 is 0 the second sample is not read, so NaN and infinity do not spread beyond their taps.
    """

    i0: Int32Array
    w0: FloatArray
    w1: FloatArray


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a plan: its taps, its own grid, and the resampling to the plan's grid."""

    taps: LevelTaps
    height: int
    width: int
    rows: AxisResample
    columns: AxisResample

    @property
    def end_output(self) -> int:
        """One past the last output that this level has a part of."""
        return self.taps.first_output + len(self.taps.feature_begin)


@dataclass(frozen=True, eq=False)
class Stage:
    """Consecutive levels on one grid; an output that two of them share is summed before it is resampled.

    The first ``shared`` outputs are added to what an earlier stage wrote.
    """

    levels: range
    first_output: int
    end_output: int
    shared: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a backend executes for levels of given shapes."""

    grid: tuple[int, int]
    dim: int
    neighbourhood: int
    levels: tuple[Level, ...]

    def stages(self) -> list[Stage]:
        """Runs of consecutive levels of one grid."""
        stages: list[Stage] = []
        begin = 0
        for _grid, levels in groupby(self.levels, lambda level: (level.height, level.width)):
            run = list(levels)
            first = run[0].taps.first_output
            shared = stages[-1].end_output - first if stages else 0
            stages.append(Stage(range(begin, begin + len(run)), first, run[-1].end_output, shared))
            begin += len(run)
        return stages


@lru_cache(maxsize=64)
def level_taps(channels: tuple[int, ...], dim: int, neighbourhood: int) -> tuple[LevelTaps, ...]:
    """Compose unfold, both poolings and the concatenation of levels with these channel counts (cached)."""
    levels = len(channels)
    # Second pooling: output j averages the entries begin[j] .. end[j] - 1 of the levels * dim long vector.
    # (n = levels * dim is a multiple of m = dim, hence windows of exactly `levels` entries, side by side.)
    result = []
    for level, c in enumerate(channels):
        n = c * neighbourhood**2
        i = np.arange(dim, dtype=np.int64)
        begin = i * n // dim  # first pooling: entry i of this level averages features begin[i] .. end[i] - 1
        end = -(-(i + 1) * n // dim)
        first_output = level * dim // levels
        last_output = ((level + 1) * dim - 1) // levels
        feature_begin = []
        runs: list[DoubleArray] = []
        for j in range(first_output, last_output + 1):
            entries = range(max(j * levels - level * dim, 0), min((j + 1) * levels - level * dim, dim))
            lo, hi = int(begin[entries[0]]), int(end[entries[-1]])
            run = np.zeros(hi - lo, dtype=np.float64)
            for e in entries:
                run[begin[e] - lo : end[e] - lo] += 1.0 / (levels * float(end[e] - begin[e]))
            feature_begin.append(lo)
            runs.append(run)
        begins = np.array(feature_begin, dtype=np.int64)
        tap_begin = np.cumsum([0, *map(len, runs)], dtype=np.int64)
        weights = np.concatenate(runs).astype(np.float32)
        for array in (begins, tap_begin, weights):
            array.setflags(write=False)
        result.append(LevelTaps(c, first_output, begins, tap_begin, weights))
    return tuple(result)


@lru_cache(maxsize=256)
def axis_resample(source: int, target: int) -> AxisResample:
    """Resampling table of one axis from `source` to `target` samples, in exact integer arithmetic (cached).

    Source position of sample i: (i + 1/2) * source / target - 1/2, held inside [0, source - 1]: torch's rule.
    """
    i = np.arange(target, dtype=np.int64)
    numerator = np.clip((2 * i + 1) * source - target, 0, 2 * target * (source - 1))
    i0 = numerator // (2 * target)
    w1 = (numerator - i0 * 2 * target) / (2.0 * target)
    arrays = i0.astype(np.int32), (1.0 - w1).astype(np.float32), w1.astype(np.float32)
    for array in arrays:
        array.setflags(write=False)
    return AxisResample(*arrays)
