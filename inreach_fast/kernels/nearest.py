"""Exact nearest neighbours, one direction and both; and bounds on their distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ..array_types import IndexArray
from ..errors import ParameterError
from ..system.memory import check_unchanged
from .backend import Backend, exact_bounds
from .bank import Bank, as_hint, as_ids, check_same_dim
from .gpu.arrays import Call, call_for, caller_for, to_gpu
from .gpu.devices.interop import Caller
from .registry import backends
from .results import AnsweredNearest, MutualNearest, Nearest, NearestBounds

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _of_unchanged_files(search: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A search that raises ModelChangedError if a model file was overwritten from which its rows are mapped."""

    @wraps(search)
    def checked(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        given = [value.rows if isinstance(value, Bank) else value for value in (*args, *options.values())]
        for rows in given:  # before: what is gone would end the process; afterwards: some rows may be others
            check_unchanged(rows)
        found = search(*args, **options)
        for rows in given:
            check_unchanged(rows)
        return found

    return checked


@_of_unchanged_files
def nearest(
    queries: Any,
    bank: Any,
    *,
    k: int = 1,
    query_group: Any = None,
    bank_group: Any = None,
    bank_floor: Any = None,
    hint: Any = None,
    backend: str = "auto",
) -> Nearest:
    """The ``k`` nearest bank rows of each query, exactly (ALGORITHM section 6).

    The index is that of float64 brute force over the float32 inputs, the lowest index on exact
    ties; the distance is that float64 value rounded to float32. Results are bit-identical for every backend,
    instruction set, number of threads and batch.

    Args:
        queries: (m, D) float32 or anything convertible without loss, or a `Bank`.
        bank: (n, D), the same; a `Bank` is prepared once and can be searched many times.
        k: neighbours for each query, at least 1.
        query_group: int64 (m,), optional; bank rows whose group equals the query's are skipped.
        bank_group: int64 (n,), optional; the default is the `Bank`'s own groups.
        bank_floor: float32 (n,), optional, at least 0; the default is the `Bank`'s own floor. With it bank row j counts
            as max(squared distance, bank_floor[j]): reachability (ALGORITHM section 8). The rows with the k least of
            these values are found, the lowest index on ties, and ``sq_distance`` holds the values; a row with a floor
            of infinity is never found. Such searches run on the CPU.
        hint: int64 (m,), optional: a bank row that is probably near each query, -1 for none. A good guess saves
            time; a bad one changes nothing. GPUs use it where k is 1.
        backend: "auto" or one of `available_backends`; GPUs are named "cuda:1", "cuda:0,1" (they share the bank) or
            "cuda:all".

    Arrays on a GPU (torch, CuPy, anything with DLPack) are searched there without a copy, on their library's current
    stream, and results are arrays of the same kind there; the other side is on that GPU too, or a `Bank`.

    Returns:
        `Nearest` with arrays of shape (m,) for ``k=1``, else (m, k). Fewer than ``k`` eligible rows: index -1
        and distance infinity.

    Raises:
        ParameterError, MixedSizesError, NonFiniteError, DataError, BackendError: the message names the argument.
        ModelChangedError: the rows are mapped from a model file that was overwritten.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ParameterError(f"k: expected a whole number of at least 1, got {k!r}")
    bank, call = _floored(queries, bank, bank_floor, backend)
    if isinstance(call, Call):
        found = call.nearest(queries, bank, int(k), query_group, bank_group, hint)
    else:
        query_bank, bank, group, hints = _checked(queries, bank, query_group, bank_group, hint)
        found = _engine(backend, bank).nearest(query_bank, bank, int(k), group, hints)
        found = found if call is None else to_gpu(call, found)
    return replace(found, index=found.index[:, 0], sq_distance=found.sq_distance[:, 0]) if k == 1 else found


@_of_unchanged_files
def nearest_bounds(
    queries: Any,
    bank: Any,
    *,
    hint: Any = None,
    query_group: Any = None,
    bank_group: Any = None,
    bank_floor: Any = None,
    backend: str = "auto",
) -> NearestBounds:
    """Certified bounds on the distances of `nearest` for ``k=1``, at a small part of its cost.

    Each query gets a bank row with its exact distance, which is an upper bound, and a proven lower bound
    (docs/search.md). How tight the bounds are depends on the backend and its instruction set; that they
    hold does not. A backend without cheap bounds searches exactly: its bounds are equal.

    Args, errors: as `nearest`.

    Returns:
        `NearestBounds` of arrays (m,).
    """
    bank, call = _floored(queries, bank, bank_floor, backend)
    if isinstance(call, Call):
        return exact_bounds(call.nearest(queries, bank, 1, query_group, bank_group, hint))
    query_bank, bank, group, hints = _checked(queries, bank, query_group, bank_group, hint)
    found = _engine(backend, bank).nearest_bounds(query_bank, bank, group, hints)
    return found if call is None else to_gpu(call, found)


@_of_unchanged_files
def nearest_answered(
    queries: Any, bank: Any, *, query_group: Any = None, bank_group: Any = None, backend: str = "auto"
) -> AnsweredNearest:
    """The nearest bank row of each query, and which of these rows have that query as their own nearest.

    This associates one image (the queries) with all seed images (the bank) at once (ALGORITHM
    section 4): the nearest row over the whole bank is the nearest patch of the nearest seed image, the lowest on
    ties. Only the rows that are some query's nearest are searched for in the other direction.

    Args, errors: as `nearest`. Groups restrict which bank row a query may choose; in the other direction all
    queries count. Floors of either side are ignored.
    """
    call = _call_for(backend, queries, bank)
    if isinstance(call, Call):
        return call.nearest_answered(queries, bank, query_group, bank_group)
    engine = backends[backend]
    query_bank, bank, group, _ = _checked(queries, bank, query_group, bank_group)
    found = engine.nearest_answered(query_bank.with_floor(None), bank.with_floor(None), group)
    return found if call is None else to_gpu(call, found)


@_of_unchanged_files
def mutual_nearest(a: Any, b: Any, *, backend: str = "auto") -> MutualNearest:
    """Nearest rows in both directions between two sets (ALGORITHM section 4).

    Exact, and with the same bits as `nearest`; no (m, n) matrix is made.

    Args:
        a: (m, D) float32 or anything convertible without loss, or a `Bank`.
        b: (n, D), the same.
        backend: "auto" or one of `available_backends`.

    Returns:
        `MutualNearest`; its ``pairs()`` are the mutual ones. Groups and floor of a `Bank` are ignored.

    Raises:
        ParameterError, MixedSizesError, NonFiniteError, DataError, BackendError: the message names the argument.
    """
    call = _call_for(backend, a, b)
    if isinstance(call, Call):
        return call.mutual_nearest(a, b)
    engine = backends[backend]
    a, b = _bank_of(a, "a"), _bank_of(b, "b")
    check_same_dim(a.dim, "a", b.dim, "b")
    found = engine.mutual_nearest(a.with_floor(None), b.with_floor(None))
    return found if call is None else to_gpu(call, found)


def _bank_of(value: Any, name: str, groups: Any = None) -> Bank:
    """The argument as a bank in the CPU's memory, under other groups where they are given."""
    if not isinstance(value, Bank):
        return Bank.for_call(value, groups, name=name).on_cpu()
    bank = value.on_cpu()
    return bank if groups is None else bank.with_groups(groups)


def _call_for(backend: str, *values: Any) -> Call | Caller | None:
    """As `call_for`, which need not look at plain arrays and at banks in the CPU's memory."""
    on_cpu = all(isinstance(x, np.ndarray) or (isinstance(x, Bank) and x.gpu is None) for x in values)
    return None if on_cpu else call_for(backend, *values)


def _floored(queries: Any, bank: Any, floor: Any, backend: str) -> tuple[Any, Call | Caller | None]:
    """The bank with its floor, and the call where it is computed on a GPU, which has no kernels for floors."""
    if floor is not None:
        bank = (bank if isinstance(bank, Bank) else Bank.for_call(bank, name="bank")).with_floor(floor)
    if isinstance(bank, Bank) and bank.floor is not None:
        return bank, caller_for(queries, bank)
    return bank, _call_for(backend, queries, bank)


def _engine(backend: str, bank: Bank) -> Backend:
    engine = backends[backend]
    return engine if bank.floor is None or engine.takes_floors else backends["auto"]


def _checked(
    queries: Any, bank: Any, query_group: Any, bank_group: Any, hint: Any = None
) -> tuple[Bank, Bank, IndexArray | None, IndexArray | None]:
    """Queries, bank, groups of the queries and hint, checked."""
    asking, searched = _bank_of(queries, "queries"), _bank_of(bank, "bank", bank_group)
    check_same_dim(asking.dim, "queries", searched.dim, "bank")
    if query_group is None:
        query_group = asking.groups
    group = None if query_group is None else as_ids(query_group, "query_group", len(asking))
    if group is not None and searched.groups is None:
        raise ParameterError("query_group: the bank has no groups to compare with; give bank_group as well")
    return asking, searched, group, None if hint is None else as_hint(hint, len(asking), len(searched))
