"""A set of rows prepared once and searched many times."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..array_types import Array, FloatArray, IndexArray
from ..errors import ParameterError
from ..memory import mapped_file
from .gpu.devices.interop import lives_on_gpu
from .validation import as_float32, as_ids, check_finite, check_index, check_not_empty

if TYPE_CHECKING:
    from .basis import Basis


class Bank:
    """Rows to search among, checked and prepared once.

    Args:
        rows: (N, D) float32 in C order, kept by reference (anything else that converts without loss is
            copied), or an array on a GPU (torch, CuPy, DLPack), which is searched there, in place. They must not
            change while the bank lives.
        groups: int64 (n,), optional: a query whose group equals a row's passes that row over
            (leave-one-image-out).
        index: int64 (n,), optional: row j of the bank is ``rows[index[j]]``, so that a subset is searched
            without a copy. Results number the bank's rows, 0 to n-1.
        basis: a `Bank` (or its ``basis``) whose frame this one shares, so that neither has to be projected
            again when the two meet. A matter of speed alone.
        index_arrays: what `index_arrays` gave for the same rows, kept by reference (they may be memory-mapped):
            nothing is built then, and the rows are not read, so that they are not checked for NaN either. Sizes
            and row numbers are checked; whether the numbers are those of these rows is for whoever kept them
            to know (a model file has checksums): with other rows' arrays the answers are wrong.

    Raises:
        ParameterError: wrong dtype, shape or length, or arrays that cannot be an index of these rows.
        NonFiniteError: NaN or infinity. DataError: no rows.
    """

    def __new__(cls, rows: Any = None, *_arguments: Any, **_named: Any) -> Bank:
        """Rows on a GPU make a `GpuBank`, which is searched there."""
        if cls is Bank and lives_on_gpu(rows):
            from .gpu.bank import GpuBank

            return object.__new__(GpuBank)
        return object.__new__(cls)

    def __init__(
        self,
        rows: Any,
        groups: Any = None,
        *,
        index: Any = None,
        basis: Any = None,
        index_arrays: Mapping[str, Array] | None = None,
        name: str = "bank",
    ) -> None:
        self._rows = as_float32(rows, name)
        self._index = None if index is None else as_ids(index, "index")
        if self._index is not None:
            check_index(self._index, len(self._rows), "index")
        self._groups = None if groups is None else as_ids(groups, "groups", len(self))
        check_not_empty(len(self), name)
        check_not_empty(self.dim, f"{name} (second dimension)")
        if not index_arrays:
            check_finite(self._rows, name, self._index)
        self._mapped = mapped_file(self._rows) is not None
        self._prepared: dict[str, Any] = {}
        # None or one; a list, so that banks of one frame share it whichever of them fits it.
        self._basis: list[Basis] = [] if basis is None else _shared_list(basis, self.dim)
        self.lock = threading.RLock()
        # False for arrays wrapped for a single call: what is prepared for them must pay within it.
        self.persistent = True
        # True: coordinates in the basis stay in memory once computed (a quarter of the rows' size or less).
        self.keep_projected = False
        if index_arrays:
            native = _native_backend()
            if native is not None:
                native.adopt_index(self, index_arrays)

    @classmethod
    def for_call(cls, rows: Any, groups: Any = None, *, name: str) -> Bank:
        """A bank for one call: backends prepare only what pays within it."""
        bank = cls(rows, groups, name=name)
        bank.persistent = False
        return bank

    def __reduce__(self) -> tuple[Any, ...]:
        # Rows travel, locks and what was prepared do not: a copy prepares anew.
        return _rebuilt, (self._rows, self._groups, self._index)

    def __len__(self) -> int:
        return len(self._rows) if self._index is None else len(self._index)

    def __repr__(self) -> str:
        return f"Bank({len(self)} rows of {self.dim})"

    @property
    def dim(self) -> int:
        """Values in a row."""
        return int(self._rows.shape[1])

    @property
    def rows(self) -> FloatArray:
        """The array given, (N, D) float32; see ``index``."""
        return self._rows

    @property
    def index(self) -> IndexArray | None:
        """Which of ``rows`` are the bank's, int64 (n,); None for all."""
        return self._index

    @property
    def groups(self) -> IndexArray | None:
        """Group of each bank row, int64 (n,), or None."""
        return self._groups

    @property
    def mapped(self) -> bool:
        """Whether ``rows`` lie in a mapped file: a search keeps little of a large one in memory."""
        return self._mapped

    @property
    def basis(self) -> Basis | None:
        """The frame of the compiled engine's bounds, once there is one."""
        return self._basis[0] if self._basis else None

    def basis_or(self, make: Callable[[], Basis]) -> Basis:
        """The basis, made by ``make`` if there is none yet."""
        with self.lock:
            if not self._basis:
                self._basis.append(make())
            return self._basis[0]

    def prepared(self, backend: str, make: Callable[[], Any]) -> Any:
        """What ``backend`` keeps for this bank, made by ``make`` at first use."""
        with self.lock:
            if backend not in self._prepared:
                self._prepared[backend] = make()
            return self._prepared[backend]

    def index_arrays(
        self, *, folder: str | os.PathLike[str] | None = None, memory_limit: int | None = None
    ) -> dict[str, Array]:
        """The search index as plain arrays to be kept beside the rows, built now if it was not yet.

        ``Bank(rows, groups, index_arrays=...)`` takes them back without a copy. On one machine the
        same rows give the same bytes, whatever ``folder``, ``memory_limit`` and `set_num_threads`.

        Args:
            folder: where to write the arrays, as one file each; they are then memory-mapped, not held.
            memory_limit: bytes that the build may take beside the rows; needs ``folder``. What does not fit
                goes through files in it.

        Returns:
            Arrays of float32, float64, int32 or uint8 by name, read-only; none where no index would be built:
            few rows, rows without structure, or no compiled engine.

        Raises:
            ParameterError: a limit without a folder. OSError: the folder cannot be written, or the disk is full.
        """
        if memory_limit is not None and folder is None:
            raise ParameterError("memory_limit: needs a folder for what memory may not hold; give folder as well")
        native = _native_backend()
        if native is None:
            return {}
        arrays: dict[str, Array] = native.index_arrays(self, None if folder is None else Path(folder), memory_limit)
        return arrays

    def gathered(self) -> FloatArray:
        """The bank's rows as one (n, D) float32 array: ``rows`` itself where there is no ``index``."""
        return self._rows if self._index is None else self._rows[self._index]

    def with_groups(self, groups: Any) -> Bank:
        """The same bank under other groups (int64 (n,) or None); what was prepared is shared."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._groups = None if groups is None else as_ids(groups, "groups", len(self))
        return other


def _native_backend() -> Any:
    """The compiled engine, or None where it is not installed."""
    from .registry import available_backends

    if "native" not in available_backends():
        return None
    from .cpu.native import search as native

    return native


def _rebuilt(rows: FloatArray, groups: IndexArray | None, index: IndexArray | None) -> Bank:
    return Bank(rows, groups, index=index)


def _shared_list(value: Any, dim: int) -> list[Basis]:
    from .basis import Basis

    if isinstance(value, Bank) and value.dim == dim:
        return value._basis
    if isinstance(value, Basis) and value.dim == dim:
        return [value]
    raise ParameterError(f"basis: expected a Bank (or its basis) of {dim} values in a row, got {value!r}")
