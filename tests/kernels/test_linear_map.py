"""`linear_map`: the same bits as additions one after the other in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, fuzz, gaussian, same_bits

import inreach_fast
from inreach_fast import kernels
from inreach_fast.errors import MixedSizesError

pytestmark = pytest.mark.engines(routes="none", pruned=False)


def plain(rows: Any, mean: Any, matrix: Any) -> Any:
    out = np.zeros((len(rows), matrix.shape[1]), np.float32)
    for i, row in enumerate(rows):
        difference = row - mean
        total = difference[0] * matrix[0]
        for d in range(1, len(row)):
            total = total + difference[d] * matrix[d]
        out[i] = total
    return out


@fuzz(
    family=st.sampled_from(FAMILIES),
    m=st.sampled_from([0, 1, 47, 49]),
    dim=st.sampled_from([1, 2, 63, 64, 65, 130]),
    outputs=st.sampled_from([1, 15, 16, 17, 80]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_data(engine: Engine, family: Any, m: int, dim: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, matrix = family(rng, max(m, 1), dim)[:m], gaussian(rng, dim, outputs)
    mean = rows.mean(axis=0) if m else np.zeros(dim, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = plain(rows, mean, matrix)
    same_bits(kernels.linear_map(rows, mean, matrix, backend=engine.backend), wanted)


def test_threads_and_views_change_nothing(engine: Engine, threads: None) -> None:
    rng = np.random.default_rng(1)
    rows, mean, matrix = gaussian(rng, 400, 96)[::2], gaussian(rng, 1, 96)[0], gaussian(rng, 40, 96).T
    wanted = plain(rows, mean, matrix)
    for count in (1, 2, 3):
        inreach_fast.set_num_threads(count)
        same_bits(kernels.linear_map(rows, mean, matrix, backend=engine.backend), wanted)


@pytest.mark.parametrize(("mean", "matrix"), [(3, (4, 2)), (4, (3, 2)), (4, (4, 0))])
def test_shapes_that_do_not_fit(mean: int, matrix: tuple[int, int]) -> None:
    with pytest.raises(MixedSizesError, match=r"mean, matrix: expected \(4,\) and \(4, d\)"):
        kernels.linear_map(np.zeros((2, 4), np.float32), np.zeros(mean, np.float32), np.zeros(matrix, np.float32))
