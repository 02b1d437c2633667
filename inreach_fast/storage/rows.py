"""Members' descriptors that are in several arrays or files, read a few at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..array_types import BoolArray, FloatArray, IndexArray, UInt8Array
from ..system.memory import release_pages
from .row_log import RowLog


class GatheredRows:
    """Row i, float32 (D,), is row ``at[i]`` of ``sources[source[i]]``; implements `MemberRows`.

    Pages of memory-mapped sources that were read leave memory again.

    Args:
        sources: (n_k, D) arrays or logs. source: uint8 (n,). at: int64 (n,).
    """

    def __init__(self, sources: Sequence[FloatArray | RowLog], source: UInt8Array, at: IndexArray) -> None:
        first = sources[0]
        self.dim = first.dim if isinstance(first, RowLog) else int(first.shape[1])
        self._sources, self._source, self._at = list(sources), source, at

    @classmethod
    def split(cls, chosen: BoolArray, first: FloatArray, second: FloatArray) -> GatheredRows:
        """Rows that are in ``first`` where ``chosen``, bool (n,), and in ``second`` otherwise, each in order."""
        at = np.where(chosen, np.cumsum(chosen), np.cumsum(~chosen)) - 1
        return cls([first, second], (~chosen).view(np.uint8), at)

    def followed_by(self, log: RowLog) -> GatheredRows:
        """These rows, then those of the log."""
        source = np.full(len(log), len(self._sources), np.uint8)
        at = np.concatenate([self._at, np.arange(len(log))])
        return GatheredRows([*self._sources, log], np.concatenate([self._source, source]), at)

    def taken(self, rows: IndexArray) -> GatheredRows:
        """The rows with these numbers, int64 (m,), in their order."""
        return GatheredRows(self._sources, self._source[rows], self._at[rows])

    def __len__(self) -> int:
        return len(self._at)

    def read(self, start: int, stop: int) -> FloatArray:
        """See `MemberRows`."""
        out = np.empty((stop - start, self.dim), dtype=np.float32)
        for number in np.unique(self._source[start:stop]).tolist():
            places = np.flatnonzero(self._source[start:stop] == number)
            source, at = self._sources[number], self._at[start:stop][places]
            ends = np.flatnonzero(np.diff(at) != 1) + 1
            for to, run in zip(np.split(places, ends), np.split(at, ends), strict=True):
                first, last = int(run[0]), int(run[-1]) + 1
                rows = source.read(first, last) if isinstance(source, RowLog) else source[first:last]
                out[to] = rows
                release_pages(rows)
        return out
