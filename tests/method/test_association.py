from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inreach_fast.kernels import available_backends
from inreach_fast.method.association import NO_CHANNEL, Associator


def joined(x: NDArray[np.float32], seeds: list[int], pairs: str, backend: str = "auto") -> NDArray[np.int64]:
    associator = Associator(np.array(seeds), x[seeds], pairs=pairs, backend=backend)
    return np.stack([associator.associate(i, image) for i, image in enumerate(x)])


def expected(x: NDArray[np.float32], seeds: list[int], pairs: str) -> NDArray[np.int64]:
    members = reference.associate(x, np.array(seeds), pairs)
    out = np.full(x.shape[:2], NO_CHANNEL, np.int64)
    for image, patch, seed_image, seed_patch in zip(*members, strict=True):
        if (image, patch) != (seed_image, seed_patch):
            out[image, patch] = seeds.index(seed_image) * x.shape[1] + seed_patch
    return out


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("pairs", ["all", "later"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_equals_the_reference_with_ties(backend: str, pairs: str, data: st.DataObject) -> None:
    images, patches, dim = (data.draw(st.integers(*r)) for r in ((2, 5), (1, 7), (1, 5)))
    # Few distinct values: many distances are equal, within a seed image and between seed images.
    values = data.draw(st.integers(2, 6))
    x = np.random.default_rng(data.draw(st.integers(0, 10**6))).integers(0, values, (images, patches, dim))
    seeds = sorted(data.draw(st.sets(st.integers(0, images - 1), min_size=1)))
    x = x.astype(np.float32)
    assert np.array_equal(joined(x, seeds, pairs, backend), expected(x, seeds, pairs))


def test_float64_decides_between_seeds_that_are_equal_in_float32() -> None:
    # Squared distances 1 + 2**-40 (seed 0) and 1 (seed 1): the same float32, and the nearer seed is the later.
    x = np.zeros((3, 1, 2), np.float32)
    x[0, 0] = (1, 2.0**-20)
    x[1, 0] = (1, 0)
    assert joined(x, [0, 1], "all")[2, 0] == 1
    assert joined(x[[1, 0, 2]], [0, 1], "all")[2, 0] == 0


def test_order_of_the_images_does_not_matter() -> None:
    x = np.random.default_rng(1).standard_normal((6, 9, 4)).astype(np.float32)
    associator = Associator(np.array([1, 4]), x[[1, 4]])
    forwards = [associator.associate(i, x[i]) for i in range(6)]
    backwards = [associator.associate(i, x[i]) for i in reversed(range(6))]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))


def test_seeds_within_all_images_are_taken_without_a_copy() -> None:
    x = np.random.default_rng(2).standard_normal((6, 9, 4)).astype(np.float32)
    apart, within = Associator(np.array([1, 4]), x[[1, 4]]), Associator(np.array([1, 4]), x)
    assert np.shares_memory(within._bank.rows, x)
    for i in range(6):
        assert np.array_equal(apart.associate(i, x[i]), within.associate(i, x[i]))


def test_a_seed_image_alone_meets_nobody() -> None:
    x = np.ones((1, 3, 2), np.float32)
    assert (joined(x, [0], "all") == NO_CHANNEL).all()
