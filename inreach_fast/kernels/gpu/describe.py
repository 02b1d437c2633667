"""Patch descriptors: the tables that csrc/cuda/kernels/describe.cuh reads, and its two launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...array_types import IndexArray
from ..describe_plan import Plan
from .device import Device, DeviceArray, blocks

_THREADS = 256
_TILE = 32
MAX_BATCH = 65535  # the third extent of a grid


class LevelView(NamedTuple):
    """A float32 level (B, C, h, w) in GPU memory; strides in values."""

    address: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]


class DescribeLauncher:
    """A plan on the GPU. Each sum is one output of one stage, at the stage's own resolution."""

    def __init__(self, device: Device, plan: Plan) -> None:
        self.plan = plan
        stages = plan.stages()
        firsts = [plan.levels[stage.levels[0]] for stage in stages]
        segments: list[tuple[int, int, int, int]] = []
        segment_begin, sum_begin = [0], [0]
        sum_stage: list[int] = []
        parts: list[list[int]] = [[] for _ in range(plan.dim)]
        tap_offset = np.cumsum([0] + [len(level.taps.weights) for level in plan.levels])
        for number, (stage, first) in enumerate(zip(stages, firsts, strict=True)):
            for j in range(stage.first_output, stage.end_output):
                for i in stage.levels:
                    taps = plan.levels[i].taps
                    local = j - taps.first_output
                    if 0 <= local < len(taps.feature_begin):
                        begin, end = int(taps.tap_begin[local]), int(taps.tap_begin[local + 1])
                        segments.append((i, int(taps.feature_begin[local]), end - begin, int(tap_offset[i]) + begin))
                segment_begin.append(len(segments))
                parts[j].append(len(sum_stage))
                sum_stage.append(number)
                sum_begin.append(sum_begin[-1] + first.height * first.width)
        self.sums = len(sum_stage)
        self.image_sums = sum_begin[-1]
        self.most_places = max(level.height * level.width for level in plan.levels)
        self.segments = device.upload(np.array(segments, np.int32).reshape(-1, 4))
        self.segment_begin = device.upload(np.array(segment_begin, np.int32))
        self.sum_begin = device.upload(np.array(sum_begin, np.int64))
        self.sum_stage = device.upload(np.array(sum_stage, np.int32))
        self.part_begin = device.upload(np.cumsum([0] + [len(p) for p in parts]).astype(np.int32))
        self.parts = device.upload(np.concatenate(parts).astype(np.int32))
        self.weights = device.upload(np.concatenate([level.taps.weights for level in plan.levels]))
        self.stage_width = device.upload(np.array([level.width for level in firsts], np.int32))
        self.axes = [
            device.upload(np.stack([getattr(getattr(level, axis), name) for level in firsts]))
            for axis in ("rows", "columns")
            for name in ("i0", "w0", "w1")
        ]

    def launch(
        self, device: Device, levels: DeviceArray, batch: int, out: DeviceArray, strides: tuple[int, int] | None = None
    ) -> None:
        """Levels (`level_table`, uploaded) of up to ``MAX_BATCH`` images to descriptors; the stream has the tables.

        ``out`` is float32 (B, P, dim), or with ``strides`` (of an image and a row, in values) any memory.
        """
        plan = self.plan
        height, width = plan.grid
        image_stride, row_stride = strides or (height * width * plan.dim, plan.dim)
        assert batch <= MAX_BATCH
        work = device.empty((batch, self.image_sums), np.float32)
        grid = blocks(self.most_places, _THREADS), self.sums, batch
        device.launch("describe_sums", grid, _THREADS, (
            levels, self.segments, self.segment_begin, self.sum_begin, self.weights, np.int32(plan.neighbourhood),
            np.int64(self.image_sums), work,
        ))  # fmt: skip
        grid = blocks(height * width, _TILE), blocks(plan.dim, _TILE), batch
        device.launch("describe_write", grid, _THREADS, (
            work, np.int64(self.image_sums), self.sum_begin, self.sum_stage, self.part_begin, self.parts,
            self.stage_width, *self.axes, np.int32(height), np.int32(width), np.int32(plan.dim), out,
            np.int64(image_stride), np.int64(row_stride),
        ))  # fmt: skip


def level_table(levels: Sequence[LevelView]) -> IndexArray:
    """What describe_sums reads of the levels: int64 (L, 7)."""
    return np.array([(x.address, *x.strides, *x.shape[2:]) for x in levels], np.int64)
