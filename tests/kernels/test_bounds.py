"""Where a bound without its absolute terms gives wrong answers: far outside the frame, and deep inside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

_core = pytest.importorskip("inreach_fast._core")

from inreach_fast.kernels.basis import Basis  # noqa: E402


@pytest.fixture(params=_core.isa_levels())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


def assert_same(queries: NDArray[np.float32], bank: NDArray[np.float32], rank: int = 256) -> None:
    basis = Basis(bank, rank).native
    index = _core.LeafIndex(basis, bank, None, None)
    projected = _core.ProjectedRows(basis, queries, None)
    pruned = _core.nearest_pruned(queries, None, None, projected, bank, None, None, False, basis, index, 1, None)
    brute = _core.nearest_brute(queries, None, None, bank, None, None, False, 1)
    assert np.array_equal(pruned[0], brute[0])
    assert np.array_equal(pruned[1], brute[1])
    assert (pruned[0] >= 0).all()


@pytest.mark.parametrize("magnitude", [1e3, 1e11, 1e13, 1e14, 1e20, 1e37])
def test_queries_far_outside_the_frame(isa: str, magnitude: float) -> None:
    rng = np.random.default_rng(0)
    bank = np.zeros((1500, 128), np.float32)
    bank[:, :3] = rng.standard_normal((1500, 3))
    assert_same((rng.standard_normal((20, 128)) * magnitude).astype(np.float32), bank)


@pytest.mark.parametrize("dim", [33, 64])
@pytest.mark.parametrize("size", [1e-18, 1e-20, 1e-22, 3e-23, 1e-30])
@pytest.mark.parametrize("directions", [4, 64])
def test_a_clump_at_the_centre_whose_products_underflow(isa: str, dim: int, size: float, directions: int) -> None:
    rng = np.random.default_rng(1)

    def rows(count: int, scale: float) -> NDArray[np.float32]:
        values = rng.standard_normal((count, dim)) * scale
        values[:, directions:] = 0.0
        return values.astype(np.float32)

    near, far = rows(500, size), rows(50, 1.0)
    # With their negatives the rows have an exact mean of zero: the clump lies at the very centre of the frame.
    bank = np.concatenate([near, -near, far, -far])
    assert_same(rows(60, size), bank)
