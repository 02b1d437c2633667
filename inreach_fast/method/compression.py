"""Compression of a nominal model with a guarantee: a subset of its patches that covers all patches.

*Cover.* A subset K of the patches X covers X within epsilon when every x in X has a c in K with |x - c| <= epsilon.

*Theorem.* Let d(q, S) be the distance from q to the nearest row of S. If K covers X within epsilon, then for any q,

    d(q, X) <= d(q, K) <= d(q, X) + epsilon.

*Proof.* K is a subset of X, which gives the left side. For the right side let x be nearest to q in X and c its
cover: d(q, K) <= |q - c| <= |q - x| + |x - c| <= d(q, X) + epsilon, by the triangle inequality. ∎

Reported squared distances are rounded to float32. Rounding is monotone, so that no reported distance shrinks, to the
bit; it grows by at most epsilon and two roundings, each 2^-24 of the squared distance.

*Corollary* (maps and scores). A map's weights sum to 1. With plain distances a pixel, and so an image's score,
grows by at most epsilon. With squared ones it grows from m to at most (sqrt(m) + epsilon)^2, since

    sum w (d + e)^2 = m + 2 e sum w d + e^2 <= m + 2 e sqrt(m) + e^2        (Jensen's inequality).

Scores never fall, so that an anomalous image stays anomalous.

*Floors* (`method.reachability`). Let s(q) be the least max(|q - b|, f(b)) over the patches b, where f(b) is the root of
b's floor, its stored confirmation distance. Each b is assigned to a(b) in K, the kept patch nearest to it, and a kept
patch c takes as its floor the least of those assigned to it: f'(c) = min over a(b) = c of f(b). Let s'(q) be the score
by K and f'.

*Theorem.* If |b - a(b)| <= epsilon for all b, then for any q, |s'(q) - s(q)| <= epsilon.

*Proof.* For any b and c = a(b): f'(c) <= f(b) and |q - c| <= |q - b| + epsilon, so that max(|q - c|, f'(c)) <=
max(|q - b|, f(b)) + epsilon. With the b of s(q) this gives s'(q) <= s(q) + epsilon. Conversely let c attain s'(q). Some
b with a(b) = c has f(b) = f'(c), and |q - b| <= |q - c| + epsilon, so that s(q) <= max(|q - b|, f(b)) <= s'(q) +
epsilon. ∎

So such a score may fall as well. As in the corollary, an image's score s of squared distances stays between
max(0, sqrt(s) - epsilon)^2 and (sqrt(s) + epsilon)^2 (Jensen's inequality in both directions), and one of plain
distances within epsilon. Floors are float32 and the least of some is one of them, so that nothing is rounded; reported
scores are, as said of distances above. With epsilon = 0 the patches assigned to c equal it, s' and s are the minimum of
the same numbers, and reported scores are the same to the bit.

*Rounding.* "Within epsilon" is decided on r, the squared distance in float64 in the kernels' fixed order
(docs/search.md, section 1): r = |x - c|^2 (1 + δ), |δ| <= s = (D / 16 + 12) 2^-53. So r <= epsilon^2 (1 - 2 s), minus a
little, proves |x - c| <= epsilon (`greatest_within`), and the converse holds (`certified`). r is 0 for equal rows only:
differences of float32 numbers are multiples of 2^-149, whose squares float64 can represent. The decision is the same
for every backend, number of threads and batch size. A patch is assigned to the kept one whose r is least, the first on
ties: that r is no greater than the r of the patch that covers it, and so proves the same.

*Which subset.* In (image, patch) order, a patch is kept if no patch kept before is within epsilon (a maximal set of
patches more than epsilon apart, which therefore covers). This needs only searches among the kept patches, and other
orders keep hardly fewer (measured in docs/serving.md).
"""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import kernels
from ..array_types import BoolArray, DoubleArray, FloatArray, IndexArray
from ..errors import ParameterError
from ..kernels.distance import exact_sq_distance
from ..system.progress import Progress

_BATCH = 2048
# Kept patches are collected until there are this many, or this share of those in the bank; then it is built again.
_LEAST_TAIL, _TAIL_SHARE = 2048, 3
# A search for a size ends when this share of it is used, or after this many passes.
_FULL, _MOST_PASSES = 0.97, 12


@dataclass(frozen=True)
class Compression:
    """How a nominal model was compressed.

    Attributes:
        epsilon: greatest growth of a distance against the fitted model, in L2 units (not squared); of a score by
            reachability the greatest change.
        kept: patches that are left.
        of: patches of the fitted model.
    """

    epsilon: float
    kept: int
    of: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"epsilon": self.epsilon, "kept": self.kept, "of": self.of}

    @classmethod
    def from_dict(cls, values: Any) -> Compression:
        """The inverse of `as_dict`; KeyError, TypeError or ValueError for anything else."""
        made = cls(float(values["epsilon"]), int(values["kept"]), int(values["of"]))
        if not (0 <= made.epsilon < math.inf and 1 <= made.kept <= made.of):
            raise ValueError(f"compression {values!r}")
        return made


def check_epsilon(epsilon: Any) -> float:
    """``epsilon`` as a finite float of at least 0; ParameterError otherwise."""
    try:
        number = math.nan if isinstance(epsilon, (bool, str)) or np.ndim(epsilon) else float(epsilon)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ParameterError(f"epsilon: expected a finite distance of at least 0, got {epsilon!r}")
    return number


def check_size(to: Any, patches: int) -> int:
    """``to`` as a number of patches, 1 or more; ParameterError otherwise. A float in (0, 1) is a share."""
    if isinstance(to, (int, np.integer)) and not isinstance(to, bool) and to >= 1:
        return min(int(to), patches)
    if isinstance(to, (float, np.floating)) and 0 < to < 1:
        return max(1, int(to * patches))
    raise ParameterError(f"to: expected a number of patches, 1 or more, or a share between 0 and 1, got {to!r}")


def greatest_within(epsilon: float, dim: int) -> float:
    """The greatest r of `exact_sq_distance` that proves a distance of at most ``epsilon``."""
    return epsilon * epsilon * (1 - _slack(dim))


def certified(r: float, dim: int) -> float:
    """A distance that rows whose squared distance was computed as ``r`` do not exceed; 0 for 0."""
    return 0.0 if r == 0 else math.sqrt(r) * (1 + _slack(dim))


def sum_above(first: float, second: float) -> float:
    """An upper bound of the sum of two epsilons: exact if one is 0, else a step above float64's sum.

    It is at most the greatest float64, which no distance of float32 rows comes near.
    """
    if first == 0 or second == 0:
        return first + second
    return min(math.nextafter(first + second, math.inf), sys.float_info.max)


def _slack(dim: int) -> float:
    # Twice docs/search.md's (1), plus the few roundings of the two formulas above.
    return 2 * (dim / 16 + 16) * 2.0**-53


def cover(rows: FloatArray, epsilon: float, *, backend: str = "auto", progress: Progress | None = None) -> IndexArray:
    """Rows that cover all of (n, D) float32 ``rows`` within ``epsilon``: their numbers, int64, ascending."""
    if epsilon == 0:
        return _distinct(rows)
    kept = _leaders(rows, None, greatest_within(epsilon, rows.shape[1]), len(rows), backend, progress)
    assert kept is not None
    return kept


def _distinct(rows: FloatArray) -> IndexArray:
    """The first of each set of equal rows, ascending."""
    seen: dict[bytes, list[int]] = {}
    kept = []
    for i in range(len(rows)):
        row = rows[i] + np.float32(0)  # turns -0 into 0, which it equals
        same = seen.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), [])
        if not any(np.array_equal(rows[j], row) for j in same):
            same.append(i)
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def cover_of_size(
    rows: FloatArray, size: int, *, backend: str = "auto", progress: Progress | None = None
) -> tuple[IndexArray, float]:
    """At most ``size`` rows that cover all of ``rows``, int64 numbers, ascending; and the epsilon within which they do.

    Duplicates are removed first. Then epsilon is found by passes of `cover`, each of which ends when it has kept too
    many. Places that are left go to the rows that are farthest from the kept ones; the greatest distance of the others
    is epsilon.
    """
    dim = rows.shape[1]
    distinct = _distinct(rows)
    if len(distinct) <= size:
        return distinct, 0.0
    low, high, kept, passes = 0.0, math.inf, distinct[:1], 0
    epsilon = _first_guess(rows, distinct, size, backend)
    while passes < _MOST_PASSES or math.isinf(high):
        passes += 1
        found = _leaders(rows, distinct, greatest_within(epsilon, dim), size, backend, progress)
        if found is None:
            low = epsilon
        else:
            high, kept = epsilon, found
            if len(found) >= _FULL * size:
                break
        epsilon = _short(2 * low if math.isinf(high) else math.sqrt(low * high) if low else high / 2)
        if not low < epsilon < high:
            break
    _, r = nearest_kept(rows, distinct, kept, backend)
    order = np.argsort(-r, kind="stable")  # the kept ones have distance 0
    spare = size - len(kept)
    added = np.concatenate([kept, distinct[order[:spare]]])
    return np.unique(added), certified(float(r[order[spare]]), dim)


def _short(epsilon: float) -> float:
    """Rounded to four digits, so that the last bits of a square root do not matter."""
    return float(f"{epsilon:.4g}")


def _first_guess(rows: FloatArray, distinct: IndexArray, size: int, backend: str) -> float:
    """A distance to start from: the median distance in a sample thinned out like the result."""
    sample = distinct[:: max(1, len(distinct) // _BATCH)]
    count = max(1, min(len(sample) - 1, len(sample) * size // len(distinct)))
    kept = sample[:: -(-len(sample) // count)]
    _, r = nearest_kept(rows, sample, kept, backend)
    return _short(math.sqrt(float(np.median(r[r > 0]))))


def nearest_kept(
    rows: FloatArray, numbers: IndexArray, kept: IndexArray, backend: str, progress: Progress | None = None
) -> tuple[IndexArray, DoubleArray]:
    """The nearest of ``kept`` to each of ``numbers``, the first on ties: its place in ``kept``, and r, float64."""
    bank = kernels.Bank(rows, index=kept)
    place, r = np.empty(len(numbers), dtype=np.int64), np.empty(len(numbers), dtype=np.float64)
    for first in range(0, len(numbers), _BATCH):
        part, now = numbers[first : first + _BATCH], slice(first, first + _BATCH)
        place[now] = kernels.nearest(rows[part], bank, backend=backend).index
        r[now] = exact_sq_distance(rows[part], rows[kept[place[now]]])
        if progress is not None:
            progress("compress", first + len(part), len(numbers))
    return place, r


def _leaders(
    rows: FloatArray, numbers: IndexArray | None, limit: float, most: int, backend: str, progress: Progress | None
) -> IndexArray | None:
    """Those of ``numbers`` (None: all rows) that have no kept row before them within ``limit`` (a squared distance).

    None if there are more than ``most``.
    """
    total = len(rows) if numbers is None else len(numbers)
    bank: kernels.Bank | None = None
    kept: list[IndexArray] = []
    tail: list[IndexArray] = []
    count = in_tail = 0
    for first in range(0, total, _BATCH):
        last = min(first + _BATCH, total)
        part = np.arange(first, last, dtype=np.int64) if numbers is None else numbers[first:last]
        if bank is not None:
            part = part[~_covered(rows, part, bank, np.concatenate(kept), limit, backend)]
        if tail and len(part):
            waiting = np.concatenate(tail)
            part = part[
                ~_covered(rows, part, kernels.Bank.for_call(rows[waiting], name="kept"), waiting, limit, backend)
            ]
        part = part[_leaders_of_batch(rows[part], limit)]
        count, in_tail = count + len(part), in_tail + len(part)
        if count > most:
            return None
        if len(part):
            tail.append(part)
        if in_tail >= max(_LEAST_TAIL, (count - in_tail) // _TAIL_SHARE):
            kept, tail, in_tail = [*kept, *tail], [], 0
            bank = kernels.Bank(rows, index=np.concatenate(kept), basis=bank)
        if progress is not None:
            progress("compress", last, total)
    return np.concatenate([*kept, *tail])


def _covered(
    rows: FloatArray, part: IndexArray, bank: kernels.Bank, numbers: IndexArray, limit: float, backend: str
) -> BoolArray:
    """Whether each of ``part`` has a bank row, whose numbers in ``rows`` are given, within ``limit``."""
    found = kernels.nearest(rows[part], bank, backend=backend)
    # The float32 distance is within half a step of r: a full step to either side is a bound.
    # (float64 arrays, since NumPy would compare in float32.)
    within: BoolArray = np.nextafter(found.sq_distance, np.float32(np.inf)).astype(np.float64) <= limit
    below: BoolArray = np.nextafter(found.sq_distance, np.float32(-np.inf)).astype(np.float64) <= limit
    unsure = np.flatnonzero(~within & below)
    within[unsure] = exact_sq_distance(rows[part[unsure]], rows[numbers[found.index[unsure]]]) <= limit
    return within


def _leaders_of_batch(rows: FloatArray, limit: float) -> IndexArray:
    """Rows, of a few thousand, that have no kept row before them within ``limit``, ascending.

    Most pairs are decided by a float64 matrix product, whose bits may depend on the machine: with a and b the rows
    minus their mean, |a - b|^2 by its expansion differs from r by less than 4 (D + 16) 2^-53 (|a| + |b|)^2: D + 2
    roundings of a sum whose terms add up to at most (|a| + |b|)^2 (docs/search.md, section 1), one rounding of each
    value of a and b, and r's own. Pairs that are closer to the limit are decided by r.
    """
    if len(rows) < 2:
        return np.arange(len(rows), dtype=np.int64)
    a = rows.astype(np.float64)
    a -= a.mean(axis=0)
    square = (a * a).sum(axis=1)
    norm = np.sqrt(square)
    distance = square[:, None] + square[None, :] - 2 * (a @ a.T)
    slack = 4 * (rows.shape[1] + 16) * 2.0**-53 * (norm[:, None] + norm[None, :]) ** 2
    within = distance + slack <= limit
    unsure = np.argwhere(np.triu(~within & (distance - slack <= limit), 1))
    for start in range(0, len(unsure), _BATCH):
        i, j = unsure[start : start + _BATCH].T
        close = exact_sq_distance(rows[i], rows[j]) <= limit
        within[i[close], j[close]] = True
    covered = np.zeros(len(rows), dtype=np.bool_)
    kept = []
    for i in range(len(rows)):
        if not covered[i]:
            kept.append(i)
            covered |= within[i]
    return np.array(kept, dtype=np.int64)
