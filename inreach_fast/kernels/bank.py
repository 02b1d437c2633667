"""A set of rows, checked and prepared once, that can be searched many times; and the checks of what callers give."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..array_types import Array, FloatArray, IndexArray
from ..errors import DataError, MixedSizesError, ParameterError
from ..system.memory import mapped_file, release_pages
from .basis import Basis
from .gpu.devices.interop import library_of, lives_on_gpu
from .gpu.rows import GpuRows, raise_nonfinite

try:
    from .. import _core
except ImportError:
    _core = None  # type: ignore[assignment]

_T = TypeVar("_T")

_CHUNK_BYTES = 64 << 20


_indexer: Callable[[], Any]


def set_indexer(find: Callable[[], Any]) -> None:
    """Names the function that finds the `Backend` that builds indexes (called by `registry`, which imports this)."""
    global _indexer
    _indexer = find


@dataclass
class _SharedBasis:
    """The basis of a bank and of those that share it, fitted at first need on the first one's rows."""

    rows: FloatArray
    index: IndexArray | None
    basis: Basis | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Bank:
    """Rows to search among, checked and prepared once.

    Args:
        rows: (N, D) float32 in C order, kept by reference (anything else that converts without loss is
            copied), or an array on a GPU (torch, CuPy, DLPack), which is searched there, in place. The rows must not
            change while the bank lives.
        groups: int64 (n,), optional: a query skips the rows whose group equals its own (leave-one-image-out).
        index: int64 (n,), optional: row j of the bank is ``rows[index[j]]``, so that a subset is searched
            without a copy. Results number the bank's rows, 0 to n-1.
        floor: float32 (n,), optional, at least 0: a search in one direction counts row j as max(squared distance,
            floor[j]); one with a floor of infinity is never found (see `kernels.nearest`).
        basis: a `Bank` (or its ``basis``) whose basis this one uses, so that a search between the two projects
            neither of them twice. Affects speed only.
        index_arrays: what `index_arrays` returned for the same rows, kept by reference (they may be memory-mapped).
            Then nothing is built, and the rows are not read, so they are not checked for NaN either. Sizes
            and row numbers are checked, but not that the arrays belong to these rows: with the arrays of other
            rows the answers are wrong (a model file has checksums).

    Attributes:
        name: what error messages call the bank.
        rows: the array given, (N, D) float32. Rows on a GPU are copied to the CPU when they are read.
        dim: values in a row.
        index: which of ``rows`` are the bank's, int64 (n,); None for all.
        groups: group of each bank row, int64 (n,), or None.
        floor: least value of each bank row, float32 (n,), or None.
        gpu: the rows where they are on a GPU, else None.
        mapped: whether the rows are a memory-mapped file; a search keeps little of a large one in memory.
        persistent: False for rows of a single call, for which backends prepare only what pays within it.

    Raises:
        ParameterError: wrong dtype, shape or length, or arrays that cannot be an index of these rows.
        NonFiniteError: NaN or infinity (for rows on a GPU, raised by the first search). DataError: no rows.
    """

    def __init__(
        self,
        rows: Any,
        groups: Any = None,
        *,
        index: Any = None,
        floor: Any = None,
        basis: Any = None,
        index_arrays: Mapping[str, Array] | None = None,
        name: str = "bank",
    ) -> None:
        self.name = name
        on_gpu = not isinstance(rows, np.ndarray) and lives_on_gpu(rows)
        self.gpu: GpuRows | None = GpuRows(rows, name) if on_gpu else None
        held: Any = as_float32(rows, name) if self.gpu is None else self.gpu
        self.rows: FloatArray = held
        self.dim = int(self.rows.shape[1])
        self.index = None if index is None else as_ids(index, "index")
        if self.index is not None:
            check_index(self.index, len(self.rows), "index")
        self.groups = None if groups is None else as_ids(groups, "groups", len(self))
        self.floor = None if floor is None else as_floor(floor, "floor", len(self))
        check_not_empty(len(self), name)
        check_not_empty(self.dim, f"{name} (second dimension)")
        if self.gpu is None and not index_arrays:
            check_finite(self.rows, name, self.index)
        self.mapped = mapped_file(self.rows) is not None
        self.persistent = True
        self._prepared: dict[tuple[str, Hashable], Any] = {}
        self._lock = threading.RLock()
        if basis is not None and not (isinstance(basis, (Bank, Basis)) and basis.dim == self.dim):
            raise ParameterError(f"basis: expected a Bank (or its basis) of {self.dim} values in a row, got {basis!r}")
        self._basis: _SharedBasis = (
            basis._basis if isinstance(basis, Bank) else _SharedBasis(self.rows, self.index, basis)
        )
        if index_arrays and self.gpu is None:
            self._basis = _SharedBasis(self.rows, self.index, _indexer().adopt_index(self, index_arrays))

    @classmethod
    def for_call(cls, rows: Any, groups: Any = None, *, name: str) -> Bank:
        """A bank for one call: backends prepare only what pays within it."""
        bank = cls(rows, groups, name=name)
        bank.persistent = False
        return bank

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("rows", "dim", "index", "groups", "floor") and name in self.__dict__:
            raise AttributeError(f"{name}: cannot be changed; make another Bank")
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy gets the rows, and prepares anew.
        here = self.on_cpu()
        return partial(Bank, index=here.index, floor=here.floor), (here.rows, here.groups)

    def __len__(self) -> int:
        return len(self.rows) if self.index is None else len(self.index)

    def __repr__(self) -> str:
        return f"Bank({len(self)} rows of {self.dim})"

    @property
    def basis(self) -> Basis | None:
        """The basis of the compiled engine's bounds, once there is one."""
        return self._basis.basis

    def basis_or(self, fit: Callable[[FloatArray, IndexArray | None], Basis]) -> Basis:
        """The bank's basis; if there is none yet, ``fit(rows, index)`` of the bank that the basis was made for."""
        shared = self._basis
        with shared.lock:
            if shared.basis is None:
                shared.basis = fit(shared.rows, shared.index)
            return shared.basis

    def prepared(self, owner: str, make: Callable[[], _T], variant: Hashable = None) -> _T:
        """What ``owner`` (a backend) keeps for this bank, made by ``make`` at first use; one for each variant."""
        with self._lock:
            key = owner, variant
            if key not in self._prepared:
                self._prepared[key] = make()
            kept: _T = self._prepared[key]
            return kept

    def forget(self, owner: str) -> None:
        """Drops all that ``owner`` keeps for this bank."""
        with self._lock:
            for key in [key for key in self._prepared if key[0] == owner]:
                del self._prepared[key]

    def index_arrays(
        self, *, folder: str | os.PathLike[str] | None = None, memory_limit: int | None = None
    ) -> dict[str, Array]:
        """The search index as plain arrays to store with the rows; built now unless it exists.

        ``Bank(rows, groups, index_arrays=...)`` takes them back without a copy. On one machine the
        same rows give the same bytes, whatever ``folder``, ``memory_limit`` and `set_num_threads`.

        Args:
            folder: where to write the arrays, one file each; they are then memory-mapped, not held in memory.
            memory_limit: bytes that the build may take in addition to the rows; needs ``folder``. What does not
                fit goes through files in it, but for 34 bytes a row and a chunk of 768 rows.

        Returns:
            Arrays of float32, float64, int32 or uint8 by name, read-only; none where no index would be built:
            few rows, rows without structure, or no compiled engine.

        Raises:
            ParameterError: a limit without a folder. OSError: the folder cannot be written, or the disk is full.
        """
        if memory_limit is not None and folder is None:
            raise ParameterError("memory_limit: needs a folder for what memory may not hold; give folder as well")
        place = None if folder is None else Path(folder)
        arrays: dict[str, Array] = _indexer().index_arrays(self.on_cpu(), place, memory_limit)
        return arrays

    def gathered(self) -> FloatArray:
        """The bank's rows as one (n, D) float32 array in the CPU's memory; a copy only where it has to be one."""
        return np.asarray(self.rows if self.index is None else self.rows[self.index])

    def on_cpu(self) -> Bank:
        """The bank itself, or a copy in the CPU's memory where its rows are on a GPU."""
        if self.gpu is None:
            return self
        bank = Bank(self.gathered(), self.groups, floor=self.floor, name=self.name)
        bank.persistent = self.persistent
        return bank

    def with_groups(self, groups: Any) -> Bank:
        """The same bank under other groups (int64 (n,) or None); what was prepared is shared."""
        return self._with(groups=None if groups is None else as_ids(groups, "groups", len(self)))

    def with_floor(self, floor: Any) -> Bank:
        """The same bank with other floors (float32 (n,) or None); what was prepared is shared."""
        return self._with(floor=None if floor is None else as_floor(floor, "floor", len(self)))

    def _with(self, **changes: Any) -> Bank:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other


# ----------------------------------------------------------------------------------------------------- checks


def as_float32(value: Any, name: str, *, ndim: int = 2) -> FloatArray:
    """``value`` as a float32 C-order array, without a copy where it already is one.

    Other dtypes are converted where every value survives the conversion.

    Raises:
        ParameterError: wrong number of dimensions, not numeric, or a value that float32 cannot hold.
    """
    array = _as_array(value, name)
    if array.ndim != ndim:
        raise ParameterError(f"{name}: expected an array of {ndim} dimensions, got shape {array.shape}")
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    is_float = np.issubdtype(array.dtype, np.floating)
    if not is_float and not np.issubdtype(array.dtype, np.integer):
        raise ParameterError(f"{name}: expected float32 (or numbers that float32 can hold), got {array.dtype}")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32)
    if is_float:
        same = (converted.astype(array.dtype) == array) | np.isnan(array)
    else:  # compared in float64, where integers above 2^53 could round to the same number: those are refused
        wide = converted.astype(np.float64)
        same = (np.abs(wide) < 2.0**53) & (wide == array.astype(np.float64))
    if not np.all(same):
        where = tuple(int(i) for i in np.argwhere(~same)[0])
        raise ParameterError(
            f"{name}: converting {array.dtype} to float32 would change values (first at {where}: "
            f"{array[where]!r}); convert it with .astype(np.float32) to accept that"
        )
    return converted


def _as_array(value: Any, name: str) -> Array:
    if isinstance(value, np.ndarray):
        pass
    elif hasattr(value, "detach"):  # a torch tensor, perhaps on another device or with a gradient
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


def as_floor(value: Any, name: str, count: int) -> FloatArray:
    """``value`` as ``count`` least values, float32, at least 0, perhaps infinite; ParameterError otherwise."""
    floor = as_float32(value, name, ndim=1)
    if len(floor) != count:
        raise ParameterError(f"{name}: expected {count} entries, one for each row, got {len(floor)}")
    if not (floor >= 0).all():
        bad = int(np.argmin(floor >= 0))
        raise ParameterError(f"{name}: expected squared distances, at least 0, got {floor[bad]} at {bad}")
    return np.abs(floor) if np.signbit(floor).any() else floor  # -0 would show in some backends' answers


def as_hint(value: Any, queries: int, rows: int) -> IndexArray:
    """``value`` as one bank row for each query, int64 (queries,), -1 for none; ParameterError otherwise."""
    hint = as_ids(value, "hint", queries)
    check_index(hint, rows, "hint", least=-1)
    return hint


def check_index(index: IndexArray, rows: int, name: str, *, least: int = 0) -> None:
    """Raises ParameterError unless every entry of ``index`` is in [least, rows)."""
    if index.size and (int(index.min()) < least or int(index.max()) >= rows):
        raise ParameterError(f"{name}: entries must lie in [{least}, {rows}), got {index.min()} to {index.max()}")


def check_finite(rows: FloatArray, name: str, index: IndexArray | None = None) -> None:
    """Raises NonFiniteError naming the first row of ``rows`` (or of ``rows[index]``) that holds NaN or infinity."""
    count = len(rows) if index is None else len(index)
    step = max(1, _CHUNK_BYTES // max(1, rows.shape[1] * rows.itemsize))  # a mask of a whole bank could take gigabytes
    for start in range(0, count, step):
        part, numbers = (rows[start : start + step], None) if index is None else (rows, index[start : start + step])
        if _core is not None:
            bad = int(_core.first_nonfinite_row(part, numbers))
        else:
            finite = np.isfinite(part if numbers is None else part[numbers]).all(axis=1)
            bad = -1 if finite.all() else int(np.argmin(finite))
        if index is None:
            release_pages(part)  # otherwise a whole mapped file would stay in memory after one look
        if bad >= 0:
            raise_nonfinite(start + bad, count, name)


def check_same_dim(a: int, a_name: str, b: int, b_name: str) -> None:
    """Raises MixedSizesError unless both sets have rows of one length."""
    if a != b:
        raise MixedSizesError(f"{a_name} and {b_name}: rows of {a} and {b} values cannot be compared")


def check_not_empty(count: int, name: str) -> None:
    """Raises DataError where a set that must have rows has none."""
    if count == 0:
        raise DataError(f"{name}: has no rows; at least one is needed")
