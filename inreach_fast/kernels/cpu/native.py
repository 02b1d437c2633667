"""The compiled CPU engine, `inreach_fast._core`, as a backend.

A search takes one of two ways to the same answer. Bounds (csrc/cpu/engine/nearest_pruned.cpp) need a basis and an
index of the bank, and then decide few pairs; brute force needs nothing. This module chooses between them. The
engine itself also changes to brute force where bounds turn out not to pay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ... import _core
from ...array_types import Array, DoubleArray, FloatArray, IndexArray
from ...errors import ParameterError
from ..backend import Backend, both_ways, exact_bounds, with_answers
from ..band import Band
from ..bank import Bank
from ..basis import Basis, sample_rows
from ..describe_plan import Plan
from ..results import AnsweredNearest, MutualNearest, Nearest, NearestBounds, SearchCounts
from .index_files import build_in, write_to

# Bases of banks that are searched many times: (most rows, rank, rows of the sample). More directions rule out more
# rows but cost more to project on, which pays sooner the more rows there are: for 784 queries, patches of two products,
# 16, 18, 17 ms at 4000 rows for a rank of 128, 192, 256; 25, 22, 21 at 12,000; 53, 38, 36 at 32,000.
_BANK_BASES = ((1 << 13, 128, 2048), (1 << 14, 192, 4096), (None, 256, 4096))
# Rank and sample of a basis made for a single call.
_CALL_RANK, _CALL_SAMPLE = 64, 512
_MIN_BANK_ROWS = 512
# Fewest rows of two banks that are kept and searched in both directions, and fewest values of each: from the second
# search on nothing is projected. 196 x 196 x 1024: 0.7 ms, brute force 1.2; 196 x 196 x 128: 0.4 and 0.25.
_MIN_MUTUAL_ROWS, _MIN_MUTUAL_VALUES = 128, 200_000
# Below this share of variance in 32 directions bounds have never paid; the engine would find out as well.
_MIN_CAPTURED = 0.4
# Rows that are looked at before a basis is made for one call, and the number of directions in which they may vary
# (isotropic noise of 1024 dimensions: 114 of 128 rows; descriptors of real parts: 5 to 15).
_GLANCE_ROWS, _MAX_PARTICIPATION = 128, 40.0
# Multiply-adds of brute force from which a basis for one call pays.
_MIN_CALL_WORK = 6e9
_QUERY_CHUNK = 16384
# Rows of a bank of which all coordinates in the basis are kept (a quarter of the rows' size or less).
_KEEP_PROJECTED = 65536
# Bases of other banks under which an index of a bank is kept.
_MAX_FOREIGN = 1


@dataclass
class _Indexed:
    """What the engine keeps of one bank in one basis."""

    basis: _core.Basis
    index: _core.LeafIndex | None = None
    projected: _core.ProjectedRows | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def leaf_index(self, bank: Bank) -> _core.LeafIndex:
        """The bank's search index, built at first use."""
        with self.lock:
            if self.index is None:
                self.index = _core.LeafIndex(self.basis, bank.rows, bank.index, self.projected)
            return self.index

    def coordinates(self, bank: Bank, first: int, stop: int) -> _core.ProjectedRows:
        """Rows first to stop-1 of the bank in the basis."""
        if self.projected is not None and stop - first == len(bank):
            return self.projected
        return _core.ProjectedRows(self.basis, *_slice(bank, first, stop))

    def coordinates_of(self, bank: Bank, numbers: IndexArray) -> _core.ProjectedRows:
        """Rows of the bank, by number, in the basis."""
        if self.projected is not None:
            return self.projected.take(numbers)
        return _core.ProjectedRows(self.basis, bank.rows, _row_numbers(bank, numbers))

    def keep_coordinates(self, bank: Bank) -> None:
        """Projects all rows of a small bank at once, for searches to come."""
        with self.lock:
            if self.projected is None and len(bank) <= _KEEP_PROJECTED:
                self.projected = _core.ProjectedRows(self.basis, bank.rows, bank.index)


@dataclass
class _AllIndexed:
    """A bank in each basis that it was searched in: its own, and the latest of other banks' while those live."""

    by_basis: WeakKeyDictionary[Basis, _Indexed] = field(default_factory=WeakKeyDictionary)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _indexed(bank: Bank, basis: Basis) -> _Indexed:
    kept = bank.prepared("native", _AllIndexed)
    with kept.lock:
        if basis not in kept.by_basis:
            foreign = [known for known in kept.by_basis if known is not bank.basis]
            if basis is not bank.basis and len(foreign) >= _MAX_FOREIGN:
                del kept.by_basis[foreign[0]]
            kept.by_basis[basis] = _Indexed(basis.native)
        return kept.by_basis[basis]


class NativeBackend(Backend):
    """`inreach_fast._core` as a backend."""

    name = "native"

    # ------------------------------------------------------------------------------------------------ search

    def nearest(
        self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> Nearest:
        basis = _paying_basis(len(queries) * len(bank), bank)
        if basis is None:
            return _nearest_brute(queries, bank, k, query_group)
        return Nearest(*_by_leaves(_core.nearest_pruned, queries, bank, basis, query_group, hint, k))

    def nearest_bounds(
        self, queries: Bank, bank: Bank, query_group: IndexArray | None, hint: IndexArray | None = None
    ) -> NearestBounds:
        """See `Backend`: the first leaves of each query's search, and no more."""
        basis = _paying_basis(len(queries) * len(bank), bank)
        if basis is None:
            return exact_bounds(_nearest_brute(queries, bank, 1, query_group))
        return NearestBounds(*_by_leaves(_core.nearest_bounds, queries, bank, basis, query_group, hint))

    def nearest_answered(self, queries: Bank, bank: Bank, query_group: IndexArray | None) -> AnsweredNearest:
        basis = _paying_basis(len(queries) * len(bank), queries, bank)
        if basis is None:
            forward = self.nearest(queries, bank, 1, query_group)
        else:
            there, here = _indexed(bank, basis), _indexed(queries, basis)
            here.keep_coordinates(queries)  # each side is searched, and searches
            there.keep_coordinates(bank)
            forward = Nearest(*_by_leaves(_core.nearest_pruned, queries, bank, basis, query_group, None, 1))

        def answer(chosen: IndexArray) -> Nearest:
            rows = _row_numbers(bank, chosen)
            if basis is None:
                index, sq_distance, counts = _core.nearest_brute(
                    bank.rows, rows, None, queries.rows, queries.index, None, queries.mapped, 1
                )
            else:
                index, sq_distance, counts = _core.nearest_pruned(
                    bank.rows, rows, None, there.coordinates_of(bank, chosen),
                    queries.rows, queries.index, None, queries.mapped, here.basis, here.leaf_index(queries),
                    1, _hint_backward(forward, len(bank))[chosen],
                )  # fmt: skip
            return Nearest(index, sq_distance, SearchCounts(*counts))

        return with_answers(forward, answer)

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        kept = a.persistent and b.persistent and min(len(a), len(b)) * a.dim >= _MIN_MUTUAL_VALUES
        least = min(_MIN_MUTUAL_ROWS, _MIN_BANK_ROWS) if kept else _MIN_BANK_ROWS
        basis = _paying_basis(len(a) * len(b), a, b, least=least)
        if basis is None:
            ab, ab_sq, ba, ba_sq, counts = _core.mutual_nearest_brute(a.rows, a.index, b.rows, b.index)
            return MutualNearest(ab, ab_sq, ba, ba_sq, SearchCounts(*counts))
        for bank in (a, b):  # each is searched, and searches
            if bank.persistent:
                _indexed(bank, basis).keep_coordinates(bank)
        forward = Nearest(*_by_leaves(_core.nearest_pruned, a, b, basis, None, None, 1))
        hint = _hint_backward(forward, len(b))
        return both_ways(forward, Nearest(*_by_leaves(_core.nearest_pruned, b, a, basis, None, hint, 1)))

    # --------------------------------------------------------------------------------- descriptors, channels

    def describe(self, levels: Sequence[FloatArray], plan: Plan, out: FloatArray) -> None:
        """See `Backend`; csrc/cpu/engine/describe.cpp."""
        tables = []
        for data, level in zip(levels, plan.levels, strict=True):
            taps, rows, columns = level.taps, level.rows, level.columns
            axes = (rows.i0, rows.w0, rows.w1), (columns.i0, columns.w0, columns.w1)
            tables.append((data, taps.first_output, taps.feature_begin, taps.tap_begin, taps.weights, *axes))
        _core.describe(tables, plan.neighbourhood, *plan.grid, out)

    def channel_spread(
        self, members: FloatArray, rows: IndexArray, starts: IndexArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """See `Backend`; csrc/cpu/engine/filter_channels.cpp."""
        return _core.channel_spread(members, rows, starts)

    def add_rows(self, rows: FloatArray, slots: IndexArray, sums: DoubleArray) -> None:
        _core.channel_add(rows, slots, sums)

    def distances(self, rows: FloatArray, slots: IndexArray, means: DoubleArray) -> DoubleArray:
        return _core.channel_distances(rows, slots, means)

    def linear_map(self, rows: FloatArray, mean: FloatArray, matrix: FloatArray) -> FloatArray:
        """See `kernels.linear_map`; csrc/cpu/engine/linear_map.cpp."""
        return _core.linear_map(rows, mean, matrix)

    def smooth(self, scores: DoubleArray, rows: Band, columns: Band, size: tuple[int, int]) -> FloatArray:
        """See `kernels.smoothing.smooth`; csrc/cpu/engine/smooth.cpp."""
        return _core.smooth(scores, *rows.packed, *columns.packed, *size)

    # ------------------------------------------------------------------------------------------- index arrays

    def index_arrays(self, bank: Bank, folder: Path | None, memory_limit: int | None) -> dict[str, Array]:
        """See `Bank.index_arrays`."""
        if len(bank) < _MIN_BANK_ROWS:
            return {}
        basis = basis_of(bank)
        if basis.captured < _MIN_CAPTURED:
            return {}
        kept = _indexed(bank, basis)
        with kept.lock:
            if folder is None:
                built = kept.leaf_index(bank).arrays()
            elif kept.index is None:
                built = build_in(folder, bank, kept.basis, memory_limit)
                kept.index = _core.LeafIndex(kept.basis, len(bank), built)
            else:
                built = write_to(folder, kept.index.arrays())
        arrays = basis.arrays() | built
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def adopt_index(self, bank: Bank, arrays: Mapping[str, Array]) -> Basis:
        try:
            basis = Basis.from_arrays(arrays, bank.dim)
            index = _core.LeafIndex(basis.native, len(bank), dict(arrays))
        except ValueError as error:
            raise ParameterError(f"index_arrays: {error}; leave them out, so that the index is built anew") from error
        _indexed(bank, basis).index = index
        return basis


# ----------------------------------------------------------------------------------------- choice of the way


def basis_of(bank: Bank) -> Basis:
    """The bank's basis, fitted on a sample of its rows (or of the bank's whose basis it shares) at first use."""

    def fit(rows: FloatArray, index: IndexArray | None) -> Basis:
        count = len(rows) if index is None else len(index)
        rank, sample = next((rank, sample) for most, rank, sample in _BANK_BASES if most is None or count <= most)
        return Basis(sample_rows(rows, index, sample), rank)

    return bank.basis_or(fit)


def _paying_basis(pairs: int, *banks: Bank, least: int | None = None) -> Basis | None:
    """The basis to search a bank in by bounds, or two banks by each other; None where brute force is faster.

    That of two depends on them alone, not on searches before. ``least``: fewest rows that an index pays for.
    """

    def fit(*_: Any) -> Basis:
        samples = [sample_rows(bank.rows, bank.index, _CALL_SAMPLE // len(banks)) for bank in banks]
        return Basis(np.concatenate(samples), _CALL_RANK, power_iterations=1)

    if min(map(len, banks)) < (_MIN_BANK_ROWS if least is None else least):
        return None
    kept = [bank for bank in banks if bank.persistent]
    if kept:
        basis = basis_of(max(kept, key=len))
    elif float(pairs) * banks[0].dim >= _MIN_CALL_WORK and all(
        _core.participation(bank.rows, bank.index, _GLANCE_ROWS) <= _MAX_PARTICIPATION for bank in banks
    ):
        basis = banks[0].basis_or(fit) if len(banks) == 1 else fit()
    else:
        return None
    return basis if basis.captured >= _MIN_CAPTURED else None


# -------------------------------------------------------------------------------------- the engine's searches


def _nearest_brute(queries: Bank, bank: Bank, k: int, query_group: IndexArray | None) -> Nearest:
    bank_group = None if query_group is None else bank.groups
    parts = [
        _core.nearest_brute(
            *_slice(queries, first, stop), _part(query_group, first, stop),
            bank.rows, bank.index, bank_group, bank.mapped, k, bank.floor,
        )
        for first, stop in _chunks(len(queries))
    ]  # fmt: skip
    return Nearest(*_joined(parts))


def _by_leaves(
    search: Callable[..., Any],
    queries: Bank,
    bank: Bank,
    basis: Basis,
    query_group: IndexArray | None,
    hint: IndexArray | None,
    *neighbours: int,
) -> list[Any]:
    """Arrays and counts of one of the engine's searches by bounds, for all queries."""
    searched, asking = _indexed(bank, basis), _indexed(queries, basis)
    leaf_index = searched.leaf_index(bank)
    bank_group = None if query_group is None else bank.groups
    parts = [
        search(
            *_slice(queries, first, stop), _part(query_group, first, stop), asking.coordinates(queries, first, stop),
            bank.rows, bank.index, bank_group, bank.mapped, searched.basis, leaf_index,
            *neighbours, _part(hint, first, stop), bank.floor,
        )
        for first, stop in _chunks(len(queries))
    ]  # fmt: skip
    return _joined(parts)


def _joined(parts: list[Any]) -> list[Any]:
    *arrays, counts = zip(*parts, strict=True)
    whole = [column[0] if len(parts) == 1 else np.concatenate(column) for column in arrays]
    return [*whole, reduce(add, (SearchCounts(*c) for c in counts))]


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """Runs of queries: what is made of them for a search takes a quarter of their own size, or all of it."""
    return ((first, min(first + _QUERY_CHUNK, count)) for first in range(0, count, _QUERY_CHUNK))


def _part(values: IndexArray | None, first: int, stop: int) -> IndexArray | None:
    return None if values is None else values[first:stop]


def _slice(bank: Bank, first: int, stop: int) -> tuple[FloatArray, IndexArray | None]:
    if bank.index is None:
        return bank.rows[first:stop], None
    return bank.rows, bank.index[first:stop]


def _row_numbers(bank: Bank, numbers: IndexArray) -> IndexArray:
    return numbers if bank.index is None else bank.index[numbers]


def _hint_backward(forward: Nearest, rows: int) -> IndexArray:
    """For each bank row the query that came nearest to it in ``forward``, -1 where none did: int64 (rows,)."""
    hint = np.full(rows, -1, dtype=np.int64)
    found = np.flatnonzero(forward.index[:, 0] >= 0)
    order = found[np.argsort(-forward.sq_distance[found, 0], kind="stable")]
    hint[forward.index[order, 0]] = order  # the nearest is written last
    return hint
