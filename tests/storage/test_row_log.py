from __future__ import annotations

import numpy as np
import pytest

from inreach_fast.storage.row_log import RowBuffer


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        pytest.skip("resident memory cannot be read here")


def test_compaction_keeps_the_rows_in_place_and_gives_the_rest_back() -> None:
    rows, dim = 100_000, 128  # 51 MB
    buffer = RowBuffer(rows, (dim,))
    buffer.array[:] = np.arange(rows, dtype=np.float32)[:, None]
    full = resident_bytes()
    chosen = np.sort(np.random.default_rng(0).choice(rows, rows // 4, replace=False))
    kept = buffer.compact(chosen)
    assert np.array_equal(kept[:, 0], chosen.astype(np.float32))
    assert np.array_equal(kept[:, -1], chosen.astype(np.float32))
    assert full - resident_bytes() > 0.7 * rows * dim * 4 * 0.75


def test_compaction_of_all_and_of_few_rows() -> None:
    for chosen in ([0, 1, 2], [2], [0, 2]):
        buffer = RowBuffer(3, (2,))
        buffer.array[:] = [[0, 1], [2, 3], [4, 5]]
        assert buffer.compact(np.array(chosen)).tolist() == [[2 * i, 2 * i + 1] for i in chosen]
