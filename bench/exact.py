"""The right answer, independent of the package: float64 brute force over the float32 inputs.

The expanded form in float64 finds, for each query, the rows that can be nearest (its error is about 1e-13 of the
squared norms; rows within 1e-9 are kept). Differences in float64, summed in the lanes and the tree of the contract,
decide between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
_BLOCK = 8192


def sq_distance(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Squared L2 distance of one row x (D,) to rows y (n, D), float64: 16 lanes, folded 8, 4, 2, 1."""
    d = y.astype(np.float64) - x.astype(np.float64)
    d *= d
    d = np.pad(d, ((0, 0), (0, -d.shape[1] % 16)))
    acc = np.zeros((len(d), 16))
    for i in range(0, d.shape[1], 16):
        acc += d[:, i : i + 16]
    for half in (8, 4, 2, 1):
        acc = acc[:, :half] + acc[:, half : 2 * half]
    return np.asarray(acc[:, 0])


def nearest(queries: Rows, bank: Rows) -> tuple[npt.NDArray[np.int64], Rows]:
    """Index int64 (m,) (the lowest on ties) and squared distance float32 (m,) of each query's nearest row."""
    q = queries.astype(np.float64)
    q_norm = (q * q).sum(axis=1)
    expanded = np.empty((len(queries), len(bank)))
    norms = np.empty(len(bank))
    for start in range(0, len(bank), _BLOCK):
        part = bank[start : start + _BLOCK].astype(np.float64)
        norms[start : start + _BLOCK] = (part * part).sum(axis=1)
        expanded[:, start : start + _BLOCK] = norms[start : start + _BLOCK] - 2 * (q @ part.T)
    slack = 1e-9 * (q_norm + norms.max())
    index = np.empty(len(queries), dtype=np.int64)
    distance = np.empty(len(queries), dtype=np.float32)
    for i, row in enumerate(queries):
        candidates = np.flatnonzero(expanded[i] <= expanded[i].min() + slack[i])
        exact = sq_distance(row, bank[candidates])
        best = int(exact.argmin())  # the first of equal distances; candidates ascend
        index[i], distance[i] = candidates[best], exact[best]
    return index, distance


def sample(n: int, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """``count`` of ``n`` rows (all if there are fewer), ascending; the seed decides which."""
    if n <= count:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n, size=count, replace=False)).astype(np.int64)


def check(query: Rows, bank: Rows, index: Any, sq_distance: Any, size: int) -> dict[str, str]:
    """How many sampled answers equal float64 brute force, index and bits; the sample shrinks as the bank grows."""
    rows = sample(len(query), 64 if size > 50_000 else 256)
    true_index, true_distance = nearest(query[rows], bank)
    right = (index[rows] == true_index) & (sq_distance[rows] == true_distance)
    return {"equal to float64 brute force, index and bits": f"{int(right.sum())} of {len(rows)}"}
