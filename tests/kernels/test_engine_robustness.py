"""Inputs that callers can produce and an engine must survive: far from the basis, out of range, NaN in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from kernel_cases import Engine, Rows, expected, same_bits

from inreach_fast import kernels
from inreach_fast.errors import ParameterError


def structured(seed: int, count: int, dim: int = 24) -> Rows:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, dim)) * 0.7 ** np.arange(dim)).astype(np.float32)


# Float32 numbers around 1e15 are 2^26 apart: rows that were different become equal, and ties go to the lowest.
@pytest.mark.parametrize("shift", [1e13, 1e15, 1e30])
def test_banks_that_lie_far_from_the_basis_they_share(engine: Engine, shift: float) -> None:
    near = structured(0, engine.fewer(600))
    far = (structured(1, engine.fewer(700)).astype(np.float64) + shift).astype(np.float32)
    far[::3] *= np.float32(1.5)
    for a, b in ((near, far), (far, near)):
        found = kernels.mutual_nearest(kernels.Bank(a), kernels.Bank(b), backend=engine.backend)
        actual = (found.ab_index, found.ab_sq_distance, found.ba_index, found.ba_sq_distance)
        for array, right in zip(actual, expected("mutual_nearest", a, b), strict=True):
            same_bits(array, right)


@pytest.mark.parametrize("k", [1, 3])
def test_a_bank_without_leaves(engine: Engine, k: int) -> None:
    near, queries = structured(0, engine.fewer(600)), structured(2, engine.fewer(60))
    far = structured(1, engine.fewer(700)) * np.float32(1e16)
    other = kernels.Bank(near)
    kernels.nearest(queries, other, backend=engine.backend)  # fits the basis
    queries[::2] *= np.float32(1e16)
    bank = kernels.Bank(far, basis=other)
    index, sq_distance = reference.nearest(queries, far, k)
    found = kernels.nearest(queries, bank, k=k, backend=engine.backend)
    same_bits(found.index, index)
    same_bits(found.sq_distance, sq_distance)
    if k == 1:
        bounds = kernels.nearest_bounds(queries, bank, backend=engine.backend)
        assert (bounds.sq_lower <= sq_distance).all()
        assert (sq_distance <= bounds.sq_upper).all()
        answered = kernels.nearest_answered(queries, bank, backend=engine.backend)
        same_bits(answered.index, index)
        back = reference.nearest(far, queries)[0]
        same_bits(answered.answered, back[index] == np.arange(len(queries)))


# From here on the compiled engine alone.

_core = pytest.importorskip("inreach_fast._core")

from inreach_fast.kernels.basis import Basis  # noqa: E402


@pytest.fixture(params=_core.isa_levels())
def isa(request: pytest.FixtureRequest) -> Any:
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


class Prepared:
    """Everything that a search by bounds takes."""

    def __init__(self) -> None:
        self.rows, self.queries = structured(0, 1000), structured(1, 40)
        self.basis = Basis(self.rows, 24).native
        self.index = _core.LeafIndex(self.basis, self.rows, None, None)
        self.projected = _core.ProjectedRows(self.basis, self.queries, None)

    def search(self, **changed: Any) -> Any:
        arguments = {
            "queries": self.queries,
            "query_index": None,
            "query_group": None,
            "projected": self.projected,
            "rows": self.rows,
            "row_index": None,
            "row_group": None,
            "mapped": False,
            "basis": self.basis,
            "index": self.index,
            "k": 1,
            "hint": None,
        }
        return _core.nearest_pruned(*(arguments | changed).values())


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return Prepared()


def ids(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize("index", [ids(0, 1000), ids(-1), ids(2**62), ids(-(2**63))])
def test_row_numbers_out_of_range_are_refused(prepared: Prepared, index: Any) -> None:
    rows, queries, basis = prepared.rows, prepared.queries, prepared.basis
    for call in (
        lambda: _core.nearest_brute(queries, None, None, rows, index, None, False, 1),
        lambda: _core.nearest_brute(rows, index, None, rows, None, None, False, 1),
        lambda: _core.mutual_nearest_brute(rows, index, queries, None),
        lambda: _core.mutual_nearest_brute(queries, None, rows, index),
        lambda: _core.participation(rows, index, 10),
        lambda: _core.first_nonfinite_row(rows, index),
        lambda: _core.ProjectedRows(basis, rows, index),
        lambda: _core.LeafIndex(basis, rows, index, None),
        lambda: _core.LeafBuilder(basis, rows, index, False, 0, None),
        lambda: prepared.search(row_index=index),
        lambda: prepared.search(query_index=index),
    ):
        with pytest.raises(ValueError, match="no such row"):
            call()
    with pytest.raises(ValueError, match="no such row"):
        prepared.projected.take(index)


def test_what_does_not_belong_together_is_refused(prepared: Prepared) -> None:
    rows, queries = prepared.rows, prepared.queries
    other = Basis(rows[:500], 24).native
    narrow = np.ascontiguousarray(queries[:, :20])
    for changed in (
        {"basis": other},
        {"projected": _core.ProjectedRows(other, queries, None)},
        {"projected": _core.ProjectedRows(prepared.basis, rows, None)},
        {"index": _core.LeafIndex(other, rows, None, None)},
        {"index": _core.LeafIndex(prepared.basis, rows[:-1], None, None)},
        {"queries": narrow},
        {"rows": narrow},
        {"k": 0},
        {"query_group": ids(1)},
        {"hint": ids(1)},
        {"hint": np.full(40, 1000)},
        {"hint": np.full(40, -2)},
    ):
        with pytest.raises(ValueError, match=r".+"):
            prepared.search(**changed)
    for call in (
        lambda: _core.LeafIndex(prepared.basis, narrow, None, None),
        lambda: _core.LeafBuilder(prepared.basis, narrow, None, False, 0, None),
        lambda: _core.ProjectedRows(prepared.basis, narrow, None),
        lambda: _core.LeafIndex(prepared.basis, rows, None, prepared.projected),
        lambda: _core.nearest_brute(queries, None, None, narrow, None, None, False, 1),
        lambda: _core.Basis(np.zeros(24), 3.0, np.eye(4, 24, dtype=np.float32), 0.0),
        lambda: _core.Basis(np.full(24, np.nan), 1.0, np.eye(4, 24, dtype=np.float32), 0.0),
        lambda: _core.Basis(np.zeros(24), 1.0, np.eye(0, 24, dtype=np.float32), 0.0),
        lambda: _core.Basis(np.zeros(24), 1.0, np.full((4, 24), np.inf, np.float32), 0.0),
        lambda: _core.Basis(np.zeros(24), 1.0, np.eye(4, 24, dtype=np.float32), np.nan),
    ):
        with pytest.raises(ValueError, match=r".+"):
            call()


def test_empty_sets_have_empty_answers(prepared: Prepared) -> None:
    none = np.empty((0, 24), np.float32)
    index, sq_distance, _counts = _core.nearest_brute(prepared.queries, None, None, none, None, None, False, 2)
    assert (index == -1).all()
    assert np.isinf(sq_distance).all()
    assert _core.nearest_brute(none, None, None, prepared.rows, None, None, False, 1)[0].shape == (0, 1)
    assert (_core.mutual_nearest_brute(none, None, prepared.rows, None)[2] == -1).all()
    empty = _core.LeafIndex(prepared.basis, none, None, None)
    assert empty.leaves == 0
    index, sq_distance, _counts = prepared.search(rows=none, index=empty, k=3)
    assert (index == -1).all()
    assert np.isinf(sq_distance).all()
    assert _core.participation(none, None, 10) == 0.0
    assert _core.first_nonfinite_row(none, None) == -1


def test_arrays_that_a_builder_would_copy_are_refused(prepared: Prepared) -> None:
    for rows in (prepared.rows.astype(np.float16), np.asfortranarray(prepared.rows), prepared.rows[:, ::2]):
        with pytest.raises(TypeError):
            _core.LeafBuilder(prepared.basis, rows, None, False, 0, None)


@pytest.fixture(scope="module")
def kept() -> tuple[Rows, Rows, dict[str, Any]]:
    """Rows with middle and last codes, and their index."""
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((2000, 300)) * 0.99 ** np.arange(300)).astype(np.float32)
    basis = Basis(rows, 200)
    arrays = dict(basis.arrays()) | _core.LeafIndex(basis.native, rows, None, None).arrays()
    return rows, rows[::50] + np.float32(0.01), {name: np.array(array) for name, array in arrays.items()}


@pytest.mark.parametrize("places", [slice(None), slice(0, None, 7), slice(100, 130)])
def test_nan_in_an_index_drops_no_row(isa: str, places: slice, kept: tuple[Rows, Rows, dict[str, Any]]) -> None:
    rows, queries, arrays = kept
    index, sq_distance = reference.nearest(queries, rows, 3)
    floats = [name for name, array in arrays.items() if array.dtype == np.float32]
    assert len(floats) == 15
    for name in floats:
        broken = arrays | {name: arrays[name].copy()}
        broken[name][places] = np.nan
        try:
            bank = kernels.Bank(rows, index_arrays=broken)
        except ParameterError:
            continue
        found = kernels.nearest(queries, bank, k=3, backend="native")
        same_bits(found.index, index)
        same_bits(found.sq_distance, sq_distance)


def test_an_index_that_is_filled_twice_is_the_same(tmp_path: Path) -> None:
    rows = structured(3, 5000)
    rows[7] *= np.float32(1e25)
    builder = _core.LeafBuilder(Basis(rows[10:], 24).native, rows, None, False, 1 << 20, None)
    both = []
    for part in ("first", "second"):
        arrays = {
            name: np.lib.format.open_memmap(tmp_path / f"{part}-{name}.npy", "w+", dtype, (max(1, count),))
            for name, dtype, count in builder.shapes()
        }
        given = {name: arrays[name].view(np.ndarray)[:count] for name, _dtype, count in builder.shapes()}
        builder.fill(given)
        both.append({name: np.array(array) for name, array in given.items()})
        builder.fill(given)
        both.append({name: np.array(array) for name, array in given.items()})
    for other in both[1:]:
        for name, array in both[0].items():
            same_bits(other[name], array)
