"""The two inequalities that the numba and torch backends rest on (`kernels/float32_filter.py`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, Rows, check_nearest, fuzz, gaussian

from inreach_fast import kernels
from inreach_fast.kernels.cpu.float32_filter import STRETCH, make_frame


@fuzz(family=st.sampled_from(FAMILIES), dim=st.sampled_from([1, 5, 64, 300]), seed=st.integers(0, 2**32 - 1))
def test_both_bounds_hold(family: Callable[[np.random.Generator, int, int], Rows], dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = family(rng, 20, dim), family(rng, 50, dim)
    frame = make_frame(kernels.Bank(x), kernels.Bank(y))
    a, b = (((rows - frame.centre) * frame.scale).astype(np.float32) for rows in (x, y))
    assert max(np.abs(a).max(), np.abs(b).max()) <= 1.0
    a_length, b_length = ((rows.astype(np.float64) ** 2).sum(axis=1) for rows in (a, b))
    a_low, b_low = ((length * (1 - frame.error)).astype(np.float32) for length in (a_length, b_length))
    low = (a_low[:, None] + b_low[None, :] - np.float32(2) * (a @ b.T)).astype(np.float64)
    decided = reference.pairwise_sq_distance(x, y) * frame.scale * frame.scale
    upper = low + 2 * frame.error * (a_length[:, None] + b_length[None, :])
    assert (low <= STRETCH * decided + frame.floor).all()  # P1
    assert (decided <= STRETCH * upper + frame.floor).all()  # P2


def test_the_scale_is_a_power_of_two() -> None:
    for magnitude in (1e-45, 1e-30, 1.0, 3.0, 1e30, 3e38):
        frame = make_frame(kernels.Bank(np.float32([[magnitude]])), kernels.Bank([[0.0]]))
        assert np.frexp(frame.scale)[0] == 0.5
        assert 0.5 <= magnitude * frame.scale < 1.0 or magnitude < 1e-44


def test_most_pairs_are_never_decided() -> None:
    # Without this the filter could let everything through and all other tests would still pass.
    rng = np.random.default_rng(1)
    for backend in kernels.available_backends():
        counts = kernels.nearest(gaussian(rng, 200, 256), gaussian(rng, 2000, 256), backend=backend).counts
        assert counts is not None
        assert counts.pairs == 400_000
        assert counts.decided < 0.05 * counts.pairs


@pytest.mark.skipif("torch" not in kernels.available_backends(), reason="torch is not installed")
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_torch_with_reduced_precision_products(precision: str) -> None:
    import torch

    engine = Engine("torch")
    rng = np.random.default_rng(2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        check_nearest(engine, gaussian(rng, 65, 512), gaussian(rng, 300, 512), k=2)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif("torch" not in kernels.available_backends(), reason="torch is not installed")
def test_torch_under_autocast() -> None:
    import torch

    engine = Engine("torch")
    rng = np.random.default_rng(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_nearest(engine, gaussian(rng, 65, 128), gaussian(rng, 300, 128), k=2)
