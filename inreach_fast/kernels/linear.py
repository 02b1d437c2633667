"""Rows in fewer values: the linear map of principal components."""

from __future__ import annotations

from typing import Any

from ..array_types import FloatArray
from ..errors import MixedSizesError
from .bank import as_float32
from .registry import cpu_backend


def linear_map(rows: Any, mean: Any, matrix: Any, *, backend: str = "auto") -> FloatArray:
    """``(rows - mean) @ matrix``, with the same bits for every backend, instruction set and number of threads.

    Each difference and each product is rounded to float32, and the D products of an output are added in ascending order
    in float32. It runs on the CPU.

    Args:
        rows: (m, D) float32 or anything convertible without loss.
        mean: (D,), the same.
        matrix: (D, d), the same.
        backend: "auto" or one of `available_backends`.

    Returns:
        float32 (m, d).

    Raises:
        ParameterError: wrong dtype or number of dimensions. MixedSizesError: shapes that do not fit.
    """
    rows, mean, matrix = as_float32(rows, "rows"), as_float32(mean, "mean", ndim=1), as_float32(matrix, "matrix")
    dim = rows.shape[1]
    if len(mean) != dim or len(matrix) != dim or 0 in matrix.shape:
        raise MixedSizesError(
            f"mean, matrix: expected ({dim},) and ({dim}, d) for rows of {dim} values, got {mean.shape} and "
            f"{matrix.shape}"
        )
    return cpu_backend(backend).linear_map(rows, mean, matrix)
