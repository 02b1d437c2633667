"""`nearest_bounds` of the compiled engine: the answer lies between, on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, Rows, fuzz

from inreach_fast import kernels

_core = pytest.importorskip("inreach_fast._core")

from inreach_fast.kernels.cpu import native  # noqa: E402


def check(queries: Rows, rows: Rows, groups: Any = None, query_group: Any = None, hint: Any = None) -> Any:
    """Bounds hold, and the upper one is the very distance of the row that is named."""
    asked = kernels.Bank.for_call(queries, name="queries")
    found = native.NativeBackend().nearest_bounds(asked, kernels.Bank(rows, groups), query_group, hint)
    _index, truth = reference.nearest(queries, rows, 1, query_group, groups)
    assert (found.sq_lower <= truth).all()
    assert (truth <= found.sq_upper).all()
    named = np.flatnonzero(found.index >= 0)
    assert np.isinf(found.sq_upper[found.index < 0]).all()
    for i in named:
        own = reference.nearest(queries[i : i + 1], rows[found.index[i]][None])[1]
        assert own.ravel()[0] == found.sq_upper[i]
        if groups is not None and query_group is not None:
            assert groups[found.index[i]] != query_group[i]
    return found


@pytest.mark.engines(only="native")
@fuzz(
    family=st.sampled_from(FAMILIES),
    n=st.integers(1, 400),
    m=st.integers(1, 60),
    dim=st.sampled_from([1, 3, 33, 64, 70, 130]),
    grouped=st.booleans(),
    hinted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_answer_lies_between(
    engine: Engine, family: Any, n: int, m: int, dim: int, grouped: bool, hinted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, n) if grouped else None
    query_group = rng.integers(0, 4, m) if grouped else None
    hint = rng.integers(-1, n, m) if hinted else None
    check(family(rng, m, dim), family(rng, n, dim), groups, query_group, hint)


def clusters(rng: np.random.Generator, n: int) -> Rows:
    centres = np.random.default_rng(5).standard_normal((30, 96)) * 10 * 0.9 ** np.arange(96)
    return (centres[rng.integers(0, 30, n)] + rng.standard_normal((n, 96)) * 0.3).astype(np.float32)


def test_bounds_cost_less_than_answers_and_say_something() -> None:
    rng = np.random.default_rng(0)
    rows, queries = clusters(rng, 20_000), clusters(rng, 200)
    found = check(queries, rows)
    whole = kernels.nearest(queries, rows, backend="native")
    assert found.counts.bounded < 0.5 * whole.counts.bounded
    assert np.mean(found.sq_upper == whole.sq_distance) > 0.3
    assert np.mean(found.sq_lower > 0) > 0.3


def test_a_hint_that_is_the_answer_is_the_upper_bound() -> None:
    rng = np.random.default_rng(1)
    rows, queries = clusters(rng, 3000), clusters(rng, 50)
    index, truth = reference.nearest(queries, rows)
    found = check(queries, rows, hint=index.ravel())
    np.testing.assert_array_equal(found.sq_upper, truth.ravel())


def test_without_structure_bounds_are_the_answer() -> None:
    rng = np.random.default_rng(2)
    found = check(*(rng.standard_normal((n, 600)).astype(np.float32) for n in (20, 700)))
    assert found.exact
    np.testing.assert_array_equal(found.sq_lower, found.sq_upper)
