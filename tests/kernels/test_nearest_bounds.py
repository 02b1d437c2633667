"""`nearest_bounds` holds on either side of `nearest`, and a hint changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, Rows, fuzz, gaussian, same_bits

from inreach_fast import kernels
from inreach_fast.errors import BackendError, MixedSizesError, NonFiniteError, ParameterError
from inreach_fast.kernels.distance import exact_sq_distance

SIZES = [1, 2, 5, 16, 17, 64, 65, 129]


def check_bounds(engine: Engine, queries: Rows, bank: Any, query_group: Any = None, **options: Any) -> None:
    """Bounds hold, the upper one is the exact distance to an eligible row."""
    bounds = kernels.nearest_bounds(queries, bank, query_group=query_group, backend=engine.backend, **options)
    options.pop("hint", None)
    found = kernels.nearest(queries, bank, query_group=query_group, backend=engine.backend, **options)
    for array, dtype in ((bounds.index, np.int64), (bounds.sq_upper, np.float32), (bounds.sq_lower, np.float32)):
        assert array.dtype == dtype
        assert array.shape == (len(queries),)
    assert (bounds.sq_lower <= found.sq_distance).all()
    assert (found.sq_distance <= bounds.sq_upper).all()
    assert np.array_equal(bounds.index == -1, found.index == -1)
    near = np.flatnonzero(bounds.index >= 0)
    rows = bank.gathered() if isinstance(bank, kernels.Bank) else bank
    with np.errstate(over="ignore"):
        exact = exact_sq_distance(queries[near], rows[bounds.index[near]]).astype(np.float32)
    same_bits(bounds.sq_upper[near], exact)
    assert np.isinf(bounds.sq_upper[bounds.index == -1]).all()
    groups = options.get("bank_group", bank.groups if isinstance(bank, kernels.Bank) else None)
    if query_group is not None:
        assert (np.asarray(query_group)[near] != np.asarray(groups)[bounds.index[near]]).all()
    if bounds.exact:
        same_bits(bounds.index, found.index)
        same_bits(bounds.sq_lower, bounds.sq_upper)


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    m=st.sampled_from(SIZES),
    n=st.sampled_from(SIZES),
    dim=st.sampled_from([1, 3, 16, 17, 33, 64, 100]),
    groups=st.sampled_from([0, 0, 1, 2, 5]),
    hinted=st.booleans(),
    prepared=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_bounds_hold_on_any_data(
    engine: Engine,
    family: Callable[[np.random.Generator, int, int], Rows],
    m: int,
    n: int,
    dim: int,
    groups: int,
    hinted: bool,
    prepared: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    queries, bank = family(rng, m, dim), family(rng, n, dim)
    if rng.random() < 0.3:
        queries[: min(m, n) // 2] = bank[: min(m, n) // 2]
    options: dict[str, Any] = {"hint": rng.integers(-1, n, m)} if hinted else {}
    query_group = rng.integers(0, groups, m) if groups else None
    bank_group = rng.integers(0, groups, n) if groups else None
    if prepared:
        check_bounds(engine, queries, kernels.Bank(bank, bank_group), query_group, **options)
    else:
        check_bounds(engine, queries, bank, query_group, bank_group=bank_group, **options)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_each_family_at_a_real_dimension(
    engine: Engine, family: Callable[[np.random.Generator, int, int], Rows]
) -> None:
    rng = np.random.default_rng(4)
    bank = kernels.Bank(family(rng, 700, 300))
    check_bounds(engine, family(rng, 65, 300), bank, hint=rng.integers(-1, 700, 65))


@fuzz
@given(family=st.sampled_from(FAMILIES), n=st.sampled_from(SIZES), k=st.sampled_from([1, 3]), seed=st.integers(0, 999))
def test_a_hint_never_changes_the_answer(
    engine: Engine, family: Callable[[np.random.Generator, int, int], Rows], n: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, bank = family(rng, 33, 17), family(rng, n, 17)
    groups = {"query_group": rng.integers(0, 3, 33), "bank_group": rng.integers(0, 3, n)} if seed % 2 else {}
    plain = kernels.nearest(queries, bank, k=k, backend=engine.backend, **groups)
    for hint in (rng.integers(-1, n, 33), np.full(33, -1), plain.index.reshape(33, k)[:, 0]):
        found = kernels.nearest(queries, bank, k=k, hint=hint, backend=engine.backend, **groups)
        same_bits(found.index, plain.index)
        same_bits(found.sq_distance, plain.sq_distance)


@pytest.mark.parametrize("search", [kernels.nearest, kernels.nearest_bounds], ids=lambda f: f.__name__)
@pytest.mark.parametrize("hint", [[0, 1], [0, 1, 4], [0, -2, 1], [0.0, 1.0, 2.0], [[0], [1], [2]], "abc"], ids=str)
def test_a_hint_that_is_none(engine: Engine, search: Callable[..., object], hint: Any) -> None:
    rows = gaussian(np.random.default_rng(1), 4, 3)
    with pytest.raises(ParameterError, match="hint"):
        search(rows[:3], rows, hint=hint, backend=engine.backend)


def test_arguments_are_those_of_nearest(engine: Engine) -> None:
    rows = gaussian(np.random.default_rng(1), 4, 3)
    with pytest.raises(MixedSizesError, match="queries and bank"):
        kernels.nearest_bounds(rows[:, :2], rows, backend=engine.backend)
    with pytest.raises(NonFiniteError, match="queries"):
        kernels.nearest_bounds(np.full((1, 3), np.nan, np.float32), rows, backend=engine.backend)
    with pytest.raises(ParameterError, match="query_group"):
        kernels.nearest_bounds(rows, rows, query_group=[0, 1, 2, 3], backend=engine.backend)
    with pytest.raises(BackendError, match="none-such"):
        kernels.nearest_bounds(rows, rows, backend="none-such")
