"""Views of members' descriptors that are in several arrays or files: read a few at a time, in their order.

Members are in (image, patch) order. While a fit runs they are in a `RowLog` (row_log.py); in a fitted model the nominal
ones are `NominalModel.patches` and the others a second array, both perhaps memory-mapped from its file.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..array_types import BoolArray, FloatArray
from ..memory import mapped_file, release_pages
from ..method.channels import MemberRows


class ArrayRows:
    """Rows of one array; of a memory-mapped one the pages that were read leave memory again."""

    def __init__(self, array: FloatArray) -> None:
        self.array = array
        self.dim = int(array.shape[1])
        self._mapped = mapped_file(array) is not None

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> FloatArray:
        """See `MemberRows`."""
        rows = self.array[start:stop]
        if self._mapped:
            copied = np.array(rows)
            release_pages(rows)
            return copied
        return rows


class SplitRows:
    """Rows of two sources, each in order; ``chosen``, bool (n,), says which rows are in the first."""

    def __init__(self, chosen: BoolArray, first: MemberRows, second: MemberRows) -> None:
        self.dim = first.dim
        self._chosen = chosen
        self._before = np.concatenate([[0], np.cumsum(chosen, dtype=np.int64)])
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, start: int, stop: int) -> FloatArray:
        """See `MemberRows`."""
        low, high = int(self._before[start]), int(self._before[stop])
        if high - low == stop - start:
            return self._first.read(low, high)
        chosen = self._chosen[start:stop]
        out = np.empty((stop - start, self.dim), dtype=np.float32)
        out[chosen] = self._first.read(low, high)
        out[~chosen] = self._second.read(start - low, stop - high)
        return out


class ChainedRows:
    """Ranges (rows, start, stop) of other rows, one behind the other; ``dim`` values in a row."""

    def __init__(self, parts: Iterable[tuple[MemberRows, int, int]], dim: int) -> None:
        self.dim = dim
        self._parts = [part for part in parts if part[2] > part[1]]
        lengths = [stop - start for _, start, stop in self._parts]
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> FloatArray:
        """See `MemberRows`."""
        pieces = []
        part = max(int(np.searchsorted(self._starts, start, side="right")) - 1, 0)
        while start < stop:
            rows, first, _ = self._parts[part]
            base, end = int(self._starts[part]), min(stop, int(self._starts[part + 1]))
            pieces.append(rows.read(first + start - base, first + end - base))
            start, part = end, part + 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty((0, self.dim), np.float32), *pieces])
