"""What a bank keeps: its own basis, an index for each basis that it was searched in, and nothing of other banks'."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest
from kernel_cases import Rows, same_bits

from inreach_fast import kernels

pytest.importorskip("inreach_fast._core", reason="the compiled engine's indexes")

from inreach_fast.kernels.cpu import native

BACKEND = "native"


def structured(n: int, seed: int, dim: int = 96) -> Rows:
    """Rows that vary in a few directions, so that bounds pay."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, dim + 1) ** 1.5
    return np.asarray(rng.normal(size=(n, dim)) * weights, np.float32)


def indexed(bank: kernels.Bank) -> int:
    """Number of bases that the bank has an index or coordinates in."""
    return len(bank.prepared("native", native._AllIndexed).by_basis)


def counts(bank: kernels.Bank) -> kernels.SearchCounts:
    return kernels.nearest(structured(300, 9), bank, backend=BACKEND).counts


def test_a_search_of_two_banks_leaves_neither_the_others_basis() -> None:
    a, b, fresh = (kernels.Bank(structured(n, n)) for n in (3000, 1500, 1500))
    kernels.mutual_nearest(a, b, backend=BACKEND)
    assert a.basis is not None
    assert b.basis is None
    assert counts(b) == counts(fresh)
    assert b.basis is not a.basis
    kernels.nearest_answered(b, a, backend=BACKEND)
    assert counts(b) == counts(fresh)


def test_searches_before_do_not_change_how_two_banks_are_searched() -> None:
    a, b = (kernels.Bank(structured(n, n)) for n in (3000, 1500))
    first = kernels.mutual_nearest(a, b, backend=BACKEND)
    counts(b)
    again = kernels.mutual_nearest(a, b, backend=BACKEND)
    assert again.counts == first.counts
    same_bits(again.ab_index, first.ab_index)


def test_a_shared_basis_is_that_of_the_bank_it_was_made_for() -> None:
    expected = kernels.Bank(structured(3000, 1))
    wanted = native.basis_of(expected).arrays()
    seeds = kernels.Bank(structured(3000, 1))
    image = kernels.Bank(structured(1200, 2), basis=seeds)
    counts(image)  # the one that shares is searched first
    assert seeds.basis is image.basis
    assert image.basis is not None
    for name, array in image.basis.arrays().items():
        same_bits(array, wanted[name])
    given = kernels.Bank(structured(1200, 2), basis=seeds.basis)
    assert given.basis is seeds.basis
    assert counts(given) == counts(image)


def test_indexes_in_other_banks_bases_do_not_pile_up() -> None:
    small = kernels.Bank(structured(700, 1))
    large = [kernels.Bank(structured(900, seed)) for seed in range(2, 7)]
    counts(small)
    for bank in large:
        kernels.mutual_nearest(bank, small, backend=BACKEND)
    assert indexed(small) == 2
    basis = weakref.ref(large[-1].basis)
    del large, bank
    gc.collect()
    assert basis() is None
    assert indexed(small) == 1


def test_what_was_prepared_is_kept_and_forgotten_by_owner() -> None:
    bank = kernels.Bank(structured(10, 1))
    assert bank.prepared("a", lambda: [1]) is bank.prepared("a", lambda: [2])
    assert bank.prepared("a", lambda: [3], "other") == [3]
    kept = bank.prepared("b", lambda: [4])
    assert bank.with_groups(np.arange(10)).prepared("b", lambda: [5]) is kept
    bank.forget("a")
    assert bank.prepared("a", lambda: [6]) == [6]
    assert bank.prepared("b", lambda: [7]) is kept


def test_a_bank_travels_with_its_rows_and_nothing_else() -> None:
    bank = kernels.Bank(structured(800, 1), np.arange(800) % 3, index=np.arange(799, -1, -1))
    before = counts(bank)
    copy = pickle.loads(pickle.dumps(bank))
    assert copy.basis is None
    assert counts(copy) == before
    assert copy.groups is not None
    assert copy.gpu is None
