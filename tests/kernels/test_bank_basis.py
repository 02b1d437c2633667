"""`Bank(basis=)`: banks in one frame give the answers of banks in frames of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_cases import Engine, Rows, expected, same_bits

from inreach_fast.errors import ParameterError
from inreach_fast.kernels import Bank, available_backends, mutual_nearest, nearest


def structured(rng: np.random.Generator, count: int, scale: float = 1.0, shift: float = 0.0) -> Rows:
    """Rows in few directions, for which bounds pay."""
    directions = np.random.default_rng(1).normal(size=(6, 48))
    rows = rng.normal(size=(count, 6)) @ directions + 0.05 * rng.normal(size=(count, 48))
    return (scale * rows + shift).astype(np.float32)


def check(engine: Engine, queries: Bank, bank: Bank) -> None:
    for k in (1, 3):
        found = nearest(queries, bank, k=k, backend=engine.backend)
        index, sq_distance = expected("nearest", queries.gathered(), bank.gathered(), k)
        same_bits(found.index, index)
        same_bits(found.sq_distance, sq_distance)
    both = mutual_nearest(queries, bank, backend=engine.backend)
    wanted = expected("mutual_nearest", queries.gathered(), bank.gathered())
    for actual, right in zip(
        (both.ab_index, both.ab_sq_distance, both.ba_index, both.ba_sq_distance), wanted, strict=True
    ):
        same_bits(actual, right)


@pytest.mark.parametrize("given", ["bank", "basis"])
def test_queries_in_the_frame_of_the_bank(engine: Engine, given: str) -> None:
    rng = np.random.default_rng(2)
    bank = Bank(structured(rng, engine.fewer(600)))
    rows = structured(rng, engine.fewer(90))
    if given == "basis":
        nearest(rows, bank, backend=engine.backend)  # only a search makes the basis
        if bank.basis is None:
            return  # this engine has no use for one
    check(engine, Bank(rows, basis=bank if given == "bank" else bank.basis), bank)


# Another place, another magnitude, and directions that say nothing about these rows.
STRANGERS: dict[str, Rows] = {
    "far away": structured(np.random.default_rng(3), 600, shift=1e5),
    "large": structured(np.random.default_rng(4), 600, scale=1e12),
    "small": structured(np.random.default_rng(5), 600, scale=1e-12),
    "constant": np.ones((600, 48), np.float32),
    "elsewhere": np.random.default_rng(6).normal(size=(600, 48)).astype(np.float32) ** 3,
}


@pytest.mark.engines(only="native")  # the one that has a use for a basis
@pytest.mark.parametrize("stranger", STRANGERS)
def test_the_frame_of_other_rows(engine: Engine, stranger: str) -> None:
    rng = np.random.default_rng(7)
    other = Bank(STRANGERS[stranger])
    nearest(STRANGERS[stranger][:60], other, backend=engine.backend)
    check(engine, Bank(structured(rng, 80), basis=other), Bank(structured(rng, 560), basis=other))


@pytest.mark.engines(only="native")
def test_a_subset_in_the_frame_of_the_whole(engine: Engine) -> None:
    rng = np.random.default_rng(8)
    rows = structured(rng, 700)
    whole = Bank(rows)
    check(engine, Bank(structured(rng, 60), basis=whole), Bank(rows, index=rng.permutation(700)[:530], basis=whole))


@pytest.mark.skipif("native" not in available_backends(), reason="no compiled engine: banks have no basis")
@pytest.mark.parametrize("first", ["bank", "other"])
def test_banks_share_one_basis_whichever_needs_it_first(first: str) -> None:
    rng = np.random.default_rng(9)
    bank = Bank(structured(rng, 600))
    other = Bank(structured(rng, 640), basis=bank)
    assert bank.basis is other.basis is None
    nearest(structured(rng, 60), bank if first == "bank" else other, backend="native")
    assert bank.basis is not None
    assert bank.basis is other.basis


@pytest.mark.parametrize("basis", [Bank(np.ones((5, 47), np.float32)), np.eye(48), 1, "bank"], ids=repr)
def test_what_is_not_a_basis_of_these_rows(basis: Any) -> None:
    with pytest.raises(ParameterError, match="basis"):
        Bank(np.ones((5, 48), np.float32), basis=basis)
