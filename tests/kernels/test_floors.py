"""Searches whose bank rows have floors (reachability): to the bit what float64 brute force gives."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, check_nearest, expected, fuzz, gaussian, same_bits, small_integers

from inreach_fast import kernels
from inreach_fast.errors import ParameterError

pytestmark = pytest.mark.engines(routes="none")


def floors_of(rng: np.random.Generator, kind: str, queries: Any, bank: Any) -> Any:
    """Floors of the size of the distances, so that either may be the greater; or all 0, or some infinite."""
    if kind == "zero":
        return np.zeros(len(bank), np.float32)
    chosen = queries[rng.integers(0, len(queries), len(bank))]
    floor = reference.to_float32(reference.sq_distance(chosen, bank))  # exact ties between floor and distance
    if kind == "scaled":
        floor = floor * rng.choice(np.float32([0.0, 0.5, 1.0, 2.0]), len(bank))
    if kind == "infinite":
        floor[rng.random(len(bank)) < 0.5] = np.inf
    return floor.astype(np.float32)


@fuzz(
    family=st.sampled_from(FAMILIES),
    m=st.sampled_from([1, 2, 17, 65, 129]),
    n=st.sampled_from([1, 3, 64, 65, 200]),
    dim=st.sampled_from([1, 3, 16, 33, 65, 100]),
    k=st.sampled_from([1, 1, 1, 2, 5]),
    kind=st.sampled_from(["equal", "scaled", "infinite", "zero"]),
    groups=st.sampled_from([0, 0, 3]),
    hinted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_data(
    engine: Engine, family: Any, m: int, n: int, dim: int, k: int, kind: str, groups: int, hinted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, bank = family(rng, m, dim), family(rng, n, dim)
    query_group = rng.integers(0, groups, m) if groups else None
    bank_group = rng.integers(0, groups, n) if groups else None
    with np.errstate(over="ignore", invalid="ignore"):
        floor = np.nan_to_num(floors_of(rng, kind, queries, bank), posinf=np.inf)
    hint = rng.integers(-1, n, m) if hinted else None
    check_nearest(engine, queries, bank, k, query_group, bank_group, floor, hint)


def test_many_rows_in_clusters(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    centres = 10 * gaussian(rng, 12, 48)
    bank = (centres[rng.integers(0, 12, 3000)] + 0.3 * gaussian(rng, 3000, 48)).astype(np.float32)
    groups = np.repeat(np.arange(30), 100)
    own = kernels.nearest(bank, bank, query_group=groups, bank_group=groups).sq_distance
    queries = (centres[rng.integers(0, 12, 150)] + 0.3 * gaussian(rng, 150, 48)).astype(np.float32)
    check_nearest(engine, queries, bank, 1, None, None, own)
    found = kernels.nearest_bounds(queries, bank, bank_floor=own, backend=engine.backend)
    truth = expected("nearest", queries, bank, 1, None, None, own)[1]
    assert (found.sq_lower <= truth).all()
    assert (truth <= found.sq_upper).all()


def test_mutual_witnesses_tie_and_the_lowest_index_wins(engine: Engine) -> None:
    # Rows 1 and 2 confirm each other at 4; the query is nearer to row 2 than 4, and so is row 1's value.
    bank = np.float32([[100.0], [2.0], [0.0]])
    floor = np.float32([9801.0, 4.0, 4.0])
    result = check_nearest(engine, np.float32([[0.5]]), bank, 1, None, None, floor)
    assert (result.index.tolist(), result.sq_distance.tolist()) == ([1], [4.0])


def test_rows_without_a_witness_are_never_found(engine: Engine) -> None:
    bank, queries = small_integers(np.random.default_rng(4), 20, 5), np.zeros((2, 5), np.float32)
    result = check_nearest(engine, queries, bank, 3, None, None, np.full(20, np.inf, np.float32))
    assert (result.index == -1).all()


def test_a_bank_keeps_its_floor_and_can_be_asked_without(engine: Engine) -> None:
    rng = np.random.default_rng(5)
    rows, queries = gaussian(rng, 700, 20), gaussian(rng, 40, 20)
    floor = rng.random(700).astype(np.float32) * 40
    bank = kernels.Bank(rows, floor=floor)
    same_bits(
        kernels.nearest(queries, bank, backend=engine.backend).sq_distance,
        expected("nearest", queries, rows, 1, None, None, floor)[1],
    )
    plain = kernels.nearest(queries, bank.with_floor(None), backend=engine.backend)
    same_bits(plain.index, expected("nearest", queries, rows, 1, None, None)[0])
    both = kernels.mutual_nearest(queries, bank, backend=engine.backend)
    same_bits(both.ab_index, plain.index)
    same_bits(kernels.nearest_answered(queries, bank, backend=engine.backend).index, plain.index)


def test_floors_of_the_queries_do_not_count(engine: Engine) -> None:
    rng = np.random.default_rng(6)
    queries, bank = gaussian(rng, 40, 8), gaussian(rng, 60, 8)
    floored = kernels.Bank(queries, floor=np.where(np.arange(40) == 3, 0, np.inf).astype(np.float32))
    same_bits(
        kernels.nearest_answered(floored, bank, backend=engine.backend).answered,
        kernels.nearest_answered(queries, bank, backend=engine.backend).answered,
    )
    same_bits(
        kernels.mutual_nearest(floored, bank, backend=engine.backend).ba_index,
        kernels.mutual_nearest(queries, bank, backend=engine.backend).ba_index,
    )


def test_a_floor_of_minus_zero_is_zero(engine: Engine) -> None:
    rows = np.zeros((2, 3), np.float32)
    for k in (1, 2):
        found = kernels.nearest(rows, rows, k=k, bank_floor=np.float32([-0.0, 0.0]), backend=engine.backend)
        same_bits(found.sq_distance, expected("nearest", rows, rows, k, None, None, np.zeros(2, np.float32))[1])


def test_banks_of_other_floors_share_an_index_and_do_not_mix(engine: Engine) -> None:
    rng = np.random.default_rng(8)
    centres = 10 * gaussian(rng, 6, 20)
    rows = (centres[rng.integers(0, 6, 900)] + gaussian(rng, 900, 20)).astype(np.float32)
    queries = rows[:60] + np.float32(0.1)
    floors = [None, *(np.float32(s) * rng.random(900, dtype=np.float32) for s in (5, 50))]
    bank = kernels.Bank(rows, floor=floors[1])
    banks = [bank.with_floor(floor) for floor in floors] + [pickle.loads(pickle.dumps(bank))]
    wanted = [expected("nearest", queries, rows, 1, None, None, floor) for floor in [*floors, floors[1]]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda b: kernels.nearest(queries, b, backend=engine.backend), banks * 2))
    for one, (index, values) in zip(found, wanted * 2, strict=True):
        same_bits(one.index, index)
        same_bits(one.sq_distance, values)


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        (np.float32([1, 2]), "expected 3 entries"),
        (np.float32([1, -1, 0]), "at least 0, got -1.0 at 1"),
        (np.float32([1, 0, np.nan]), "at least 0, got nan at 2"),
        (np.float32([[1], [2], [3]]), "1 dimensions"),
        (["a", "b", "c"], "floor"),
    ],
)
def test_floors_that_cannot_be(floor: Any, message: str) -> None:
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(ParameterError, match=message):
        kernels.nearest(rows, rows, bank_floor=floor)
    with pytest.raises(ParameterError, match=message):
        kernels.Bank(rows, floor=floor)
