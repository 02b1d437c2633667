"""The float32 pass of the numba and torch backends: what it computes, and the proof that it loses nothing.

An exact search decides pairs by r(x, y), the float64 squared distance of the original rows (16-lane order).
That costs ten times as much as a float32 product, so a float32 pass first rules out pairs that cannot win.

**The filter.** With a centre c and a power of two s (the `FilterFrame`), every row becomes a = fl32(s (x - c)) and
keeps its squared length A = |a|^2, summed in float64. For a query a and a bank row b the pass computes

    low = (1 - e) A + (1 - e) B - 2 <a, b>           e = gamma + 8u,  gamma = D u / (1 - D u),  u = 2^-24

where the product comes from any float32 matrix product, in any order of summation, fused or not, and the
two additions may be float32 as well. With t = 2^-20, f = D 2^-120 and the decided distance s^2 r:

    (P1)  low <= (1 + 2t) s^2 r + f                    so a pair whose `low` is above that is farther than r
    (P2)  s^2 r <= (1 + 2t) (low + 2e (A + B)) + f     a pair's distance is at most this, undecided

A pair with low > (1 + 2t) s^2 best + f is strictly farther than `best`, not even a tie: it is skipped.

**Proof.** Write S = A + B.
(1) A product summed in float32 in any order errs by at most gamma sum |a_i b_i| <= gamma S / 2 (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1), so 2 <a, b> by gamma S; underflow, even flushed
to zero, adds at most D 2^-124.
(2) Rounding (1 - e) A and (1 - e) B to float32 costs u S, their float64 sums less than u S / 8, and each of
the two float32 additions at most 2u S (1 + 2^-10), for no intermediate exceeds 2 S. Hence low differs from
|a - b|^2 - e S by less than (gamma + 5.2u) S + D 2^-124.
(3) Centring is done in float64 and scaling is exact, so a - s (x - c) is at most u |a_i| (1 + 2^-20) + 2^-126
in each component, in length at most rho with rho^2 <= 2.1 u^2 A + D 2^-250. For any t > 0,
(p + q)^2 <= (1 + t) p^2 + (1 + 1/t) q^2; with p = s |x - y| and q = rho_a + rho_b, q^2 <= 2 rho_a^2 +
2 rho_b^2, the step from |a - b|^2 to (1 + t) s^2 |x - y|^2 costs at most 2 (1 + 2^20) 2.1 u^2 S + D 2^-227,
below 0.3u S + D 2^-227, and so does the step back.
(4) r differs from |x - y|^2 by a relative (D / 16 + 12) 2^-53 < t / 4: all its terms are positive and none
underflows (differences of float32 numbers are multiples of 2^-149).
Adding up, the error is below (gamma + 5.5u) S; e leaves 2.5u S for the terms of second order, and f covers
the underflow. QED

e is 6e-5 at D = 1024: a pair or two of each query are left to decide, unless the data has near ties at that
scale, and then they are decided. No property of the data is assumed; where all rows are alike, all pairs are
decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...array_types import DoubleArray, FloatArray
from ..bank import Bank
from ..basis import sample_rows

UNIT_ROUNDOFF = 2.0**-24
# The factor 1 + 2t of P1 and P2.
STRETCH = 1.0 + 2.0**-19
# Beyond this dim gamma loses its meaning: the floor becomes infinite and every pair is decided.
_MAX_DIM = 1 << 22
_SAMPLE_ROWS = 512
_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class FilterFrame:
    """Centre, scale and error terms that one search's float32 pass uses.

    Attributes:
        centre: float64 (D,), subtracted from every row.
        scale: power of two that brings the largest |x - centre| of both sets into [1/2, 1).
        error: e of P1 and P2.
        floor: f of P1 and P2.
    """

    centre: DoubleArray
    scale: float
    error: float
    floor: float


def make_frame(queries: Bank, bank: Bank, product_loss: float = 0.0) -> FilterFrame:
    """The frame of a search between two sets of rows of one length.

    ``product_loss`` bounds the relative error that rounding the inputs of a product adds to it, for matrix
    units that read fewer bits than float32 has (0 for float32 itself).
    """
    dim = bank.dim
    centre = _extent(bank)[0]
    extents = (_extent(bank)[1:], _extent(queries)[1:])
    largest = max(float(np.maximum(high - centre, centre - low).max()) for low, high in extents)
    scale = math.ldexp(1.0, -math.frexp(largest)[1]) if largest > 0.0 else 1.0
    if dim >= _MAX_DIM:
        return FilterFrame(centre, scale, 0.0, math.inf)
    gamma = dim * UNIT_ROUNDOFF / (1.0 - dim * UNIT_ROUNDOFF)
    error = gamma * (1.0 + product_loss) + product_loss + 8.0 * UNIT_ROUNDOFF
    return FilterFrame(centre, scale, error, dim * 2.0**-120)


def _extent(bank: Bank) -> tuple[DoubleArray, FloatArray, FloatArray]:
    """Mean of a sample, and least and greatest value of each column; kept as long as the bank lives."""

    def measure() -> tuple[DoubleArray, FloatArray, FloatArray]:
        mean = sample_rows(bank.rows, bank.index, _SAMPLE_ROWS).mean(axis=0, dtype=np.float64)
        low, high = np.full(bank.dim, np.inf, np.float32), np.full(bank.dim, -np.inf, np.float32)
        for start in range(0, len(bank), _CHUNK_ROWS):  # in chunks: a gathered copy of a bank could be gigabytes
            stop = start + _CHUNK_ROWS
            chunk = bank.rows[start:stop] if bank.index is None else bank.rows[bank.index[start:stop]]
            np.minimum(low, chunk.min(axis=0), out=low)
            np.maximum(high, chunk.max(axis=0), out=high)
        return mean, low, high

    return bank.prepared("float32_filter", measure)


def to_float32(value: DoubleArray) -> FloatArray:
    with np.errstate(over="ignore", under="ignore"):  # beyond float32's range infinity is the right rounding
        return value.astype(np.float32)
