"""The basis in which the compiled engine computes its bounds: principal directions of a sample.

Any orthonormal directions give correct bounds (docs/search.md), and principal ones give tight bounds. The sample
and the rounding here decide how fast a search is, never its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import eigh, solve_triangular

from ..array_types import Array, DoubleArray, FloatArray, IndexArray
from ..system.memory import mapped_file, release_pages

_OVERSAMPLING = 8
_LEADING = 32
_MAPPED_ROWS = 64
_ROWS_AT_ONCE = 256


class Basis:
    """Centre, power-of-two scale and leading principal directions of (a sample of) some rows.

    Attributes:
        dim: values in a row.
        rank: directions kept; at most ``dim``.
        captured: share of the sample's variance in the 32 leading directions, 0 to 1: whether bounds can pay.
    """

    def __init__(self, sample: Array, rank: int, *, power_iterations: int = 3) -> None:
        self.dim = int(sample.shape[1])
        self.rank = min(rank, self.dim)
        self._centre: DoubleArray = np.asarray(np.mean(sample, axis=0, dtype=np.float64))
        with np.errstate(over="ignore"):
            largest = np.sqrt(max(float(np.einsum("ij,ij->i", part, part).max()) for part in self._centred(sample)))
        self.captured = 0.0
        self._scale = 1.0
        if not 0.0 < largest < np.inf:
            self._directions = np.eye(self.rank, self.dim, dtype=np.float32)
        else:
            self._scale = float(2.0 ** -np.floor(np.log2(largest)))
            scaled = np.concatenate([(part * self._scale).astype(np.float32) for part in self._centred(sample)])
            self._directions = principal_directions(scaled, self.rank, power_iterations)
            leading = scaled @ self._directions[:_LEADING].T
            total = _sum_of_squares(scaled)
            self.captured = min(1.0, _sum_of_squares(leading) / total) if total > 0.0 else 0.0

    def _centred(self, sample: Array) -> Iterator[DoubleArray]:
        """The sample less its centre, in parts that stay in cache."""
        for start in range(0, len(sample), _ROWS_AT_ONCE):
            yield np.subtract(sample[start : start + _ROWS_AT_ONCE], self._centre, dtype=np.float64)

    def arrays(self) -> dict[str, Array]:
        """The basis as plain arrays, float32 and float64, which `from_arrays` takes."""
        return {
            "basis_centre": self._centre,
            "basis_directions": self._directions.reshape(-1),
            "basis_numbers": np.array([self._scale, self.captured]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], dim: int) -> Basis:
        """The basis of these `arrays`, for rows of ``dim`` values; ValueError where they cannot be one."""
        wanted = {"basis_centre": np.float64, "basis_directions": np.float32, "basis_numbers": np.float64}
        for name, dtype in wanted.items():
            array = arrays.get(name)
            if array is None or array.dtype != dtype or array.ndim != 1 or not np.isfinite(array).all():
                raise ValueError(f"basis: array {name!r} is missing, not finite, or of another dtype or shape")
        centre, directions, numbers = (arrays[name] for name in wanted)
        basis = object.__new__(cls)
        basis.dim, basis.rank = dim, len(directions) // dim
        lengths = len(centre), len(directions), len(numbers)
        if lengths != (dim, basis.rank * dim, 2) or not 1 <= basis.rank <= dim:
            raise ValueError(f"basis: its arrays do not match each other, or rows of {dim} values")
        basis._scale, basis.captured = map(float, numbers)
        if basis._scale <= 0.0 or np.frexp(basis._scale)[0] != 0.5:
            raise ValueError("basis: the scale must be a power of two")
        basis._centre = np.array(centre)
        basis._directions = np.ascontiguousarray(directions.reshape(basis.rank, dim))
        return basis

    @cached_property
    def native(self) -> Any:
        """The compiled engine's form of this basis."""
        from .. import _core

        wide = self._directions.astype(np.float64)
        gap = wide @ wide.T - np.eye(self.rank)
        # How far the directions are from orthonormal. Entries of the product are off by up to dim * 2^-53.
        defect = float(np.sqrt(np.einsum("ij,ij->", gap, gap))) + self.rank * self.dim * 2.0**-52
        return _core.Basis(self._centre, self._scale, self._directions, defect)


def sample_rows(rows: FloatArray, index: IndexArray | None, count: int) -> FloatArray:
    """At most ``count`` evenly spaced rows: float32 (s, D)."""
    total = len(rows) if index is None else len(index)
    picked = np.unique(np.linspace(0, total - 1, num=min(count, total)).astype(np.int64))
    numbers = picked if index is None else index[picked]
    if mapped_file(rows) is None:
        chosen: FloatArray = rows[numbers]
        return chosen
    # The system reads the neighbours of each row as well: a file in memory would be mapped as a whole.
    out = np.empty((len(numbers), rows.shape[1]), dtype=np.float32)
    for start in range(0, len(numbers), _MAPPED_ROWS):
        out[start : start + _MAPPED_ROWS] = rows[numbers[start : start + _MAPPED_ROWS]]
        release_pages(rows)
    return out


def _sum_of_squares(values: FloatArray) -> float:
    return float(np.einsum("ij,ij->", values, values, dtype=np.float64))


def _orthonormal(columns: Array, *, passes: int = 3) -> DoubleArray:
    """An orthonormal basis, float64, of the space that some columns (D, w) span.

    By the Cholesky factor of their Gram matrix: a pass leaves a defect of about the square of the columns' condition
    number times float64's rounding, so after three passes only rounding is left. Linearly dependent columns have no
    such factor: for them by Householder's QR.
    """
    wide = columns.astype(np.float64)
    try:
        for _ in range(passes):
            factor = np.linalg.cholesky(wide.T @ wide)
            wide = solve_triangular(factor, wide.T, lower=True, check_finite=False).T
        if np.isfinite(wide).all():
            return wide
    except np.linalg.LinAlgError:
        pass
    return np.linalg.qr(columns.astype(np.float64))[0]


def principal_directions(scaled: FloatArray, rank: int, power_iterations: int = 3) -> FloatArray:
    """Leading right singular vectors (rank, D), by randomized subspace iteration where that is cheaper.

    ``scaled`` are rows of about unit size. Orthonormal as far as float32 allows: any defect loosens every bound.
    """
    count, dim = scaled.shape
    width = rank + _OVERSAMPLING
    if width * 2 >= dim:
        # Only the vectors that are kept: a longer call, which no interrupt ends, for all of them.
        leading = (dim - rank, dim - 1)
        vectors = eigh(scaled.T @ scaled, subset_by_index=leading, overwrite_a=True, check_finite=False)[1]
        return np.ascontiguousarray(_orthonormal(vectors[:, ::-1]).T, dtype=np.float32)
    generator = np.random.default_rng(0)  # fixed: the same rows give the same saved model
    subspace = generator.standard_normal((dim, width), dtype=np.float32)
    # Multiply by the Gram matrix of the rows, or by the rows twice: whichever is less work.
    gram = None
    if count * dim // 2 + (power_iterations + 1) * dim * width < (2 * power_iterations + 1) * count * width:
        gram = scaled.T @ scaled
    for _ in range(power_iterations):
        grown = scaled.T @ (scaled @ subspace) if gram is None else gram @ subspace
        subspace = _orthonormal(grown, passes=1).astype(np.float32)
    if gram is None:
        projected = scaled @ subspace
        small = projected.T @ projected
    else:
        small = subspace.T @ (gram @ subspace)
    rotation = np.linalg.eigh(small)[1]
    return np.ascontiguousarray(_orthonormal(subspace @ rotation[:, ::-1][:, :rank]).T, dtype=np.float32)
