"""Exact nearest neighbours, one direction and both; and bounds on their distances."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..array_types import IndexArray
from ..errors import ParameterError
from .bank import Bank
from .gpu.bank import GpuBank
from .gpu.devices.interop import lives_on_gpu
from .registry import SearchBackend, backend_module, takes_hints
from .results import AnsweredNearest, MutualNearest, Nearest, NearestBounds
from .validation import as_hint, as_ids, check_k, check_same_dim

if TYPE_CHECKING:
    from .gpu.arrays import Call, CallOnCpu


def nearest(
    queries: Any,
    bank: Any,
    *,
    k: int = 1,
    query_group: Any = None,
    bank_group: Any = None,
    hint: Any = None,
    backend: str = "auto",
) -> Nearest:
    """The ``k`` nearest bank rows of each query, exactly (ALGORITHM section 6).

    The index is the one that float64 brute force over the float32 inputs gives, the lowest index on exact
    ties; the distance is that float64 value rounded to float32. Backend, instruction set, number of threads
    and the other queries of the batch change nothing, to the bit.

    Args:
        queries: (m, D) float32 or anything convertible without loss, or a `Bank`.
        bank: (n, D), likewise; a `Bank` is prepared once and can be searched many times.
        k: neighbours for each query, at least 1.
        query_group: int64 (m,), optional; a bank row whose group equals the query's is passed over.
        bank_group: int64 (n,), optional; the default is the `Bank`'s own groups.
        hint: int64 (m,), optional: a bank row that is likely near each query, -1 for none. A good guess saves
            time; no guess, however bad, changes the answer. GPUs have a use for it where k is 1.
        backend: "auto" or one of `available_backends`; GPUs are named "cuda:1", "cuda:0,1" (they share the bank) or
            "cuda:all".

    Arrays on a GPU (torch, CuPy, anything with DLPack) are searched there without a copy, on their library's current
    stream, and results are arrays of the same kind there; the other side is on that GPU too, or a `Bank`.

    Returns:
        `Nearest` with arrays of shape (m,) for ``k=1``, else (m, k). Fewer than ``k`` eligible rows: index -1
        and distance infinity.

    Raises:
        ParameterError, MixedSizesError, NonFiniteError, DataError, BackendError: see each; the message names
        the argument.
    """
    k = check_k(k)
    on_gpu = _on_gpu(backend, queries, bank)
    if on_gpu is not None:
        there = on_gpu.nearest(queries, bank, k, query_group, bank_group, hint)
        return replace(there, index=there.index[:, 0], sq_distance=there.sq_distance[:, 0]) if k == 1 else there
    module = backend_module(backend)
    query_bank, bank, group = _checked(queries, bank, query_group, bank_group)
    hints = None if hint is None else as_hint(hint, "hint", len(query_bank), len(bank))
    result = _hinted(module, query_bank, bank, k, group, hints)
    if k == 1:
        result = replace(result, index=result.index[:, 0], sq_distance=result.sq_distance[:, 0])
    return result


def nearest_bounds(
    queries: Any,
    bank: Any,
    *,
    hint: Any = None,
    query_group: Any = None,
    bank_group: Any = None,
    backend: str = "auto",
) -> NearestBounds:
    """Certified bounds on what `nearest` would answer for ``k=1``, at a small part of its cost.

    Each query gets a bank row with its exact distance, which bounds the answer from above, and a proven bound
    from below (docs/search.md). How tight they are depends on the backend and its instruction set; that they
    hold does not. A backend without cheap bounds searches: its bounds are equal.

    Args, errors: as `nearest`.

    Returns:
        `NearestBounds` of arrays (m,).
    """
    on_gpu = _on_gpu(backend, queries, bank)
    if on_gpu is not None:
        there = on_gpu.nearest(queries, bank, 1, query_group, bank_group, hint)
        distance = there.sq_distance[:, 0]
        return NearestBounds(there.index[:, 0], distance, distance, there.counts, exact=True)
    module = backend_module(backend)
    query_bank, bank, group = _checked(queries, bank, query_group, bank_group)
    hints = None if hint is None else as_hint(hint, "hint", len(query_bank), len(bank))
    own = getattr(module, "nearest_bounds", None)
    if own is not None:
        bounds: NearestBounds = own(query_bank, bank, group, hints)
        return bounds
    found = _hinted(module, query_bank, bank, 1, group, hints)
    sq_distance = found.sq_distance[:, 0]
    return NearestBounds(found.index[:, 0], sq_distance, sq_distance, found.counts, exact=True)


def nearest_answered(
    queries: Any, bank: Any, *, query_group: Any = None, bank_group: Any = None, backend: str = "auto"
) -> AnsweredNearest:
    """The nearest bank row of each query, and which of these rows have that query as their own nearest.

    This is the association of one image (the queries) with all seed images (the bank) at once (ALGORITHM
    section 4): the nearest row over the whole bank is the nearest patch of the nearest seed image, ties to the
    lowest; only the rows that are some query's nearest have to be asked for their answer, and each already
    knows a query that is near.

    Args, errors: as `nearest`. Groups restrict which bank row a query may choose; a chosen row then looks at
    all queries.
    """
    on_gpu = _on_gpu(backend, queries, bank)
    if on_gpu is not None:
        return on_gpu.nearest_answered(queries, bank, query_group, bank_group)
    module = backend_module(backend)
    query_bank, bank, group = _checked(queries, bank, query_group, bank_group)
    own = getattr(module, "nearest_answered", None)
    if own is not None:
        result: AnsweredNearest = own(query_bank, bank, group)
        return result
    forward = module.nearest(query_bank, bank, 1, group)
    index, sq_distance = forward.index[:, 0], forward.sq_distance[:, 0]
    chosen, chosen_of = np.unique(index[index >= 0], return_inverse=True)
    answered = np.zeros(len(index), dtype=np.bool_)
    if len(chosen):
        rows = chosen if bank.index is None else bank.index[chosen]
        backward = module.nearest(Bank(bank.rows, index=rows), query_bank, 1, None)
        answered[index >= 0] = backward.index[chosen_of, 0] == np.flatnonzero(index >= 0)
    return AnsweredNearest(index, sq_distance, answered)


def _hinted(
    module: SearchBackend, queries: Bank, bank: Bank, k: int, group: IndexArray | None, hints: IndexArray | None
) -> Nearest:
    """The backend's answer, with a hint where it has a use for one."""
    if hints is not None and takes_hints(module):
        result: Nearest = cast(Any, module).nearest(queries, bank, k, group, hint=hints)
        return result
    return module.nearest(queries, bank, k, group)


def _on_gpu(backend: str, first: Any, second: Any) -> Call | CallOnCpu | None:
    """The call on a GPU, where one of the two lies there (and ``backend`` is not one of the CPU's)."""
    if not any(isinstance(x, GpuBank) or lives_on_gpu(x) for x in (first, second)):
        return None
    from .gpu.arrays import call_for

    return call_for(backend, first, second)


def _in_memory(value: Any) -> Any:
    return value.on_cpu() if isinstance(value, GpuBank) else value


def _checked(queries: Any, bank: Any, query_group: Any, bank_group: Any) -> tuple[Bank, Bank, IndexArray | None]:
    queries, bank = _in_memory(queries), _in_memory(bank)
    query_bank = queries if isinstance(queries, Bank) else Bank.for_call(queries, name="queries")
    if not isinstance(bank, Bank):
        bank = Bank.for_call(bank, bank_group, name="bank")
    elif bank_group is not None:
        bank = bank.with_groups(bank_group)
    check_same_dim(query_bank.dim, "queries", bank.dim, "bank")
    if query_group is None:
        query_group = query_bank.groups
    group = None if query_group is None else as_ids(query_group, "query_group", len(query_bank))
    if group is not None and bank.groups is None:
        raise ParameterError("query_group: the bank has no groups to compare with; give bank_group as well")
    return query_bank, bank, group


def mutual_nearest(a: Any, b: Any, *, backend: str = "auto") -> MutualNearest:
    """Nearest rows in both directions between two sets, in one pass (ALGORITHM section 4).

    Exact as `nearest` is, and the same bits; no (m, n) matrix is made.

    Args:
        a: (m, D) float32 or anything convertible without loss, or a `Bank`.
        b: (n, D), likewise.
        backend: "auto" or one of `available_backends`.

    Returns:
        `MutualNearest`; its ``pairs()`` are the mutual ones. Groups of a `Bank` play no part.

    Raises:
        ParameterError, MixedSizesError, NonFiniteError, DataError, BackendError: the message names the argument.
    """
    on_gpu = _on_gpu(backend, a, b)
    if on_gpu is not None:
        return on_gpu.mutual_nearest(a, b)
    module = backend_module(backend)
    a, b = _in_memory(a), _in_memory(b)
    a = a if isinstance(a, Bank) else Bank.for_call(a, name="a")
    b = b if isinstance(b, Bank) else Bank.for_call(b, name="b")
    check_same_dim(a.dim, "a", b.dim, "b")
    return module.mutual_nearest(a, b)
