"""Rows on a GPU, and in the frame of a search (docs/search.md, section 2, and docs/gpu.md, section 3).

Bounds are valid for any centre, any power-of-two scale and any orthonormal directions; these come from a sample, on
the host, once for each bank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...array_types import FloatArray
from ..basis import principal_directions
from .device import Argument, Device, DeviceArray, blocks, launch_each
from .routes import FORMATS, Bounds

RANK, HEAD_DEPTH = 63, 64  # directions and tail fill the 64 values of a head
_DEPTH_STEP = 32
# Filters count in units of 16 bytes, with 32 bits: this many values of any format.
_MAX_VALUES = 1 << 34


def most_rows(dim: int) -> int:
    """Largest number of rows of ``dim`` values in one filter."""
    return _MAX_VALUES // _depth(dim)


def _depth(dim: int) -> int:
    return -(-dim // _DEPTH_STEP) * _DEPTH_STEP


@dataclass(frozen=True)
class DeviceRows:
    """Original rows on the GPU: row j is ``values[index[first + j]]``, or ``values[first + j]`` without an index.

    ``values`` are float32 (N, D), ``index`` is int64, and ``group`` int64 (count,).
    """

    values: DeviceArray
    index: DeviceArray | None
    first: int
    count: int
    group: DeviceArray | None = None

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Arguments of the kernels that read original rows."""
        return self.values, self.index, np.int64(self.first)

    def __len__(self) -> int:
        return self.count

    def part(self, first: int, stop: int) -> DeviceRows:
        group = None if self.group is None else self.group.part(first, stop)
        return DeviceRows(self.values, self.index, self.first + first, stop - first, group)


def find_nonfinite(device: Device, rows: DeviceRows, first: DeviceArray) -> None:
    """Lowers ``first`` (uint64 (1,)) to the first of the rows that holds NaN or infinity; does not wait."""
    index = None if rows.index is None else rows.index.part(rows.first, rows.first + rows.count)
    values = rows.values if index is not None else rows.values.part(rows.first, rows.first + rows.count)
    grid = (min(blocks(rows.count, 8), 8 * device.multiprocessors),)
    device.launch("first_nonfinite_row", grid, 256, (values, index, np.int64(rows.count), np.int32(rows.dim), first))


@dataclass(frozen=True)
class FramedRows:
    """Rows in a frame, as filters read them, and the constants of their bounds.

    ``values`` are (count, depth) in the format's dtype, ``low`` and ``extra`` float32 (count,); ``extra`` is None for
    leading directions.
    """

    values: DeviceArray
    low: DeviceArray
    extra: DeviceArray | None
    bounds: Bounds

    @property
    def depth(self) -> int:
        return self.values.shape[1]

    def part(self, first: int, stop: int) -> FramedRows:
        extra = None if self.extra is None else self.extra.part(first, stop)
        return FramedRows(self.values.part(first, stop), self.low.part(first, stop), extra, self.bounds)


@dataclass(frozen=True)
class Piece:
    """Rows that are on the GPU together: queries, or (part of) a bank.

    ``base`` is the number of the first one among all. ``rows`` are as given, ``framed`` in the frame, and ``heads`` in
    leading directions.
    """

    base: int
    rows: DeviceRows
    framed: FramedRows
    heads: FramedRows | None = None

    @property
    def count(self) -> int:
        return self.rows.count

    def part(self, first: int, stop: int) -> Piece:
        heads = None if self.heads is None else self.heads.part(first, stop)
        return Piece(self.base + first, self.rows.part(first, stop), self.framed.part(first, stop), heads)

    def halves(self) -> tuple[Piece, Piece]:
        middle = self.count // 2
        return self.part(0, middle), self.part(middle, self.count)


@dataclass(frozen=True)
class Frame:
    """Centre, float64 (D,), and scale: a power of two that brings a sample's largest deviation into [1/2, 1)."""

    centre: DeviceArray
    scale: float

    @staticmethod
    def of_sample(device: Device, sample: FloatArray) -> Frame:
        """The frame of some rows, float32 (s, D)."""
        centre = sample.mean(axis=0, dtype=np.float64)
        largest = float(np.max(np.abs(sample - centre)))
        scale = math.ldexp(1.0, -math.frexp(largest)[1]) if largest > 0.0 else 1.0
        return Frame(device.upload(centre), scale)

    @property
    def sq_scale(self) -> np.float64:
        square: np.float64 = np.float64(self.scale) ** 2
        return square

    def rows(self, device: Device, rows: DeviceRows, form: str) -> FramedRows:
        """``rows`` stored in a format."""
        depth = _depth(rows.dim)
        bounds = FORMATS[form].bounds(depth, refined=True)
        values = device.empty((rows.count, depth), FORMATS[form].dtype)
        low, extra = (device.empty(rows.count, np.float32) for _ in range(2))
        launch_each(
            device, f"frame_rows_{form}", rows.count, *rows.arguments, np.int32(rows.count), np.int32(rows.dim),
            np.int32(depth), self.centre, np.float64(self.scale), np.float64(bounds.error), np.float64(bounds.weight),
            values, low, extra, each=32,
        )  # fmt: skip
        return FramedRows(values, low, extra, bounds)


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions in which most of a bank varies, and the share of a sample's variance in them.

    ``vectors`` are float64 (rank, D), rank at most 63. ``defect`` bounds the squared error of a row's computed
    coordinates and tail, relative to the row's squared length.
    """

    vectors: DeviceArray
    captured: float
    defect: float

    @staticmethod
    def of_sample(device: Device, sample: FloatArray, scale: float) -> Directions:
        """Leading principal directions of some rows."""
        rows = sample.astype(np.float64)
        rows -= rows.mean(axis=0)
        rows *= scale  # around one: their squares neither overflow nor vanish
        dim = rows.shape[1]
        rank = min(RANK, dim)
        # Orthonormal to float64's own precision, whatever the sample's rank was.
        directions = principal_directions(rows.astype(np.float32), rank)
        leading = np.ascontiguousarray(np.linalg.qr(directions.T.astype(np.float64))[0].T)
        gap = leading @ leading.T - np.eye(len(leading))
        skew = float(np.sqrt(np.sum(gap * gap))) + rank * dim * 2.0**-52
        total = float(np.sum(rows * rows))
        inside = float(np.sum((rows @ leading.T) ** 2))
        # Coordinates: rank * (dim 2^-53)^2 and less. Tail: its square is off by (2 skew + 2 (dim + rank) 2^-52).
        defect = 4.0 * (skew + (dim + rank) * 2.0**-51)
        return Directions(device.upload(leading), inside / total if total > 0.0 else 0.0, defect)

    def rows(self, device: Device, frame: Frame, rows: DeviceRows, form: str) -> FramedRows:
        """Heads of ``rows``: coordinates and tail."""
        bounds = FORMATS[form].bounds(HEAD_DEPTH)
        values = device.empty((rows.count, HEAD_DEPTH), FORMATS[form].dtype)
        low = device.empty(rows.count, np.float32)
        launch_each(
            device, f"project_rows_{form}", rows.count, *rows.arguments, np.int32(rows.count), np.int32(rows.dim),
            frame.centre, np.float64(frame.scale), self.vectors, np.int32(self.vectors.shape[0]),
            np.float64(self.defect), np.float64(bounds.error), np.float64(bounds.weight), values, low, each=16,
        )  # fmt: skip
        return FramedRows(values, low, None, bounds)
