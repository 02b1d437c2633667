"""Races: that the executor finds them where it looks for them (races.h), and that no kernel of the engine has any."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from kernel_cases import duplicates, gaussian, same_bits
from numpy.typing import NDArray

from inreach_fast import kernels
from inreach_fast.method.scoring import anomaly_map

from . import backend, build
from .device import HostDevice, KernelError
from .maps import anomaly_maps as gpu_maps

FAULTY = Path(__file__).parent / "faulty"
ORDERS = range(8)

pytestmark = pytest.mark.skipif(
    not build.finds_races(), reason="NO COMPILER THAT FINDS RACES (GCC 11): the CUDA kernels were not searched for any"
)


# ------------------------------------------------------------------------------------------- the detector

VALUES = np.arange(64, dtype=np.uint32)


def run(kernel: str, order: int, grid: int = 1, *, races: bool = True) -> NDArray[np.uint32]:
    """Launch with 64 words and an output of 128, which comes back."""
    device = HostDevice(order, kernels=FAULTY, races=races)
    values, out = device.upload(VALUES), device.empty(128, np.uint32)
    device.launch(kernel, (grid,), 64, (values, out))
    return device.download(out)


# Blocks of the launch, and what the message says.
RACY = {
    "overwrite_without_barrier": (1, "of shared memory"),
    "one_value_by_all": (1, "writes byte 0 of shared memory, which thread", "has written"),
    "global_without_barrier": (1, "of argument 1"),
    "shuffle_for_a_barrier": (1, "reads byte", "of shared memory", "has written"),
    "vote_for_a_barrier": (1, "reads byte", "of shared memory", "has written"),
    "matrix_instruction_for_a_barrier": (1, "reads byte", "of shared memory", "has written"),
    "barrier_of_the_warp_for_the_block": (1, "of shared memory"),
    "readers_in_two_warps": (1, "byte 0 of argument 0", "thread (0, 0, 0)"),
    "one_word_of_two_blocks": (2, "writes byte 0 of argument 1", "block (0, 0, 0)", "block (1, 0, 0)", "has written"),
    "word_of_another_block": (2, "of argument 1", "block (0, 0, 0)", "block (1, 0, 0)"),
    "word_of_three_blocks": (3, "byte 0 of argument 0", "block (0, 0, 0)", "block (2, 0, 0)"),
    "read_beside_an_atomic": (1, "byte 0 of argument 0", "thread (0, 0, 0)", "thread (40, 0, 0)", "atomically"),
    "write_beside_an_atomic": (1, "byte 0 of argument 0", "thread (0, 0, 0)", "thread (40, 0, 0)", "atomically"),
    "volatile_beside_a_write": (1, "byte 0 of argument 0", "thread (0, 0, 0)", "thread (40, 0, 0)", "as volatile"),
    "part_of_sixteen_bytes": (1, "byte 12 of argument 0", "thread (0, 0, 0)", "thread (40, 0, 0)"),
    "part_of_a_structure": (1, "byte 24 of argument 0", "thread (0, 0, 0)", "thread (40, 0, 0)"),
}
# Blocks of the launch.
RIGHT = {
    "overwrite": 1,
    "one_value_by_one": 1,
    "global_with_barrier": 1,
    "barrier_of_the_warp": 1,
    "readers_in_one_warp": 1,
    "one_word_of_two_blocks": 1,  # there is but one
    "neighbours_of_two_blocks": 2,
    "volatile_beside_an_atomic": 2,
    "atomic_and_barrier": 1,
    "beside_sixteen_bytes": 1,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", RACY)
def test_a_race_is_found_in_every_order(kernel: str, order: int) -> None:
    grid, *words = RACY[kernel]
    with pytest.raises(KernelError, match="a race, nothing orders the two") as caught:
        run(kernel, order, grid)
    for word in (f"{kernel}: thread (", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", RIGHT)
def test_what_is_ordered_is_no_race(kernel: str, order: int) -> None:
    run(kernel, order, RIGHT[kernel])


@pytest.mark.parametrize("order", ORDERS)
def test_launches_do_not_race_with_one_another(order: int) -> None:
    device = HostDevice(order, kernels=FAULTY, races=True)
    values, out = device.upload(VALUES), device.empty(128, np.uint32)
    for which in range(4):
        device.launch("word_of_one_block", (4,), 64, (device.upload(np.array([which], np.uint32)), out))
    device.launch("volatile_beside_an_atomic", (2,), 64, (values, out))
    device.launch("overwrite", (1,), 64, (out, values))


def test_no_order_shows_what_the_detector_does() -> None:
    neighbours = VALUES ^ 1
    for kernel in ("shuffle_for_a_barrier", "vote_for_a_barrier", "matrix_instruction_for_a_barrier"):
        for order in range(8):
            np.testing.assert_array_equal(run(kernel, order, races=False)[:64], neighbours)


def test_barriers_of_a_part_of_a_warp_are_refused() -> None:
    run("barrier_of_half_a_warp", 0, races=False)
    with pytest.raises(KernelError, match=r"a __syncwarp of the lanes 0000ffff: .* whole warps only"):
        run("barrier_of_half_a_warp", 0)


def test_a_launch_after_a_race_is_as_good_as_any() -> None:
    device = HostDevice(3, kernels=FAULTY, races=True)
    values, out = device.upload(VALUES), device.empty(128, np.uint32)
    for _ in range(3):
        with pytest.raises(KernelError, match="a race"):
            device.launch("overwrite_without_barrier", (1,), 64, (values, out))
        device.launch("overwrite", (1,), 64, (values, out))
        np.testing.assert_array_equal(device.download(out)[:64], VALUES[::-1])


def test_a_part_of_a_buffer_is_named_by_its_own_pointer() -> None:
    device = HostDevice(0, kernels=FAULTY, races=True)
    both = device.empty(192, np.uint32)
    device.launch("overwrite", (1,), 64, (both.part(0, 64), both.part(64, 192)))  # and what is not the same is no race
    with pytest.raises(KernelError, match="of argument 1, which"):
        device.launch("global_without_barrier", (1,), 64, (both.part(0, 64), both.part(64, 192)))


def test_other_faults_are_found_as_ever() -> None:
    device = HostDevice(1, kernels=FAULTY, races=True)
    with pytest.raises(KernelError, match="32 of 64 threads have ended"):
        device.launch("barrier_for_half_of_the_block", (1,), 64, (device.empty(64, np.float32),))
    with pytest.raises(KernelError, match="4 bytes before a buffer of 128 bytes"):
        device.launch("shifted_write", (1,), 32, (device.empty(32, np.float32), np.int32(-1)))


# --------------------------------------------------------------------------------------- the engine's kernels


def launches(gpu: Any) -> frozenset[str]:
    assert isinstance(gpu.device, HostDevice)
    return frozenset(gpu.device.launches)


@cache
def searches(case: backend.Case) -> frozenset[str]:
    """Every kind of search by this route, several tiles on both sides; the kernels that were launched.

    More than one neighbour is found without leading directions: routes that differ in these need not repeat it.
    """
    rng = np.random.default_rng(20)
    assert case.options.route is not None
    m, n = case.options.route.tile + 20, 2 * case.options.route.tile + 40
    queries, rows = gaussian(rng, m, 70), gaussian(rng, n, 70)  # three pieces of 32 values: places are used again
    rows[n - 60 :] = duplicates(rng, 60, 70)
    queries[m // 2 :] = rows[rng.integers(0, n, m - m // 2)]
    q_group, x_group, hint = rng.integers(0, 3, m), rng.integers(0, 3, n), rng.integers(-1, n, m)
    with backend.registered(case, races=True) as gpu:
        gpu.device.multiprocessors = 1  # fewer blocks than tiles: some go on to another one
        name = backend.NAME
        bank, several = kernels.Bank(rows, groups=x_group), not case.options.heads
        nearest = {k: kernels.nearest(queries, rows, k=k, backend=name) for k in ((1, 7) if several else (1,))}
        grouped = {
            k: kernels.nearest(queries, bank, k=k, query_group=q_group, hint=hint, backend=name)
            for k in ((1, 3) if several else (1,))
        }
        answered = kernels.nearest_answered(queries, rows, backend=name)
        mutual = kernels.mutual_nearest(queries, rows, backend=name)
        ran = launches(gpu)
    for k, one in nearest.items():
        same_bits(one.index, reference.nearest(queries, rows, k)[0])
    for k, one in grouped.items():
        same_bits(one.index, reference.nearest(queries, rows, k, q_group, x_group)[0])
    for index in (answered.index, mutual.ab_index):
        same_bits(index, nearest[1].index)
    return ran


@cache
def others() -> frozenset[str]:
    """Descriptors, channels, maps and checks; the kernels that were launched."""
    rng = np.random.default_rng(21)
    with backend.registered(backend.CASES[3], races=True) as gpu:
        levels = [gaussian(rng, 2 * c * h * w, 1).reshape(2, c, h, w) for c, h, w in ((9, 12, 12), (20, 6, 7))]
        described = kernels.describe(levels, grid=(11, 12), dim=70, neighbourhood=3, backend=backend.NAME)
        members, channel = gaussian(rng, 300, 300), rng.integers(0, 40, 300)
        kept = kernels.filter_channels(members, channel, min_length=2, max_std=1.0, backend=backend.NAME)
        ran = launches(gpu)
    np.testing.assert_array_equal(described, kernels.describe(levels, grid=(11, 12), dim=70))
    same_bits(kept.sigma, reference.filter_channels(members, channel, 2, 1.0).sigma)

    device = HostDevice(5, races=True)
    scores = rng.exponential(size=(3, 7, 6)).astype(np.float32)
    maps, greatest = gpu_maps(device, scores, (40, 33), 2.0)
    expected = np.stack([anomaly_map(one, (40, 33), 2.0) for one in scores])
    same_bits(maps, expected)
    same_bits(greatest, expected.max(axis=(1, 2)))

    rows, first = np.full((90, 37), np.nan, np.float32), device.upload(np.array([2**64 - 1], np.uint64))
    rows[:30] = 0.0
    device.launch("first_nonfinite_row", (3,), 256, (device.upload(rows), None, np.int64(90), np.int32(37), first))
    assert int(device.download(first)[0]) == 30

    # More than the block takes at once, as of more queries than the searches here have.
    lengths = rng.integers(0, 9, 600, dtype=np.uint32)
    begin, filled = device.empty(601, np.uint32), device.empty(600, np.uint32)
    device.launch("segment_begins", (1,), 256, (device.upload(lengths), np.int32(600), begin, filled))
    same_bits(device.download(begin), np.cumsum([0, *lengths], dtype=np.uint32))
    return ran | frozenset(device.launches)


@pytest.mark.parametrize("case", backend.CASES, ids=lambda case: case.name)
def test_no_search_has_a_race(case: backend.Case) -> None:
    assert searches(case)


def test_nothing_else_has_a_race() -> None:
    assert others()


def test_every_kernel_was_searched_for_races() -> None:
    assert others().union(*(searches(case) for case in backend.CASES)) == set(build.kernel_names())
