"""More rows than 16 bits can number, on either side of a search and in the other operations."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from kernel_cases import Engine, expected, gaussian, same_bits

from inreach_fast import kernels

pytestmark = pytest.mark.engines(routes="one")

MANY = 65_536 + 200


def rows_with_the_nearest_last(rng: np.random.Generator, targets: np.ndarray) -> np.ndarray:
    """(MANY, d) float32, far from all targets but for the last rows, which are these in the opposite order."""
    rows = gaussian(rng, MANY, targets.shape[1]) + np.float32(50)
    rows[-len(targets) :] = targets[::-1]
    return rows


def test_a_bank_of_many_rows(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    queries = gaussian(rng, 5, 4)
    rows = rows_with_the_nearest_last(rng, queries)
    found = kernels.nearest(queries, kernels.Bank(rows), k=2, backend=engine.backend)
    index, sq_distance = expected("nearest", queries, rows, 2)
    same_bits(found.index, index)
    same_bits(found.sq_distance, sq_distance)
    assert found.index[:, 0].tolist() == [MANY - 1 - i for i in range(5)]


def test_many_queries(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    bank = gaussian(rng, 5, 4)
    queries = rows_with_the_nearest_last(rng, bank)
    groups = np.arange(5)
    query_group = np.arange(MANY) % 7
    found = kernels.nearest(queries, bank, query_group=query_group, bank_group=groups, backend=engine.backend)
    index, sq_distance = expected("nearest", queries, bank, 1, query_group, groups)
    same_bits(found.index, index)
    same_bits(found.sq_distance, sq_distance)
    both = kernels.mutual_nearest(queries, bank, backend=engine.backend)
    same_bits(both.ba_index, np.arange(MANY - 1, MANY - 6, -1))
    same_bits(both.ab_index, expected("nearest", queries, bank)[0])


@pytest.mark.engines(pruned=False)
def test_many_members_and_channels(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    members, channel = gaussian(rng, MANY, 3), rng.integers(0, 300, MANY)
    result = kernels.filter_channels(members, channel, min_length=3, max_std=2.0, backend=engine.backend)
    wanted = expected("filter_channels", members, channel, 3, 2.0, None)
    same_bits(result.keep, wanted.keep)
    same_bits(result.length, wanted.length)
    same_bits(result.sigma, wanted.sigma)
    alone = kernels.filter_channels(members, np.arange(MANY), min_length=0, max_std=2.0, backend=engine.backend)
    assert alone.keep.all()
    same_bits(alone.channels, np.arange(MANY))
    same_bits(alone.sigma, np.zeros(MANY))


@pytest.mark.engines(pruned=False)
def test_a_grid_of_many_patches(engine: Engine) -> None:
    level = np.random.default_rng(3).standard_normal((2, 3, 4)).astype(np.float32)
    grid = (260, 256)
    assert grid[0] * grid[1] > 65_536
    got = kernels.describe([level], grid=grid, dim=2, neighbourhood=1, backend=engine.backend)
    np.testing.assert_allclose(got, reference.describe([level], grid, 2, 1), rtol=0, atol=2e-6)
