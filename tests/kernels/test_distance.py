from __future__ import annotations

import numpy as np
import pytest
import reference

from inreach_fast.kernels.distance import exact_sq_distance


@pytest.mark.parametrize("dim", [1, 15, 16, 17, 40])
def test_exact_distance_has_the_bits_of_the_reference(dim: int) -> None:
    x, y = np.random.default_rng(dim).standard_normal((2, 20, dim)).astype(np.float32)
    assert np.array_equal(exact_sq_distance(x, y), reference.sq_distance(x, y))
