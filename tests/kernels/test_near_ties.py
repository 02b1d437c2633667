"""Where a wrong error bound shows: float32 alone picks another row, and each test checks that it does."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import Engine, Rows, check_mutual, check_nearest, same_bits
from numpy.typing import NDArray
from reference import nearest as exact_nearest
from reference import pairwise_sq_distance

from inreach_fast import kernels


def float32_nearest(queries: Rows, bank: Rows) -> NDArray[np.int64]:
    """|x|^2 + |y|^2 - 2xy in float32, on centred rows: what a search without a bound would answer."""
    centre = bank.mean(axis=0, dtype=np.float64)
    a, b = (queries - centre).astype(np.float32), (bank - centre).astype(np.float32)
    product = a @ b.T
    return np.asarray(((a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * product).argmin(axis=1))


def near_tie_cases() -> dict[str, tuple[Rows, Rows]]:
    rng = np.random.default_rng(11)
    cases = {}

    # Tight clusters far apart: the products are of order 1e6, the distances of order 1e-2.
    centres = 100.0 * rng.normal(size=(3, 64))
    rows = (centres[rng.integers(0, 3, 400)] + 1e-2 * rng.normal(size=(400, 64))).astype(np.float32)
    cases["far clusters"] = rows[:60], rows[60:]

    # For each query a pair of opposite rows at nearly the same distance, apart by one unit in the last place.
    queries = rng.normal(size=(40, 96)).astype(np.float32)
    step = rng.normal(size=(40, 96)).astype(np.float32)
    plus, minus = queries + step, queries - step
    cases["opposite rows"] = queries, np.ascontiguousarray(np.stack([plus, minus], 1).reshape(80, 96))

    # The same differences in another order: the real distances are equal, their float64 sums are not.
    values = rng.integers(-(2**11), 2**11, 130).astype(np.float32) * np.float32(1.1)
    base = np.zeros((1, 130), np.float32)
    cases["permuted differences"] = base, np.stack([rng.permutation(values) for _ in range(300)])

    # One row repeated, a few copies moved by the least float32 step in one place: half of the steps come
    # nearer to the query, by far less than float32 sees in the square.
    query = rng.normal(size=(30, 128)).astype(np.float32)
    copies = np.repeat(rng.normal(size=(1, 128)).astype(np.float32), 128, axis=0)
    diagonal = np.arange(128)
    copies[diagonal, diagonal] = np.nextafter(copies[diagonal, diagonal], np.float32(np.inf))
    cases["one step apart"] = query, copies

    # Decimal grids under a large offset, with an outlier that takes the scale for itself.
    grid = (1e5 + rng.integers(0, 4, (300, 48)) / 100).astype(np.float32)
    grid[-1] = 3e9
    cases["outlier beside a grid"] = grid[:50], grid[50:]
    return cases


CASES = near_tie_cases()


@pytest.mark.parametrize("name", CASES)
def test_float32_alone_would_be_wrong(name: str) -> None:
    queries, bank = CASES[name]
    assert (float32_nearest(queries, bank) != exact_nearest(queries, bank)[0]).any()


@pytest.mark.engines(routes="filters")
@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_float64s(engine: Engine, name: str) -> None:
    queries, bank = CASES[name]
    check_nearest(engine, queries, bank)
    check_nearest(engine, queries, bank, k=4)
    check_mutual(engine, queries, bank)


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_the_bank_decides_ties_alone(engine: Engine, name: str) -> None:
    queries, bank = CASES[name]
    result = kernels.nearest(queries, bank[::-1], backend=engine.backend)
    distance = pairwise_sq_distance(queries, bank[::-1])
    same_bits(result.index, distance.argmin(axis=1))


@pytest.mark.engines(routes="filters")
@pytest.mark.parametrize(("dim", "spread"), [(16, 1e-6), (16, 1e-2), (128, 1e-4), (1024, 1e-6), (1024, 1e-2)])
def test_shells_around_the_query(engine: Engine, dim: int, spread: float) -> None:
    # Every row is at distance 1 of its query, give or take `spread`, and the queries are far from the centre.
    rng = np.random.default_rng(dim)
    queries = (10 * rng.normal(size=(6, dim))).astype(np.float32)
    around = rng.normal(size=(6, 25, dim))
    around /= np.linalg.norm(around, axis=2, keepdims=True)
    around *= 1.0 + spread * rng.normal(size=(6, 25, 1))
    bank = (queries[:, None, :] + around).astype(np.float32).reshape(150, dim)
    check_nearest(engine, queries, bank, k=3)
    check_mutual(engine, queries, bank)
