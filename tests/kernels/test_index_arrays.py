"""A bank's search index as plain arrays: the same bytes, the same answers, mapped or not, and never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from kernel_cases import Rows, fuzz, same_bits

from inreach_fast import kernels
from inreach_fast.errors import NonFiniteError, ParameterError

_core = pytest.importorskip("inreach_fast._core")

from inreach_fast.kernels.basis import Basis  # noqa: E402
from inreach_fast.kernels.cpu import native  # noqa: E402

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


def structured(count: int, dim: int = 96, seed: int = 0, outliers: int = 0) -> Rows:
    """Rows that an index pays for, some of them too far out to be bounded (where the sample misses them)."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim)) * 0.8 ** np.arange(dim)
    rows[3 : 3 + outliers] *= 1e25
    return rows.astype(np.float32)


def search_alone(bank: kernels.Bank, queries: Rows) -> kernels.Nearest:
    return kernels.nearest(queries, bank, backend="native")


@pytest.fixture(scope="module")
def case() -> tuple[Rows, Rows, Arrays]:
    rows, queries = structured(1500, outliers=3), structured(40, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_BANK_BASES", ((None, 256, 200),))
        arrays = kernels.Bank(rows).index_arrays()
    assert len(arrays["unbounded"]) == 3
    return rows, queries, arrays


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = structured(1500, outliers=3)
    arrays = kernels.Bank(rows).index_arrays()
    bank = kernels.Bank(rows)
    search_alone(bank, rows[:5])  # builds the index by itself
    for again in (bank.index_arrays(), kernels.Bank(rows).index_arrays(folder=tmp_path)):
        assert list(again) == list(arrays)
        for name, array in arrays.items():
            same_bits(again[name], array)


def test_a_cluster_at_the_median_is_not_cut_lengthwise() -> None:
    rng = np.random.default_rng(0)
    rows = (0.01 * rng.standard_normal((512, 40))).astype(np.float32)
    long = slice(128, 384)  # holds the median of the widest direction, and is long in another one
    rows[:128, 0] -= 10
    rows[384:, 0] += 10
    rows[long, 1] += np.linspace(-4, 4, 256, dtype=np.float32)
    leaves = kernels.Bank(rows).index_arrays()["leaf_rows"].reshape(-1, 64)
    extents = [np.ptp(rows[leaf, 1]) for leaf in leaves if long.start <= leaf[0] < long.stop]
    assert len(extents) == 4
    assert max(extents) < 2.2  # a quarter each; cut lengthwise, half


@pytest.mark.parametrize(("count", "rank"), [(8192, 128), (8193, 192), (16384, 192), (16385, 256)])
def test_larger_banks_have_more_directions(count: int, rank: int) -> None:
    assert native.basis_of(kernels.Bank(np.zeros((count, 260), np.float32))).rank == rank


@pytest.mark.parametrize("count", [512, 1000, 4096 + 1])
def test_answers_from_arrays_are_the_bank_s_own(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_BANK_BASES", ((None, 256, 200),))
    rows, queries = structured(count, outliers=1), structured(70, seed=1)
    groups = np.arange(count) // 100
    bank = kernels.Bank(rows, groups)
    written = bank.index_arrays(folder=tmp_path)
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    mapped = kernels.Bank(np.load(path, mmap_mode="r"), groups, index_arrays=written)
    for k, query_group in ((1, None), (3, None), (2, np.arange(70) // 20)):
        expected = kernels.nearest(queries, bank, k=k, query_group=query_group)
        found = kernels.nearest(queries, mapped, k=k, query_group=query_group)
        same_bits(found.index, expected.index)
        same_bits(found.sq_distance, expected.sq_distance)
        assert found.counts == expected.counts
    for name, array in mapped.index_arrays().items():
        same_bits(array, written[name])


def test_arrays_are_of_the_model_file_s_dtypes_and_read_only(case: tuple[Rows, Rows, Arrays]) -> None:
    for name, array in case[2].items():
        assert array.dtype.name in ("float32", "float64", "int64", "int32", "uint8"), name
        assert not array.flags.writeable, name
        assert array.flags.c_contiguous, name


def test_arrays_live_as_long_as_a_bank_that_uses_them() -> None:
    rows, queries = structured(800), structured(10, seed=1)
    expected = search_alone(kernels.Bank(rows), queries)
    copies = {name: array.copy() for name, array in kernels.Bank(rows).index_arrays().items()}
    bank = kernels.Bank(rows, index_arrays=copies)
    copies.clear()
    same_bits(search_alone(bank, queries).index, expected.index)


def test_a_subset_has_an_index_of_its_own() -> None:
    rows, queries = structured(2000), structured(20, seed=1)
    chosen = np.random.default_rng(3).permutation(2000)[:900]
    bank = kernels.Bank(rows, index=chosen)
    again = kernels.Bank(rows, index=chosen, index_arrays=bank.index_arrays())
    same_bits(search_alone(again, queries).index, search_alone(bank, queries).index)


def test_no_arrays_where_no_index_would_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).standard_normal((700, 512)).astype(np.float32)
    assert kernels.Bank(structured(100)).index_arrays() == {}
    assert kernels.Bank(noise).index_arrays() == {}
    rows = structured(20)
    same_bits(search_alone(kernels.Bank(rows, index_arrays={}), rows).index, np.arange(20))
    monkeypatch.setattr("inreach_fast.kernels.registry._usable", lambda name: name != "native")
    assert kernels.Bank(structured(800)).index_arrays() == {}


def test_rows_are_not_read_where_arrays_are_given(case: tuple[Rows, Rows, Arrays]) -> None:
    rows, _queries, arrays = case
    broken = rows.copy()
    broken[7, 0] = np.nan
    kernels.Bank(broken, index_arrays=arrays)
    with pytest.raises(NonFiniteError):
        kernels.Bank(broken)


def test_a_limit_needs_a_folder() -> None:
    with pytest.raises(ParameterError, match="folder"):
        kernels.Bank(structured(600)).index_arrays(memory_limit=1 << 20)


def test_arrays_of_another_number_of_rows_are_refused(case: tuple[Rows, Rows, Arrays]) -> None:
    rows, _queries, arrays = case
    for other in (rows[:-1], np.concatenate([rows, rows[:1]]), rows[:, :-1], rows[:64]):
        with pytest.raises(ParameterError, match="index_arrays"):
            kernels.Bank(np.ascontiguousarray(other), index_arrays=arrays)


@fuzz(data=st.data())
def test_garbled_arrays_are_refused_or_searched_without_harm(case: tuple[Rows, Rows, Arrays], data: Any) -> None:
    rows, queries, arrays = case
    garbled = {name: array.copy() for name, array in arrays.items()}
    name = data.draw(st.sampled_from(sorted(garbled)))
    kind = data.draw(st.sampled_from(["missing", "short", "long", "dtype", "shape", "strided", "empty", "values"]))
    array = garbled[name]
    if kind == "missing":
        del garbled[name]
    elif kind == "short":
        garbled[name] = array[: len(array) - data.draw(st.integers(1, len(array)))].copy()
    elif kind == "long":
        garbled[name] = np.append(array, array[:1])
    elif kind == "dtype":
        garbled[name] = array.astype(np.complex64)
    elif kind == "shape":
        garbled[name] = array[None]
    elif kind == "strided":
        garbled[name] = np.repeat(array, 2)[::2]
    elif kind == "empty":
        garbled[name] = array[:0].copy()
    else:
        raw = garbled[name].view(np.uint8)
        for _ in range(data.draw(st.integers(1, 20))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if kind == "strided" and name.startswith("basis"):
        kernels.Bank(rows, index_arrays=garbled)  # these few are copied in any case
        return
    if kind != "values":
        with pytest.raises(ParameterError, match="index_arrays"):
            kernels.Bank(rows, index_arrays=garbled)
        return
    try:
        bank = kernels.Bank(rows, index_arrays=garbled)
    except ParameterError:
        return
    found = search_alone(bank, queries)
    assert ((found.index >= -1) & (found.index < len(rows))).all()


def test_row_numbers_must_be_a_permutation(case: tuple[Rows, Rows, Arrays]) -> None:
    rows, _queries, arrays = case
    for name in ("leaf_rows", "unbounded"):
        for value in (-2, len(rows), np.iinfo(np.int32).max, arrays[name][1]):
            garbled = {key: array.copy() for key, array in arrays.items()}
            garbled[name][0] = value
            with pytest.raises(ParameterError, match=r"row number|in no leaf"):
                kernels.Bank(rows, index_arrays=garbled)


def test_the_engine_itself_refuses_an_index_of_another_bank() -> None:
    bank, other = kernels.Bank(structured(600)), kernels.Bank(structured(700))
    basis = native.basis_of(bank)
    index = native._indexed(bank, basis).leaf_index(bank)
    projected = _core.ProjectedRows(basis.native, structured(5), None)
    with pytest.raises(ValueError, match="another bank"):
        _core.nearest_pruned(
            structured(5), None, None, projected, other.rows, None, None, False, basis.native, index, 1, None
        )


@pytest.mark.parametrize("limit", [100_000, 1 << 30])
def test_an_index_may_be_filled_twice(limit: int, tmp_path: Path) -> None:
    rows = structured(1500, outliers=3)
    basis = Basis(rows, 40)
    builder = _core.LeafBuilder(basis.native, rows, None, False, limit, None)

    def filled(folder: Path) -> Arrays:
        folder.mkdir()
        arrays = {  # in files: the builder gives their pages back
            name: np.memmap(folder / name, dtype, "w+", shape=(count,)).view(np.ndarray)
            for name, dtype, count in builder.shapes()
        }
        builder.fill(arrays)
        return arrays

    first, second = filled(tmp_path / "first"), filled(tmp_path / "second")
    for name, array in first.items():
        same_bits(second[name], array)


@pytest.mark.parametrize("limit", [1, 100_000, 1 << 20, None])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_build_in_files_gives_the_same_bytes(limit: int | None, mapped: bool, tmp_path: Path) -> None:
    rows = structured(5000, dim=150, outliers=2)
    expected = kernels.Bank(rows).index_arrays()
    if mapped:
        np.save(tmp_path / "rows", rows)
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    folder = tmp_path / "index"
    folder.mkdir()
    bank = kernels.Bank(rows)
    assert bank.mapped is mapped
    for name, array in bank.index_arrays(folder=folder, memory_limit=limit).items():
        same_bits(np.asarray(array), expected[name])
    assert not (folder / "heads.tmp").exists()
    queries = structured(30, dim=150, seed=1)
    same_bits(search_alone(bank, queries).index, search_alone(kernels.Bank(np.array(rows)), queries).index)


def test_a_failed_build_in_files_leaves_the_bank_as_it_was(tmp_path: Path) -> None:
    rows = structured(700)
    bank = kernels.Bank(rows)
    with pytest.raises(OSError, match="absent"):
        bank.index_arrays(folder=tmp_path / "absent")
    same_bits(search_alone(bank, rows).index, np.arange(700))


_RESIDENT = """
import resource, sys
import numpy as np
from inreach_fast import kernels
rows = np.load(sys.argv[1], mmap_mode="r")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kernels.Bank(rows).index_arrays(folder=sys.argv[2], memory_limit=24 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_a_build_under_a_limit_does_not_hold_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (48_000, 1024))
    for first in range(0, len(rows), 4000):
        rows[first : first + 4000] = rng.standard_normal((4000, 1024)) * 0.97 ** np.arange(1024)
    del rows
    (tmp_path / "index").mkdir()
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _RESIDENT, str(tmp_path / "rows.npy"), str(tmp_path / "index")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout) * 1024
    assert grown < 120 << 20, f"{grown >> 20} MiB for rows of 188 MiB"
