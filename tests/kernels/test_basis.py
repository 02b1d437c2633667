"""The basis is as orthonormal as float32 can hold it and as good as the principal directions, whatever the sample."""

from __future__ import annotations

import numpy as np
import pytest

from inreach_fast.kernels.basis import Basis
from inreach_fast.kernels.results import FloatArray


def sample(kind: str) -> FloatArray:
    random = np.random.default_rng(0)
    rows = random.standard_normal((600, 200))
    changed = {
        "plain": rows,
        "graded": rows * np.logspace(0, -8, 200),
        "of low rank": rows[:, :5] @ rows[:5],
        "nearly of low rank": rows[:, :5] @ rows[:5] + 1e-6 * rows,
        "three rows many times": np.repeat(rows[:3], 100, axis=0),
        "fewer rows than directions": rows[:20],
        "far from the origin": rows + 1e6,
        "huge": rows * 1e30,
        "tiny": rows * 1e-36,
    }
    return changed[kind].astype(np.float32)


KINDS = (
    "plain",
    "graded",
    "of low rank",
    "nearly of low rank",
    "three rows many times",
    "fewer rows than directions",
    "far from the origin",
    "huge",
    "tiny",
)


def directions_of(basis: Basis) -> FloatArray:
    arrays = basis.arrays()
    return arrays["basis_directions"].reshape(basis.rank, basis.dim).astype(np.float64)


@pytest.mark.parametrize("rank", [1, 40, 99, 150, 200])  # below half of the values by iteration, above by all vectors
@pytest.mark.parametrize("kind", KINDS)
def test_directions_are_orthonormal(kind: str, rank: int) -> None:
    directions = directions_of(Basis(sample(kind), rank))
    assert directions.shape == (rank, 200)
    assert np.abs(directions @ directions.T - np.eye(rank)).max() < 2e-7


@pytest.mark.parametrize("rows", [300, 600])
@pytest.mark.parametrize("kind", KINDS)
def test_directions_hold_as_much_variance_as_the_best(kind: str, rows: int) -> None:
    # By way of the rows' Gram matrix and without it: which of both is less work depends on their number.
    x = sample(kind)[:rows]
    basis = Basis(x, 40)
    centred = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)) / np.abs(x).max()
    held = float(np.square(centred @ directions_of(basis).T).sum())
    best = float(np.square(np.linalg.svd(centred, compute_uv=False)[:40]).sum())
    isotropic = kind in ("plain", "far from the origin", "huge", "tiny")  # no direction is better than another
    assert held >= (0.9 if isotropic else 0.995) * best
