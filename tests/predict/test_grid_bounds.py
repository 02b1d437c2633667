"""Bounds from a search of every ninth patch: on the right side on any data, tight where neighbours are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import FAMILIES
from numpy.typing import NDArray

from inreach_fast.kernels import Bank, available_backends
from inreach_fast.method.nominal_model import NominalModel
from inreach_fast.predict import grid_bounds as module
from inreach_fast.predict.grid_bounds import grid_bounds

Rows = NDArray[np.float32]
Family = Callable[[np.random.Generator, int, int], Rows]

fuzz = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def model_of(images: Rows) -> NominalModel:
    """Every patch of (N, P, D) is nominal."""
    n, patches, dim = images.shape
    numbers = np.arange(n * patches)
    seed = np.zeros(n * patches, np.int64)
    return NominalModel(images.reshape(-1, dim), numbers // patches, numbers % patches, seed, seed)


def check(
    rows: Rows, grid: tuple[int, int], bank: Rows, floor: Rows | None = None, **options: Any
) -> module.GridBounds:
    found = grid_bounds(rows, grid, Bank(bank, floor=floor), **options)
    index, sq_distance = reference.nearest(rows, bank, 1, None, None, floor)
    assert (found.sq_lower <= sq_distance).all()
    assert (sq_distance <= found.sq_upper).all()
    at_index = reference.to_float32(reference.sq_distance(rows, bank[found.index]))
    if floor is not None:
        at_index = np.maximum(at_index, floor[found.index])  # without any row all floors are infinite
    assert (at_index <= found.sq_upper).all()
    assert np.array_equal(found.index[found.searched], index[found.searched])
    assert np.array_equal(found.sq_upper[found.searched], sq_distance[found.searched])
    assert np.array_equal(found.sq_lower[found.searched], sq_distance[found.searched])
    return found


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    grid=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    n=st.sampled_from([1, 2, 30]),
    dim=st.sampled_from([1, 3, 17, 100]),
    alike=st.booleans(),
    floored=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_bounds_hold_on_any_data(
    family: Family, grid: tuple[int, int], n: int, dim: int, alike: bool, floored: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    patches = grid[0] * grid[1]
    rows, bank = family(random, patches, dim), family(random, n, dim)
    if alike:  # nominal patches among the queries, queries a hair apart
        rows[: min(n, patches)] = bank[: min(n, patches)]
        rows[1::2] = np.nextafter(rows[:-1:2], np.float32(1))
    guesses = random.integers(-1, n, (2, patches))
    floor = None
    if floored:
        floor = reference.to_float32(reference.sq_distance(rows[random.integers(0, patches, n)], bank))
        floor[random.random(n) < 0.3] = np.inf
    check(rows, grid, bank, floor, displaced=lambda numbers, down, right: guesses[seed % 2, : len(numbers)])


def test_distances_above_are_none_too_small_and_hardly_too_large() -> None:
    random = np.random.default_rng(1)
    for scale in (1e-22, 1e-19, 1e-3, 1.0, 1e15, 1e19, 1e30):
        x, y = (scale * random.standard_normal((2, 400, 1026))).astype(np.float32)
        y[::2] = x[::2] + (1e-3 * scale * random.standard_normal((200, 1026))).astype(np.float32)
        exact = reference.sq_distance(x, y)
        above = module._sq_above(x, y)
        assert (reference.to_float32(exact) <= above).all()
        assert (above.astype(np.float64) >= exact).all()
        if 1e-3 <= scale <= 1e15:
            assert (above <= exact * 1.0003).all()


def test_distances_below_are_none_too_large() -> None:
    # The searched patch's distance may be half a float32 step less than was reported. Just under a power of two that
    # step is smallest beside the value, and just above one the bound's own is largest.
    random = np.random.default_rng(5)
    sq = np.nextafter(np.float32(2.0) ** random.integers(-30, 30, 20_000).astype(np.float32), np.float32(0))
    apart = (sq * (1 - np.sqrt(random.uniform(0.5, 0.52, len(sq)))) ** 2).astype(np.float32)
    step = sq.astype(np.longdouble) - np.nextafter(sq, np.float32(0)).astype(np.longdouble)
    least = np.sqrt(sq.astype(np.longdouble) - step / 2) - np.sqrt(apart.astype(np.longdouble))
    below = module._below(sq, apart)
    assert (below.astype(np.longdouble) <= least**2).all()
    assert (below >= least**2 * (1 - 1e-6)).all()
    assert (module._below(sq, sq * np.float32(2)) == 0).all()
    assert (module._below(np.zeros(3, np.float32), np.zeros(3, np.float32)) == 0).all()
    assert module._below(np.array([np.inf], np.float32), np.zeros(1, np.float32)) <= np.finfo(np.float32).max


def test_the_allowance_for_float32_is_needed() -> None:
    # Sums of float32 fall short of the distance: without the allowance they would be no bound.
    random = np.random.default_rng(2)
    x, y = random.standard_normal((2, 2000, 1026)).astype(np.float32)
    d = x - y
    assert (np.einsum("ij,ij->i", d, d).astype(np.float64) < reference.sq_distance(x, y)).any()


def test_patches_beside_are_found_in_their_own_image() -> None:
    grid = (4, 5)
    random = np.random.default_rng(3)
    model = model_of(random.standard_normal((3, 20, 2)).astype(np.float32))
    kept = np.flatnonzero(random.random(60) < 0.6)
    part = NominalModel(*(getattr(model, name)[kept] for name in (
        "patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")))  # fmt: skip
    for _ in range(300):
        row, down, right = random.integers(0, len(part)), random.integers(-3, 4), random.integers(-3, 4)
        got = int(part.displaced(np.array([row]), np.array([down]), np.array([right]), grid)[0])
        y, x = divmod(int(part.patch_index[row]), 5)
        y, x = y + down, x + right
        same = (part.image_index == part.image_index[row]) & (part.patch_index == y * 5 + x)
        want = np.flatnonzero(same) if 0 <= y < 4 and 0 <= x < 5 else np.array([], int)
        assert got == (want[0] if len(want) else -1)


def test_a_model_in_another_order_knows_its_neighbours() -> None:
    model = model_of(np.zeros((2, 4, 1), np.float32))
    back = NominalModel(*(getattr(model, name)[::-1] for name in (
        "patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")))  # fmt: skip
    zero = np.zeros(3, np.int64)
    assert back.displaced(np.arange(3), zero, zero, (2, 2)).tolist() == [0, 1, 2]
    assert back.displaced(np.array([3]), zero[:1], zero[:1] + 1, (2, 2)).tolist() == [2]
    assert model.displaced(np.arange(3), zero, zero, (2, 2)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("backend", available_backends())
def test_surroundings_of_a_match_are_tried(backend: str) -> None:
    """An image seen before, moved by a patch: every guess but those at the border is the nearest."""
    random = np.random.default_rng(4)
    image = random.standard_normal((10, 10, 16)).astype(np.float32)
    model = model_of(image.reshape(1, 100, 16))
    moved = np.ascontiguousarray(image[1:, 1:]).reshape(81, 16) + np.float32(0.01)
    found = check(
        moved, (9, 9), image.reshape(100, 16),
        displaced=lambda rows, down, right: model.displaced(rows, down, right, (10, 10)), backend=backend,
    )  # fmt: skip
    assert found.searched.sum() == 9
    assert np.array_equal(found.index, reference.nearest(moved, image.reshape(100, 16))[0])
    plain = check(moved, (9, 9), image.reshape(100, 16), backend=backend)
    assert (plain.sq_upper[~plain.searched] > 10 * found.sq_upper[~plain.searched]).all()
    if found.counts is not None:
        assert found.counts.pairs == 81 * 100


def test_smooth_images_are_bounded_from_below() -> None:
    y, x = np.mgrid[:12, :12] / 12
    rows = np.stack([np.sin(3 * x), np.cos(2 * y), x * y], axis=2).reshape(144, 3).astype(np.float32)
    bank = np.full((1, 3), 5, np.float32)
    found = check(rows, (12, 12), bank)
    assert (found.sq_lower > 0.5 * found.sq_upper).all()
