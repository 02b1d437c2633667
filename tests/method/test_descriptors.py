from __future__ import annotations

import numpy as np
import pytest
import reference

from inreach_fast.errors import MixedSizesError, NonFiniteError, ParameterError
from inreach_fast.method.descriptors import DescriptorBuffer, append_positions, check_descriptors, position_channels


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        pytest.skip("resident memory cannot be read here")


def test_compaction_keeps_the_rows_in_place_and_gives_the_rest_back() -> None:
    rows, dim = 100_000, 128  # 51 MB
    buffer = DescriptorBuffer(rows, dim)
    buffer.array[:] = np.arange(rows, dtype=np.float32)[:, None]
    full = resident_bytes()
    chosen = np.sort(np.random.default_rng(0).choice(rows, rows // 4, replace=False))
    kept = buffer.compact(chosen)
    assert np.array_equal(kept[:, 0], chosen.astype(np.float32))
    assert np.array_equal(kept[:, -1], chosen.astype(np.float32))
    assert full - resident_bytes() > 0.7 * rows * dim * 4 * 0.75


def test_compaction_of_all_and_of_few_rows() -> None:
    for chosen in ([0, 1, 2], [2], [0, 2]):
        buffer = DescriptorBuffer(3, 2)
        buffer.array[:] = [[0, 1], [2, 3], [4, 5]]
        assert buffer.compact(np.array(chosen)).tolist() == [[2 * i, 2 * i + 1] for i in chosen]


def test_positions_are_the_references() -> None:
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    got = append_positions(x, position_channels((2, 3), 5.0))
    assert np.array_equal(got, reference.embed_position(x, (2, 3), 5.0).astype(np.float32))
    assert append_positions(x, None) is x


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
