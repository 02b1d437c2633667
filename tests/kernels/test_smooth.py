"""`smooth`: the same bits as additions one after the other, along the first axis, then along the second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from kernel_cases import Engine, fuzz, same_bits

from inreach_fast.kernels.band import Band
from inreach_fast.kernels.smoothing import smooth

pytestmark = pytest.mark.engines(routes="none", pruned=False)


def band(rng: np.random.Generator, cells: int, outputs: int) -> Band:
    parts = []
    for _ in range(cells):
        low, high = sorted(int(n) for n in rng.integers(0, outputs + 1, 2))
        parts.append((low, high, rng.standard_normal(high - low)))
    return Band(parts)


def plain(scores: Any, rows: Band, columns: Band, size: tuple[int, int]) -> Any:
    half = np.zeros((size[0], len(columns)))
    for i, (low, high, weights) in enumerate(rows):
        for y in range(low, high):
            for x in range(len(columns)):
                half[y, x] += weights[y - low] * scores[i, x]
    full = np.zeros(size)
    for j, (low, high, weights) in enumerate(columns):
        for x in range(low, high):
            for y in range(size[0]):
                full[y, x] += weights[x - low] * half[y, j]
    return full.astype(np.float32)


@fuzz(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bands(engine: Engine, grid: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (band(rng, cells, outputs) for cells, outputs in zip(grid, size, strict=True))
    scores = rng.standard_normal(grid) * 10.0 ** rng.integers(-30, 30)
    same_bits(smooth(scores, rows, columns, size, backend=engine.backend), plain(scores, rows, columns, size))


@pytest.mark.parametrize("bad", [(-1, 2), (2, 1), (3, 6)])
def test_the_extension_refuses_bands_beyond_their_axis(bad: tuple[int, int]) -> None:
    _core = pytest.importorskip("inreach_fast._core")
    fine = np.array([0], np.int32), np.array([2], np.int32), np.ones(2)
    low, high = (np.array([n], np.int32) for n in bad)
    weights = np.ones(max(0, bad[1] - bad[0]))
    for order in ((low, high, weights, *fine), (*fine, low, high, weights)):
        with pytest.raises(ValueError, match="smooth: a band"):
            _core.smooth(np.ones((1, 1)), *order, 5, 5)
