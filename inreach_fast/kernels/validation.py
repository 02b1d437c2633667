"""Checks of what callers hand to the kernels: one typed error for each way to get it wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..array_types import Array, BoolArray, FloatArray, IndexArray
from ..errors import DataError, MixedSizesError, NonFiniteError, ParameterError
from ..memory import mapped_file, release_pages
from .gpu.devices.interop import library_of, lives_on_gpu

_CHUNK_ROWS = 4096
_MAPPED_BYTES = 64 << 20


def as_float32(value: Any, name: str, *, ndim: int | tuple[int, ...] = 2) -> FloatArray:
    """``value`` as a float32 C-order array, without a copy where it already is one.

    Other dtypes are converted where every value survives the conversion.

    Raises:
        ParameterError: wrong number of dimensions, not numeric, or a value that float32 cannot hold.
    """
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    array = _as_array(value, name)
    if array.ndim not in allowed:
        wanted = " or ".join(str(n) for n in allowed)
        raise ParameterError(f"{name}: expected an array of {wanted} dimensions, got shape {array.shape}")
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_ or not (
        np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    ):
        raise ParameterError(f"{name}: expected float32 (or numbers that float32 can hold), got {array.dtype}")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32)
    same = (
        converted.astype(array.dtype) == array
        if np.issubdtype(array.dtype, np.floating)
        else _same_int(converted, array)
    )
    if np.issubdtype(array.dtype, np.floating):
        same |= np.isnan(array)
    if not np.all(same):
        where = tuple(int(i) for i in np.argwhere(~same)[0])
        raise ParameterError(
            f"{name}: converting {array.dtype} to float32 would change values (first at {where}: "
            f"{array[where]!r}); convert it yourself with .astype(np.float32) if that is meant"
        )
    return converted


def _same_int(converted: FloatArray, array: Array) -> BoolArray:
    # Through float64 integers above 2^53 would compare equal after rounding; float32 holds few of them anyway.
    wide = converted.astype(np.float64)
    fits = np.abs(wide) < 2.0**53
    return np.asarray(fits & (wide == array.astype(np.float64)))


def _as_array(value: Any, name: str) -> Array:
    if hasattr(value, "detach"):  # a torch tensor, perhaps on another device or with a gradient
        value = value.detach()
        if getattr(value, "device", None) is not None and value.device.type != "cpu":
            value = value.cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such type; float32 holds all its values
            value = value.float()
    elif lives_on_gpu(value):
        library = library_of(value)
        value = library.to_host(library.adopt(value), slice(None))
    elif hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{name}: cannot be read as an array: {error}") from error
    if array.dtype == object:
        raise ParameterError(f"{name}: expected a rectangular array of numbers, got ragged or mixed objects")
    return array


def as_ids(value: Any, name: str, count: int | None = None) -> IndexArray:
    """``value`` as an int64 C-order vector (of ``count`` entries).

    Raises:
        ParameterError: not integers, not a vector, or the wrong length.
    """
    array = _as_array(value, name)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ParameterError(f"{name}: expected a vector of integers, got {array.dtype} of shape {array.shape}")
    if count is not None and len(array) != count:
        raise ParameterError(f"{name}: expected {count} entries, one for each row, got {len(array)}")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ParameterError(f"{name}: values must fit into int64")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_index(index: IndexArray, rows: int, name: str) -> None:
    """Raises ParameterError unless every entry of ``index`` is in [0, rows)."""
    if index.size and (int(index.min()) < 0 or int(index.max()) >= rows):
        raise ParameterError(f"{name}: entries must lie in [0, {rows}), got {index.min()} to {index.max()}")


def as_hint(value: Any, name: str, queries: int, rows: int) -> IndexArray:
    """``value`` as one bank row for each query, int64 (queries,), -1 for none; ParameterError otherwise."""
    hint = as_ids(value, name, queries)
    if hint.size and (int(hint.min()) < -1 or int(hint.max()) >= rows):
        raise ParameterError(f"{name}: entries must lie in [-1, {rows}), got {hint.min()} to {hint.max()}")
    return hint


def check_finite(rows: FloatArray, name: str, index: IndexArray | None = None) -> None:
    """Raises NonFiniteError naming the first row that holds NaN or infinity.

    ``rows`` is (n, D) float32; with ``index`` only those rows are looked at.
    """
    if index is None and mapped_file(rows) is not None:
        bad = _first_nonfinite_mapped_row(rows)
    else:
        bad = _first_nonfinite(rows, index)
    if bad >= 0:
        raise NonFiniteError(
            f"{name}: row {bad} holds NaN or infinity; remove or repair it before the search "
            "(distances to it have no meaning)"
        )


def _first_nonfinite_mapped_row(rows: FloatArray) -> int:
    step = max(1, _MAPPED_BYTES // max(1, rows.shape[1] * rows.itemsize))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        bad = _first_nonfinite(part, None)
        release_pages(part)  # they would all stay in memory, for one look at each
        if bad >= 0:
            return start + bad
    return -1


def _first_nonfinite(rows: FloatArray, index: IndexArray | None) -> int:
    try:
        from .. import _core
    except ImportError:
        return _first_nonfinite_row(rows, index)
    return int(_core.first_nonfinite_row(rows, index))


def _first_nonfinite_row(rows: FloatArray, index: IndexArray | None) -> int:
    count = len(rows) if index is None else len(index)
    for start in range(0, count, _CHUNK_ROWS):  # in chunks: a mask of a whole bank would take gigabytes
        stop = min(start + _CHUNK_ROWS, count)
        chunk = rows[start:stop] if index is None else rows[index[start:stop]]
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
    return -1


def check_same_dim(a: int, a_name: str, b: int, b_name: str) -> None:
    """Raises MixedSizesError unless both sets have rows of one length."""
    if a != b:
        raise MixedSizesError(f"{a_name} and {b_name}: rows of {a} and {b} values cannot be compared")


def check_k(k: Any) -> int:
    """``k`` as an int >= 1; ParameterError otherwise."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ParameterError(f"k: expected a whole number of at least 1, got {k!r}")
    return int(k)


def check_not_empty(count: int, name: str) -> None:
    """Raises DataError where a set that must have rows has none."""
    if count == 0:
        raise DataError(f"{name}: has no rows; at least one is needed")
