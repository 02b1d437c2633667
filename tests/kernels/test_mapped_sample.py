from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inreach_fast.kernels.basis import sample_rows
from inreach_fast.system.memory import release_pages


def resident_file_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        pytest.skip("resident memory cannot be read here")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


def test_a_sample_of_a_mapped_file_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    rows = np.arange(20_000 * 500, dtype=np.float32).reshape(-1, 500)  # 40 MB
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", shape=rows.shape).view(np.ndarray)
    release_pages(mapped)
    before = resident_file_bytes()
    assert np.array_equal(sample_rows(mapped, None, 1000), sample_rows(rows, None, 1000))
    assert resident_file_bytes() - before < 0.3 * rows.nbytes
    index = np.arange(3, 20_000, 7)
    assert np.array_equal(sample_rows(mapped, index, 100), rows[index][np.linspace(0, len(index) - 1, 100).astype(int)])
