"""Formats and tiles of the filters, and the constants of their bounds (docs/gpu.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ParameterError

_UNIT32 = 2.0**-24
# Beyond this many values a sum in float32 has no meaning: every pair is decided.
_MAX_DEPTH = 1 << 21


@dataclass(frozen=True)
class Format:
    """How rows are stored for a filter.

    Attributes:
        dtype: of stored values (16-bit formats as their bits).
        tau: share by which a squared distance is stretched to absorb what storing loses; the rest of the loss is
            multiplied by 1 + 1 / tau.
        products: number that a matrix instruction adds; 0 without matrix instructions.
        compute_capability: the least that has them.
    """

    dtype: np.dtype[Any]
    tau: float
    products: int
    compute_capability: tuple[int, int]

    def sum_error(self, depth: int) -> float:
        """Bound on |computed - exact| of a product of two stored rows, relative to the sum of the terms' sizes."""
        if self.products:
            # An instruction errs by 2^-22 a term, its running sum counted, of all of them at most.
            return float(np.expm1(-(-depth // self.products) * np.log1p((self.products + 1) * 2.0**-22)))
        return depth * _UNIT32 / (1.0 - depth * _UNIT32)

    def bounds(self, depth: int, refined: bool = False) -> Bounds:
        """Constants of the bounds of rows of ``depth`` values; ``refined``: also for sums by a warp in float32."""
        if depth >= _MAX_DEPTH:
            return Bounds(0.0, 0.0, np.float32(1.0), np.float32(np.inf))
        error = self.sum_error(depth)
        if refined:
            error = max(error, FORMATS["f32"].sum_error(depth))
        return Bounds(
            error=error + 8.0 * _UNIT32,
            weight=2.0 * (1.0 + 1.0 / self.tau),
            stretch=_rounded_up((1.0 + self.tau) * (1.0 + 2.0**-18)),
            floor=_rounded_up(depth * 2.0**-120),
        )


@dataclass(frozen=True)
class Bounds:
    """e and w of a row's `low` and `extra`; stretch and floor of P1 and P2 (csrc/cuda/kernels/README.md)."""

    error: float
    weight: float
    stretch: np.float32
    floor: np.float32


FORMATS = {
    "f32": Format(np.dtype(np.float32), 2.0**-19, 0, (7, 5)),
    "fp16": Format(np.dtype(np.uint16), 2.0**-8, 16, (7, 5)),
    "bf16": Format(np.dtype(np.uint16), 2.0**-6, 16, (8, 0)),
    "tf32": Format(np.dtype(np.float32), 2.0**-8, 8, (8, 0)),
}
TILES = (128, 64)


@dataclass(frozen=True)
class Route:
    """Which filter kernel: a key of ``FORMATS``, and the rows of both sides that a block takes at once (128 or 64)."""

    format: str = "f32"
    tile: int = 128

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.tile not in TILES:
            raise ParameterError(f"route: expected one of {', '.join(FORMATS)} and a tile of 128 or 64, got {self}")

    @property
    def kernel(self) -> str:
        return f"filter_{self.format}_{self.tile}"

    @property
    def threads(self) -> int:
        return 256 if self.tile == 128 else 128

    @property
    def strips(self) -> int:
        """Groups of bank rows that task `least` makes of a tile."""
        return 8 if FORMATS[self.format].products and self.tile == 64 else 16


def _rounded_up(value: float) -> np.float32:
    near = np.float32(value)
    above: np.float32 = np.nextafter(near, np.float32(np.inf))
    return near if float(near) >= value else above
