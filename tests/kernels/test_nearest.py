"""`nearest` against float64 brute force, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st
from kernel_cases import (
    FAMILIES,
    Engine,
    Rows,
    check_mutual,
    check_nearest,
    duplicates,
    fuzz,
    gaussian,
    same_bits,
    small_integers,
)

import inreach_fast
from inreach_fast import kernels

SIZES = [1, 2, 3, 5, 15, 16, 17, 31, 64, 65, 127, 129]


@pytest.mark.engines(routes="every")
@fuzz(
    family=st.sampled_from(FAMILIES),
    m=st.sampled_from(SIZES),
    n=st.sampled_from(SIZES),
    dim=st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 33, 63, 64, 65, 100]),
    k=st.sampled_from([1, 1, 2, 5, 200]),
    groups=st.sampled_from([0, 0, 1, 2, 5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_data(
    engine: Engine,
    family: Callable[[np.random.Generator, int, int], Rows],
    m: int,
    n: int,
    dim: int,
    k: int,
    groups: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    queries, bank = family(rng, m, dim), family(rng, n, dim)
    query_group = rng.integers(0, groups, m) if groups else None
    bank_group = rng.integers(0, groups, n) if groups else None
    check_nearest(engine, queries, bank, k, query_group, bank_group)


@pytest.mark.engines(routes="filters")
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_each_family_at_a_real_dimension(
    engine: Engine, family: Callable[[np.random.Generator, int, int], Rows]
) -> None:
    rng = np.random.default_rng(1)
    dim = engine.fewer(1026)
    check_nearest(engine, family(rng, 33, dim), family(rng, 150, dim))


@pytest.mark.engines(routes="filters")
@fuzz(
    family=st.sampled_from([gaussian, duplicates, small_integers]),
    m=st.sampled_from([1, 17, 70]),
    n=st.sampled_from([3, 65, 140]),
    dim=st.sampled_from([2, 33, 64]),
    exponents=st.tuples(*[st.integers(-40, 36)] * 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_two_sides_of_different_scale(
    engine: Engine,
    family: Callable[[np.random.Generator, int, int], Rows],
    m: int,
    n: int,
    dim: int,
    exponents: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    a, b = family(rng, m, dim), family(rng, n, dim)
    a, b = ((10.0**e * rows.astype(np.float64)).astype(np.float32) for e, rows in zip(exponents, (a, b), strict=True))
    check_nearest(engine, a, b, k=2)
    check_mutual(engine, a, b)


@pytest.mark.engines(routes="every")
def test_several_tiles_on_both_sides(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    check_nearest(engine, gaussian(rng, engine.fewer(530), 17), gaussian(rng, engine.fewer(4500), 17), k=3)


def test_a_bank_that_grows_nearer_row_by_row(engine: Engine) -> None:
    # The worst order for early limits: each row beats all before it.
    bank = np.linspace(9, 1, 700, dtype=np.float32)[:, None] * np.ones((1, 20), np.float32)
    result = check_nearest(engine, np.zeros((3, 20), np.float32), bank, k=2)
    assert result.index.tolist() == [[699, 698]] * 3


@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_ties_go_to_the_lowest_index(engine: Engine, k: int) -> None:
    result = check_nearest(engine, np.ones((3, 9), np.float32), np.zeros((50, 9), np.float32), k=k)
    expected = np.tile(np.arange(k), (3, 1))
    np.testing.assert_array_equal(result.index.reshape(3, -1), expected)


def test_k_is_the_whole_bank_and_more(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    queries, bank = small_integers(rng, 9, 6), small_integers(rng, 40, 6)
    check_nearest(engine, queries, bank, k=40)
    more = check_nearest(engine, queries, bank, k=43)
    assert (more.index[:, 40:] == -1).all()
    assert np.isinf(more.sq_distance[:, 40:]).all()


def test_one_row_each(engine: Engine) -> None:
    check_nearest(engine, [[3.0]], [[1.0]])


def test_no_eligible_row(engine: Engine) -> None:
    rng = np.random.default_rng(4)
    result = check_nearest(engine, gaussian(rng, 5, 8), gaussian(rng, 7, 8), 1, [1, 1, 2, 1, 1], [1] * 7)
    assert result.index.tolist() == [-1, -1, result.index[2], -1, -1]
    assert np.isinf(result.sq_distance[[0, 1, 3, 4]]).all()


def test_groups_of_a_bank_are_the_default(engine: Engine) -> None:
    rng = np.random.default_rng(5)
    rows, group = gaussian(rng, 60, 16), np.arange(60) // 6
    bank = kernels.Bank(rows, group)
    expected = check_nearest(engine, rows, rows, 1, group, group)
    for queries, query_group in ((rows, group), (bank, None), (bank, group)):
        result = kernels.nearest(queries, bank, query_group=query_group, backend=engine.backend)
        same_bits(result.index, expected.index)
        same_bits(result.sq_distance, expected.sq_distance)


def test_large_and_negative_group_ids(engine: Engine) -> None:
    rng = np.random.default_rng(6)
    ids = np.array([-(2**63), -1, 0, 2**32, 2**63 - 1])
    check_nearest(engine, gaussian(rng, 20, 5), gaussian(rng, 50, 5), 2, rng.choice(ids, 20), rng.choice(ids, 50))


def test_a_subset_by_index_is_the_gathered_bank(engine: Engine) -> None:
    rng = np.random.default_rng(7)
    rows = gaussian(rng, 300, 40)
    index = rng.integers(0, 300, 170)  # unordered, with repeats
    queries = gaussian(rng, 21, 40)
    gathered = check_nearest(engine, queries, rows[index], k=3)
    subset = kernels.Bank(rows, index=index)
    assert len(subset) == 170
    result = kernels.nearest(queries, subset, k=3, backend=engine.backend)
    same_bits(result.index, gathered.index)
    same_bits(result.sq_distance, gathered.sq_distance)
    as_queries = kernels.nearest(subset, queries, backend=engine.backend)
    same_bits(as_queries.index, check_nearest(engine, rows[index], queries).index)


def test_batches_of_any_size_give_the_same_bits(engine: Engine) -> None:
    rng = np.random.default_rng(8)
    m = engine.fewer(201)
    queries, bank = gaussian(rng, m, 48), kernels.Bank(gaussian(rng, engine.fewer(500), 48))
    whole = kernels.nearest(queries, bank, k=2, backend=engine.backend)
    for size, first in ((1, m - 5), (3, m - 20), (64, 0)):
        starts = range(first, m, size)
        parts = [kernels.nearest(queries[i : i + size], bank, k=2, backend=engine.backend) for i in starts]
        same_bits(np.concatenate([p.index for p in parts]), whole.index[first:])
        same_bits(np.concatenate([p.sq_distance for p in parts]), whole.sq_distance[first:])


@pytest.mark.engines(routes="none")
def test_thread_counts_give_the_same_bits(engine: Engine, threads: None) -> None:
    rng = np.random.default_rng(9)
    queries, bank = gaussian(rng, 301, 33), gaussian(rng, 600, 33)
    for count in (1, 2, 3, 5):
        inreach_fast.set_num_threads(count)
        check_nearest(engine, queries, bank, k=2)


def test_distances_beyond_float32_are_infinite_with_their_index(engine: Engine) -> None:
    bank = np.array([[3e38], [-3e38]], np.float32)
    result = check_nearest(engine, np.array([[-1e38]], np.float32), bank, k=2)
    assert result.index.tolist() == [[1, 0]]
    assert np.isinf(result.sq_distance).all()


def test_inputs_are_left_as_they_are(engine: Engine) -> None:
    rng = np.random.default_rng(10)
    queries, bank = gaussian(rng, 9, 12), gaussian(rng, 30, 12)
    queries.flags.writeable = bank.flags.writeable = False  # as a memory-mapped model is
    before = queries.tobytes(), bank.tobytes()
    check_nearest(engine, queries, bank)
    assert (queries.tobytes(), bank.tobytes()) == before


def clustered(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """What bounds are made for: few directions, many clusters."""
    directions = np.random.default_rng(12).normal(size=(6, dim))
    return (rng.normal(size=(n, 6)) @ directions + 0.05 * rng.normal(size=(n, dim))).astype(np.float32)


@pytest.mark.engines(routes="every")
@pytest.mark.parametrize("k", [1, 3])
def test_structured_data_with_groups(engine: Engine, k: int) -> None:
    rng = np.random.default_rng(11)
    n, m = engine.fewer(2400), engine.fewer(360)
    rows, group = clustered(rng, n, 96), np.arange(n) // 50
    bank = kernels.Bank(rows, group)
    queries = np.concatenate([rows[: m - 30], clustered(rng, 30, 96)])
    query_group = np.concatenate([group[: m - 30], np.full(30, -5)])
    result = kernels.nearest(queries, bank, k=k, query_group=query_group, backend=engine.backend)
    if engine.pruned and (engine.case is None or k == 1):  # the path that this engine stands for was the one taken
        assert result.counts is not None
        assert not result.counts.brute_force
        assert result.counts.decided < 0.2 * result.counts.pairs
    expected = check_nearest(engine, queries, rows, k, query_group, group)
    same_bits(result.index, expected.index)
    same_bits(result.sq_distance, expected.sq_distance)


@pytest.mark.engines(routes="filters")
def test_bounds_that_do_not_pay_are_given_up(engine: Engine) -> None:
    rng = np.random.default_rng(13)
    rows = rng.normal(size=(engine.fewer(1500), 200)).astype(np.float32)  # no direction is worth more than another
    queries = rng.normal(size=(engine.fewer(700), 200)).astype(np.float32)
    result = kernels.nearest(queries, kernels.Bank(rows), backend=engine.backend)
    if engine.pruned:
        assert result.counts is not None
        assert result.counts.brute_force
        both = result.counts.bounded + (0 if engine.case is None else result.counts.refined)
        assert both > result.counts.pairs  # the first tasks' bounds, and all pairs
    expected = check_nearest(engine, queries, rows)
    same_bits(result.index, expected.index)
    same_bits(result.sq_distance, expected.sq_distance)
