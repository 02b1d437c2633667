"""`nearest_answered`: the nearest row of each query, and whether that row's nearest query is this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, Rows, fuzz, gaussian, same_bits

from inreach_fast import kernels


def check_answered(engine: Engine, queries: Any, bank: Any, rows: Rows, q_group: Any = None, groups: Any = None) -> Any:
    """The reference's answer; ``rows`` are the bank's."""
    found = kernels.nearest_answered(queries, bank, query_group=q_group, bank_group=groups, backend=engine.backend)
    index, sq_distance = reference.nearest(queries, rows, 1, q_group, groups)
    back = reference.nearest(rows, queries, 1)[0]
    expected = np.array([i >= 0 and back[i] == j for j, i in enumerate(index)], dtype=bool)
    same_bits(found.index, index)
    same_bits(found.sq_distance, sq_distance)
    same_bits(found.answered, expected)
    return found


@pytest.mark.engines(routes="every")
@fuzz(
    family=st.sampled_from(FAMILIES),
    m=st.sampled_from([1, 7, 70, 131]),
    n=st.sampled_from([1, 9, 65, 150]),
    dim=st.sampled_from([1, 33, 64]),
    grouped=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_rows_found_answer(
    engine: Engine,
    family: Callable[[np.random.Generator, int, int], Rows],
    m: int,
    n: int,
    dim: int,
    grouped: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    queries, rows = family(rng, m, dim), family(rng, n, dim)
    q_group, groups = (rng.integers(0, 3, m), rng.integers(0, 3, n)) if grouped else (None, None)
    check_answered(engine, queries, rows, rows, q_group, groups)


def test_nobody_is_asked_where_nobody_is_found(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    queries, rows = gaussian(rng, 9, 20), gaussian(rng, 30, 20)
    found = check_answered(engine, queries, rows, rows, [4, 5] * 4 + [4], [4] * 30)
    assert not found.answered[::2].any()
    assert found.answered[1::2].any()


def test_a_subset_of_rows_answers(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    queries, rows = gaussian(rng, 80, 24), gaussian(rng, 200, 24)
    index = rng.permutation(200)[:90]
    bank = kernels.Bank(rows, index=index)
    for _ in range(2):  # what is prepared once serves again
        check_answered(engine, queries, bank, rows[index])


def test_equal_queries_of_one_row_give_it_to_the_first(engine: Engine) -> None:
    rows = np.eye(3, 16, dtype=np.float32)
    queries = np.repeat(rows, 50, axis=0)
    found = check_answered(engine, queries, rows, rows)
    assert np.flatnonzero(found.answered).tolist() == [0, 50, 100]


@pytest.mark.engines(routes="filters")
@fuzz(
    kept=st.booleans(),
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 40, 90]),
    k=st.sampled_from([1, 1, 1, 3]),
    grouped=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_hint_changes_the_answer(
    engine: Engine,
    kept: bool,
    family: Callable[[np.random.Generator, int, int], Rows],
    n: int,
    k: int,
    grouped: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    m = 20
    queries, rows = family(rng, m, 33), family(rng, n, 33)
    q_group, groups = (rng.integers(0, 2, m), rng.integers(0, 2, n)) if grouped else (None, None)
    expected = reference.nearest(queries, rows, k, q_group, groups)
    first = expected[0].reshape(m, -1)[:, 0]
    bank = kernels.Bank(rows, groups) if kept else rows
    # The answer itself, any rows (of groups that must not meet as well), and none.
    for hint in (first, rng.integers(-1, n, m), np.full(m, -1)):
        found = kernels.nearest(
            queries,
            bank,
            k=k,
            query_group=q_group,
            bank_group=None if kept else groups,
            hint=hint,
            backend=engine.backend,
        )
        same_bits(found.index, expected[0])
        same_bits(found.sq_distance, expected[1])
