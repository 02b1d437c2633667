from __future__ import annotations

import numpy as np
import pytest
import reference

from inreach_fast.errors import MixedSizesError, NonFiniteError, ParameterError
from inreach_fast.method.descriptors import DescriptorSpace, check_descriptors, position_channels


def test_positions_are_the_references() -> None:
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    got = DescriptorSpace(positions=position_channels((2, 3), 5.0))(x)
    assert np.array_equal(got, reference.embed_position(x, (2, 3), 5.0).astype(np.float32))
    assert DescriptorSpace()(x) is x


def test_descriptors_are_checked_and_not_copied() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    assert check_descriptors(x) is x or np.shares_memory(check_descriptors(x), x)
    assert check_descriptors(x.astype(np.float64)).dtype == np.float32
    with pytest.raises(MixedSizesError, match="differ in shape"):
        check_descriptors([x[0], x[0, :2]])
    with pytest.raises(MixedSizesError):
        check_descriptors(x[:0])
    with pytest.raises(ParameterError, match="x"):
        check_descriptors(x[0])
    with pytest.raises(ParameterError, match="x"):
        check_descriptors(np.full((1, 1, 1), 1 + 2.0**-40))
    x[1, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match="image 1, patch 2"):
        check_descriptors(x)
