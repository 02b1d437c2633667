"""A set of rows prepared once and searched many times."""

from __future__ import annotations

import threading
from typing import Any

from .results import FloatArray, IndexArray
from .validation import as_float32, as_ids, check_finite, check_index, check_not_empty


class Bank:
    """Rows to search among, checked and prepared once.

    Args:
        rows: (N, D) float32 in C order, kept by reference (anything else that converts without loss is
            copied). They must not change while the bank lives.
        groups: int64 (n,), optional: a query whose group equals a row's passes that row over
            (leave-one-image-out).
        index: int64 (n,), optional: row j of the bank is ``rows[index[j]]``, so that a subset is searched
            without a copy. Results number the bank's rows, 0 to n-1.

    Raises:
        ParameterError: wrong dtype, shape or length. NonFiniteError: NaN or infinity. DataError: no rows.
    """

    def __init__(self, rows: Any, groups: Any = None, *, index: Any = None, name: str = "bank") -> None:
        self._rows = as_float32(rows, name)
        self._index = None if index is None else as_ids(index, "index")
        if self._index is not None:
            check_index(self._index, len(self._rows), "index")
        self._groups = None if groups is None else as_ids(groups, "groups", len(self))
        check_not_empty(len(self), name)
        check_not_empty(self.dim, f"{name} (second dimension)")
        check_finite(self._rows, name, self._index)
        self._prepared: dict[str, Any] = {}
        self._lock = threading.Lock()

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

    def gathered(self) -> FloatArray:
        """The bank's rows as one (n, D) float32 array: ``rows`` itself where there is no ``index``."""
        return self._rows if self._index is None else self._rows[self._index]

    def with_groups(self, groups: Any) -> Bank:
        """The same bank under other groups (int64 (n,) or None); what was prepared is shared."""
        other = object.__new__(Bank)
        other.__dict__.update(self.__dict__)
        other._groups = None if groups is None else as_ids(groups, "groups", len(self))
        return other
