from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inreach_fast.errors import ParameterError
from inreach_fast.system.memory import format_bytes, machine_memory, mapped_file, parse_bytes, release_pages


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (1, 1),
        (np.int64(7), 7),
        ("800000", 800_000),
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        (".5k", 500),
        ("3T", 3 * 10**12),
        ("10B", 10),
    ],
)
def test_amounts(text: Any, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "bad", ["", "GB", "2 XB", "-1GB", "1e3", "0", 0, -5, 2.5, True, None, "2GB of it", "iB", "9" * 400 + "TB"]
)
def test_amounts_that_are_none(bad: Any) -> None:
    with pytest.raises(ParameterError, match="limit_name: expected bytes"):
        parse_bytes(bad, "limit_name")


def test_amounts_for_a_reader() -> None:
    assert [format_bytes(n) for n in (0, 999, 1000, 1_549_999, 12e9, 3e12)] == [
        "0 B", "999 B", "1.0 kB", "1.5 MB", "12.0 GB", "3.0 TB",
    ]  # fmt: skip


def test_the_machine_has_memory() -> None:
    assert 1 << 26 < machine_memory() < 1 << 50


def resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        pytest.skip("resident memory cannot be read here")


def test_released_pages_leave_memory_and_can_be_read_again(tmp_path: Path) -> None:
    rows = np.arange(10_000_000, dtype=np.float32).reshape(-1, 100)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", offset=400, shape=(99_999, 100)).view(np.ndarray)
    part = mapped[10:-10]
    assert mapped_file(part) is not None
    total = float(part.sum(dtype=np.float64))
    before = resident_bytes()
    release_pages(part)
    assert before - resident_bytes() > 0.9 * part.nbytes
    assert float(part.sum(dtype=np.float64)) == total
    assert np.array_equal(mapped, rows[1:])


def test_what_is_no_map_is_left_alone(tmp_path: Path) -> None:
    array = np.ones((4, 4), np.float32)
    release_pages(array)
    assert (array == 1).all()
    assert mapped_file(array) is None
    array.tofile(tmp_path / "a")
    writable = np.memmap(tmp_path / "a", dtype=np.float32, mode="r+", shape=(4, 4))
    assert mapped_file(writable) is None
    read_only = np.memmap(tmp_path / "a", dtype=np.float32, mode="r", shape=(4, 4))
    assert mapped_file(read_only[:, ::2]) is None


def test_the_search_knows_rows_that_lie_in_a_file_without_a_name() -> None:
    from inreach_fast.kernels import Bank
    from inreach_fast.storage.files import map_file, write_all
    from inreach_fast.storage.workspace import Budget, Workspace

    file = Workspace(Budget(1000)).open_file("rows")
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_all(file, rows)
    mapped = map_file(file, np.float32, (4, 3))
    file.close()
    assert np.array_equal(mapped, rows)
    assert Bank(mapped).mapped
    assert not Bank(rows).mapped
