"""`mutual_nearest` against float64 brute force, to the bit and in both roles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, Rows, check_mutual, duplicates, fuzz, gaussian, same_bits

import inreach_fast
from inreach_fast import kernels

SIZES = [1, 2, 5, 16, 17, 63, 64, 65, 130]


@pytest.mark.engines(routes="every")
@fuzz(
    family=st.sampled_from(FAMILIES),
    m=st.sampled_from(SIZES),
    n=st.sampled_from(SIZES),
    dim=st.sampled_from([1, 3, 15, 16, 17, 64, 100]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_data(
    engine: Engine, family: Callable[[np.random.Generator, int, int], Rows], m: int, n: int, dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    check_mutual(engine, family(rng, m, dim), family(rng, n, dim))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_each_family_at_a_real_dimension(
    engine: Engine, family: Callable[[np.random.Generator, int, int], Rows]
) -> None:
    rng = np.random.default_rng(1)
    dim = engine.fewer(1024)
    check_mutual(engine, family(rng, 70, dim), family(rng, 66, dim))


@pytest.mark.engines(routes="every")
def test_several_tiles_on_both_sides(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    check_mutual(engine, gaussian(rng, engine.fewer(530), 20), gaussian(rng, engine.fewer(4200), 20))


def test_a_set_with_itself(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    rows = duplicates(rng, 90, 30)
    result = check_mutual(engine, rows, rows)
    assert (result.ab_sq_distance == 0).all()
    first = np.array([int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in rows])
    np.testing.assert_array_equal(result.ab_index, first)
    np.testing.assert_array_equal(result.pairs()[0], np.unique(first))


@pytest.mark.engines(routes="none")
def test_thread_counts_give_the_same_bits(engine: Engine, threads: None) -> None:
    rng = np.random.default_rng(4)
    a, b = duplicates(rng, 301, 24), duplicates(rng, 260, 24)
    for count in (1, 2, 3, 5):
        inreach_fast.set_num_threads(count)
        check_mutual(engine, a, b)


def test_banks_and_subsets(engine: Engine) -> None:
    rng = np.random.default_rng(5)
    rows = gaussian(rng, 200, 32)
    i, j = rng.integers(0, 200, 80), rng.integers(0, 200, 90)
    expected = check_mutual(engine, rows[i], rows[j])
    # Groups of a bank play no part here.
    result = kernels.mutual_nearest(
        kernels.Bank(rows, np.zeros(80, int), index=i),
        kernels.Bank(rows, np.zeros(90, int), index=j),
        backend=engine.backend,
    )
    same_bits(result.ab_index, expected.ab_index)
    same_bits(result.ba_index, expected.ba_index)
    same_bits(result.ab_sq_distance, expected.ab_sq_distance)
    same_bits(result.ba_sq_distance, expected.ba_sq_distance)


def test_both_sides_are_nearest(engine: Engine) -> None:
    rng = np.random.default_rng(6)
    a, b = gaussian(rng, 140, 50), gaussian(rng, 90, 50)
    both = kernels.mutual_nearest(a, b, backend=engine.backend)
    same_bits(both.ab_index, kernels.nearest(a, b, backend=engine.backend).index)
    same_bits(both.ba_index, kernels.nearest(b, a, backend=engine.backend).index)


@pytest.mark.engines(only="native", pruned=False)
def test_kept_banks_again_and_with_others(engine: Engine) -> None:
    """Banks keep their projections: in each other's bases, and after a third one's."""
    rng = np.random.default_rng(7)
    directions = rng.standard_normal((6, 1600)).astype(np.float32)
    rows = [
        rng.standard_normal((n, 6)).astype(np.float32) @ directions + gaussian(rng, n, 1600) for n in (130, 150, 140)
    ]
    banks = [kernels.Bank(x) for x in rows]
    for i, j in ((0, 1), (0, 1), (1, 0), (2, 1), (0, 1), (1, 2)):
        found = kernels.mutual_nearest(banks[i], banks[j], backend=engine.backend)
        expected = check_mutual(engine, rows[i], rows[j])
        for name in ("ab_index", "ba_index", "ab_sq_distance", "ba_sq_distance"):
            same_bits(getattr(found, name), getattr(expected, name))
        assert engine.backend != "native" or not found.counts.brute_force
