"""The compiled CPU engine, `inreach_fast._core`, as a backend.

Two ways lead to the same answer. Bounds (csrc/cpu/engine/nearest_pruned.cpp) need a basis and an index of the
bank, and then decide few pairs; brute force needs nothing. Here is decided which one to take; the engine itself
falls back to brute force where bounds turn out not to pay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .... import _core
from ....array_types import Array, IndexArray
from ....errors import ParameterError
from ...bank import Bank
from ...basis import Basis, sample_rows
from ...results import AnsweredNearest, MutualNearest, Nearest, NearestBounds, SearchCounts

# Most rows, rank and sample of the basis of a bank that is prepared to be searched many times: more directions pass
# more rows over and cost more to project on, which pays the sooner the more rows there are.
_BANK_BASES = ((1 << 15, 128, 2048), (1 << 16, 192, 4096), (None, 256, 4096))
# The same of a basis made for a single call.
_CALL_RANK, _CALL_SAMPLE = 64, 512
_MIN_BANK_ROWS = 512
# Below this share of variance in 32 directions bounds have never paid; the engine would find out as well.
_MIN_CAPTURED = 0.4
# For one call a glance must do: in how many directions a few rows vary (isotropic noise of 1024 dimensions: 114
# of 128 rows; descriptors of real parts: 5 to 15).
_GLANCE_ROWS, _MAX_PARTICIPATION = 128, 40.0
# Multiply-adds of brute force from which a basis for one call is worth its making.
_MIN_CALL_WORK = 6e9
_QUERY_CHUNK = 16384
_KEEP_PROJECTED = 65536


class _Prepared:
    """What the engine keeps of one bank."""

    def __init__(self) -> None:
        self.index: Any = None
        self.projected: tuple[Basis, Any] | None = None


def _prepared(bank: Bank) -> _Prepared:
    state: _Prepared = bank.prepared("native", _Prepared)
    return state


def basis_of(bank: Bank) -> Basis:
    """The bank's basis, fitted on a sample of its rows if it has none yet."""
    rank, sample = next((rank, sample) for most, rank, sample in _BANK_BASES if most is None or len(bank) <= most)
    return bank.basis_or(lambda: Basis(sample_rows(bank.rows, bank.index, sample), rank))


def _leaf_index(bank: Bank, basis: Basis) -> Any:
    state = _prepared(bank)
    with bank.lock:
        if state.index is None:
            kept = state.projected
            projected = kept[1] if kept is not None and kept[0] is basis else None
            state.index = _core.LeafIndex(basis.native(), bank.rows, bank.index, projected)
    return state.index


def index_arrays(bank: Bank, folder: Path | None, memory_limit: int | None) -> dict[str, Array]:
    """See `Bank.index_arrays`."""
    if len(bank) < _MIN_BANK_ROWS:
        return {}
    basis = basis_of(bank)
    if basis.captured < _MIN_CAPTURED:
        return {}
    arrays: dict[str, Array] = dict(basis.arrays())
    state = _prepared(bank)
    if folder is None:
        arrays |= _leaf_index(bank, basis).arrays()
    else:
        with bank.lock:
            if state.index is None:
                built = _build_in(folder, bank, basis, memory_limit)
                state.index = _core.LeafIndex(basis.native(), len(bank), built)
            else:
                built = {name: _written(folder, name, array) for name, array in state.index.arrays().items()}
        arrays |= built
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _build_in(folder: Path, bank: Bank, basis: Basis, memory_limit: int | None) -> dict[str, Array]:
    """The index's arrays, each built in a file of its own and mapped."""
    heads, heads_file = None, folder / "heads.tmp"
    if memory_limit is not None and len(bank) * _core.LeafBuilder.HEAD_FLOATS * 4 > memory_limit // 2:
        heads = np.memmap(heads_file, np.float32, "w+", shape=(len(bank), _core.LeafBuilder.HEAD_FLOATS))
        _take_room(heads_file)
    try:
        limit = memory_limit if memory_limit is not None else 1 << 30
        plain = None if heads is None else heads.view(np.ndarray)
        builder = _core.LeafBuilder(basis.native(), bank.rows, bank.index, bank.mapped, limit, plain)
        arrays = {}
        for name, dtype, count in builder.shapes():
            path = folder / f"{name}.npy"
            if count == 0:
                arrays[name] = np.empty(0, dtype)
            else:
                arrays[name] = np.lib.format.open_memmap(path, "w+", dtype, (count,)).view(np.ndarray)
                _take_room(path)
        builder.fill(arrays)
    finally:
        del heads
        heads_file.unlink(missing_ok=True)
    return {name: _mapped(folder / f"{name}.npy", array) for name, array in arrays.items()}


def _take_room(path: Path) -> None:
    """Takes the disk's room for a file before it is written through a map.

    Where the room runs out only then, the system ends the process (SIGBUS).

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _written(folder: Path, name: str, array: Array) -> Array:
    np.save(folder / f"{name}.npy", array)
    return _mapped(folder / f"{name}.npy", array)


def _mapped(path: Path, array: Array) -> Array:
    if array.size == 0:  # nothing to map
        return array
    mapped: Array = np.load(path, mmap_mode="r").view(np.ndarray)
    return mapped


def adopt_index(bank: Bank, arrays: Mapping[str, Array]) -> None:
    """Makes ``arrays`` the bank's index. Raises ParameterError where they cannot be."""
    try:
        basis = Basis.from_arrays(arrays, bank.dim)
        index = _core.LeafIndex(basis.native(), len(bank), dict(arrays))
    except ValueError as error:
        raise ParameterError(f"index_arrays: {error}; leave them out, so that the index is built anew") from error
    bank.basis_or(lambda: basis)
    _prepared(bank).index = index


def _projected(queries: Bank, basis: Basis, first: int, last: int) -> Any:
    """Rows first to last of ``queries`` in ``basis``; kept where a bank is small and whole."""
    state = _prepared(queries)
    whole = first == 0 and last == len(queries)
    with queries.lock:
        if whole and state.projected is not None and state.projected[0] is basis:
            return state.projected[1]
        rows, index = _slice(queries, first, last)
        projected = _core.ProjectedRows(basis.native(), rows, index)
        if whole and queries.keep_projected and len(queries) <= _KEEP_PROJECTED:
            state.projected = (basis, projected)
    return projected


def _slice(bank: Bank, first: int, last: int) -> tuple[Any, Any]:
    if bank.index is None:
        return bank.rows[first:last], None
    return bank.rows, bank.index[first:last]


def _counts(counts: tuple[int, int, int, int, bool]) -> SearchCounts:
    return SearchCounts(*counts)


def _worth_indexing(queries: int, bank: Bank) -> bool:
    if len(bank) < _MIN_BANK_ROWS:
        return False
    if bank.persistent or bank.basis is not None:
        return True
    worth = float(queries) * len(bank) * bank.dim >= _MIN_CALL_WORK
    return worth and _looks_structured(bank)


def _looks_structured(bank: Bank) -> bool:
    return bool(_core.participation(bank.rows, bank.index, _GLANCE_ROWS) <= _MAX_PARTICIPATION)


def _call_basis(*banks: Bank) -> Basis:
    both = [sample_rows(bank.rows, bank.index, _CALL_SAMPLE // len(banks)) for bank in banks]
    return Basis(np.concatenate(both), _CALL_RANK, power_iterations=1)


def nearest(
    queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, hint: IndexArray | None = None
) -> Nearest:
    """See `inreach_fast.kernels.nearest`; ``hint`` (m,) names a bank row likely near each query, -1 for none."""
    bank_group = None if query_group is None else bank.groups
    basis = _paying_basis(len(queries), bank)
    if basis is not None:
        return _nearest_pruned(queries, bank, basis, k, query_group, bank_group, hint)
    return _nearest_brute(queries, bank, k, query_group, bank_group)


def _paying_basis(queries: int, bank: Bank) -> Basis | None:
    """The frame to search the bank in by bounds; None where brute force is to be taken."""
    if not _worth_indexing(queries, bank):
        return None
    basis = basis_of(bank) if bank.persistent else bank.basis_or(lambda: _call_basis(bank))
    return basis if basis.captured >= _MIN_CAPTURED else None


def _nearest_brute(
    queries: Bank, bank: Bank, k: int, query_group: IndexArray | None, bank_group: IndexArray | None
) -> Nearest:
    parts = []
    for first, last in _chunks(len(queries)):
        rows, index = _slice(queries, first, last)
        group = None if query_group is None else query_group[first:last]
        parts.append(_core.nearest_brute(rows, index, group, bank.rows, bank.index, bank_group, bank.mapped, k))
    return _joined(parts)


def _chunks(count: int) -> list[tuple[int, int]]:
    # What is made of the queries for a search is a quarter to all of their own size: not of millions at once.
    return [(first, min(first + _QUERY_CHUNK, count)) for first in range(0, count, _QUERY_CHUNK)]


def _joined(parts: list[Any]) -> Nearest:
    total = _total(*(_counts(part[2]) for part in parts))
    if len(parts) == 1:
        return Nearest(parts[0][0], parts[0][1], total)
    return Nearest(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), total)


def _nearest_pruned(
    queries: Bank,
    bank: Bank,
    basis: Basis,
    k: int,
    query_group: IndexArray | None,
    bank_group: IndexArray | None,
    hint: IndexArray | None,
) -> Nearest:
    return _joined(_by_leaves(_core.nearest_pruned, queries, bank, basis, query_group, bank_group, hint, k))


def _by_leaves(
    search: Callable[..., Any],
    queries: Bank,
    bank: Bank,
    basis: Basis,
    query_group: IndexArray | None,
    bank_group: IndexArray | None,
    hint: IndexArray | None,
    *neighbours: int,
) -> list[Any]:
    """What one of the engine's searches by bounds answers, chunk by chunk of the queries."""
    leaf_index = _leaf_index(bank, basis)
    parts = []
    for first, last in _chunks(len(queries)):
        rows, index = _slice(queries, first, last)
        parts.append(
            search(
                rows,
                index,
                None if query_group is None else query_group[first:last],
                _projected(queries, basis, first, last),
                bank.rows,
                bank.index,
                bank_group,
                bank.mapped,
                basis.native(),
                leaf_index,
                *neighbours,
                None if hint is None else hint[first:last],
            )
        )
    return parts


def nearest_bounds(
    queries: Bank, bank: Bank, query_group: IndexArray | None, hint: IndexArray | None = None
) -> NearestBounds:
    """See `inreach_fast.kernels.nearest_bounds`: the first leaves of each query's search, and no more."""
    bank_group = None if query_group is None else bank.groups
    basis = _paying_basis(len(queries), bank)
    if basis is None:
        found = _nearest_brute(queries, bank, 1, query_group, bank_group)
        sq_distance = found.sq_distance[:, 0]
        return NearestBounds(found.index[:, 0], sq_distance, sq_distance, found.counts, exact=True)
    parts = _by_leaves(_core.nearest_bounds, queries, bank, basis, query_group, bank_group, hint)
    index, sq_upper, sq_lower = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return NearestBounds(index, sq_upper, sq_lower, _total(*(_counts(part[3]) for part in parts)))


def nearest_answered(queries: Bank, bank: Bank, query_group: IndexArray | None) -> AnsweredNearest:
    """See `inreach_fast.kernels.nearest_answered`."""
    basis = _shared_basis(queries, bank)
    if basis is not None and basis.captured >= _MIN_CAPTURED:
        # Both are asked and both answer: what is projected serves twice.
        queries.keep_projected = bank.keep_projected = True
        _projected(queries, basis, 0, len(queries))
    else:
        basis = None
    forward = nearest(queries, bank, 1, query_group)
    index, sq_distance = forward.index[:, 0], forward.sq_distance[:, 0]
    found = np.flatnonzero(index >= 0)
    answered = np.zeros(len(index), dtype=np.bool_)
    chosen, chosen_of = np.unique(index[found], return_inverse=True)
    if len(chosen) == 0:
        return AnsweredNearest(index, sq_distance, answered, forward.counts)
    rows = chosen if bank.index is None else bank.index[chosen]
    if basis is not None:
        answer, _unused, counts = _core.nearest_pruned(
            bank.rows,
            rows,
            None,
            _projected(bank, basis, 0, len(bank)).take(chosen),
            queries.rows,
            queries.index,
            None,
            queries.mapped,
            basis.native(),
            _leaf_index(queries, basis),
            1,
            hint_backward(forward, len(bank))[chosen],
        )
    else:
        answer, _unused, counts = _core.nearest_brute(
            bank.rows, rows, None, queries.rows, queries.index, None, queries.mapped, 1
        )
    answered[found] = answer[chosen_of, 0] == found
    return AnsweredNearest(index, sq_distance, answered, _total(forward.counts, _counts(counts)))


def _total(*counts: SearchCounts | None) -> SearchCounts:
    known = [c for c in counts if c is not None]
    return SearchCounts(
        pairs=sum(c.pairs for c in known),
        bounded=sum(c.bounded for c in known),
        refined=sum(c.refined for c in known),
        decided=sum(c.decided for c in known),
        brute_force=any(c.brute_force for c in known),
    )


def mutual_nearest(a: Bank, b: Bank) -> MutualNearest:
    """See `inreach_fast.kernels.mutual_nearest`."""
    basis = _shared_basis(a, b)
    if basis is None or basis.captured < _MIN_CAPTURED:
        ab_index, ab_sq, ba_index, ba_sq, counts = _core.mutual_nearest_brute(a.rows, a.index, b.rows, b.index)
        return MutualNearest(ab_index, ab_sq, ba_index, ba_sq, _counts(counts))
    forward = _nearest_pruned(a, b, basis, 1, None, None, None)
    backward = _nearest_pruned(b, a, basis, 1, None, None, hint_backward(forward, len(b)))
    return MutualNearest(
        forward.index[:, 0],
        forward.sq_distance[:, 0],
        backward.index[:, 0],
        backward.sq_distance[:, 0],
        replace(_total(forward.counts, backward.counts), pairs=len(a) * len(b)),
    )


def _shared_basis(a: Bank, b: Bank) -> Basis | None:
    if min(len(a), len(b)) < _MIN_BANK_ROWS:
        return None
    fitted = [bank.basis for bank in (a, b) if bank.basis is not None]
    if len(fitted) == 2 and fitted[0] is not fitted[1]:
        # Two banks prepared in two frames: neither's index is of use to queries in the other's.
        return None
    if fitted:
        basis = fitted[0]
    elif a.persistent or b.persistent:
        basis = basis_of(max((bank for bank in (a, b) if bank.persistent), key=len))
    elif float(len(a)) * len(b) * a.dim >= _MIN_CALL_WORK and _looks_structured(a) and _looks_structured(b):
        basis = _call_basis(a, b)
    else:
        return None
    for bank in (a, b):
        bank.basis_or(lambda: basis)
    return basis


def hint_backward(forward: Nearest, rows: int) -> IndexArray:
    """For each bank row the query that came nearest to it in ``forward``, -1 where none did: int64 (rows,)."""
    hint = np.full(rows, -1, dtype=np.int64)
    found = np.flatnonzero(forward.index[:, 0] >= 0)
    order = found[np.argsort(-forward.sq_distance[found, 0], kind="stable")]
    hint[forward.index[order, 0]] = order  # the nearest is written last and stays
    return hint
