"""The executor must notice what a GPU would not: every fault here is one that hardware lets pass, some of the time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from . import build
from .device import HostDevice, KernelError

FAULTY = Path(__file__).parent / "faulty"
ORDERS = range(6)

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="NO C++ COMPILER: the CUDA kernels were not run")


def make(order: int = 0) -> HostDevice:
    return HostDevice(order, kernels=FAULTY)


def run(device: HostDevice, kernel: str, block: int, *inputs: Any, count: int = 64, grid: int = 1) -> NDArray[Any]:
    """Launch with inputs (arrays are uploaded) and one float32 output, which comes back."""
    out = device.empty(count, np.float32)
    held = [device.upload(x) if isinstance(x, np.ndarray) else x for x in inputs]
    device.launch(kernel, (grid,), block, (*held, out))
    return device.download(out)


VALUES = np.arange(64, dtype=np.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_a_right_kernel_is_right_in_every_order(order: int) -> None:
    np.testing.assert_array_equal(run(make(order), "reverse", 64, VALUES), VALUES[::-1])


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_shows_in_every_order(order: int) -> None:
    got = run(make(order), "reverse_without_barrier", 64, VALUES)
    assert np.isnan(got).any()  # what nobody has written yet is NaN


def test_a_race_that_one_order_hides_shows_in_another() -> None:
    right = np.cumsum(VALUES, dtype=np.float32)
    same = [bool(np.array_equal(run(make(order), "prefix_by_luck", 64, VALUES), right)) for order in ORDERS]
    assert same[0]
    assert not any(same[1:])


def test_blocks_come_in_several_orders() -> None:
    last = set()
    for order in ORDERS:
        device = make(order)
        out = device.empty(1, np.int32)
        device.launch("last_block_wins", (7,), 32, (out,))
        last.add(int(device.download(out)[0]))
    assert len(last) > 2


def _caught(launch: Callable[[], Any], *words: str) -> None:
    with pytest.raises(KernelError) as caught:
        launch()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_that_not_all_reach(order: int) -> None:
    _caught(lambda: run(make(order), "barrier_for_half_of_the_block", 64), "barrier_for_half", "32 of 64 threads")
    _caught(lambda: run(make(order), "barriers_at_two_places", 64), "__syncthreads of line")


@pytest.mark.parametrize("order", ORDERS)
def test_masks_that_are_wrong(order: int) -> None:
    _caught(lambda: run(make(order), "mask_of_absent_lanes", 32), "not all of them come")
    _caught(lambda: run(make(order), "mask_without_oneself", 32), "does not name it")
    _caught(lambda: run(make(order), "shuffle_from_outside_the_mask", 32), "not in the mask")


def test_reads_and_writes_outside_of_buffers() -> None:
    full = VALUES[:32]
    _caught(lambda: run(make(0), "shifted_read", 32, full, np.int32(1)), "0 bytes past the end of a buffer of 128")
    _caught(lambda: run(make(1), "shifted_read", 32, full, np.int32(-1)), "4 bytes before a buffer of 128")

    def write(order: int, shift: int) -> None:
        device = make(order)
        out = device.empty(32, np.float32)
        device.launch("shifted_write", (1,), 32, (out, np.int32(shift)))

    _caught(lambda: write(0, 1), "past the end", "thread (31, 0, 0)")
    _caught(lambda: write(1, -1), "before a buffer", "thread (0, 0, 0)")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_write_beside_a_buffer_on_its_own_page_is_noticed_when_it_is_freed() -> None:
    device = make(0)
    out = device.empty(32, np.float32)
    device.launch("shifted_write", (1,), 32, (out, np.int32(-1)))
    assert device._library.host_free(out.address) == 1
    assert device._library.host_free(out.address) == 2  # and no buffer is freed twice


def test_accesses_outside_of_shared_arrays() -> None:
    _caught(lambda: run(make(), "past_an_array", 32, np.array([32], np.int32)), "undefined behaviour")
    assert (run(make(), "past_an_array", 32, np.array([31], np.int32), count=32) == 1).all()
    _caught(lambda: run(make(), "past_shared_memory", 32), "past the end of shared memory")


def test_shared_memory_and_buffers_start_as_nan() -> None:
    device = make()
    assert np.isnan(run(device, "never_written", 32, count=32)).all()
    assert np.isnan(device.download(device.empty(5, np.float32))).all()


def test_undefined_behaviour() -> None:
    _caught(lambda: run(make(), "misaligned", 32, VALUES), "undefined behaviour")
    device = make()
    out = device.empty(32, np.uint32)
    _caught(lambda: device.launch("shift_too_far", (1,), 32, (np.int32(32), out)), "undefined behaviour")


def test_arguments_and_shapes_are_checked() -> None:
    device = make()
    out = device.empty(64, np.float32)
    _caught(lambda: device.launch("no_such", (1,), 32, ()), "no such kernel")
    _caught(lambda: device.launch("reverse", (1,), 64, (out,)), "takes pp, was given p")
    _caught(lambda: device.launch("shifted_write", (1,), 32, (out, np.int64(1))), "takes pi, was given pI")
    _caught(lambda: device.launch("shifted_write", (1,), 32, (out, np.float32(1))), "takes pi, was given pf")
    _caught(lambda: device.launch("reverse", (0,), 64, (out, out)), "grid (0, 1, 1)")
    _caught(lambda: device.launch("reverse", (1,), 33, (out, out)), "blocks of (33, 1, 1)")
    _caught(lambda: device.launch("reverse", (1, 65536), 64, (out, out)), "grid (1, 65536, 1)")


def test_a_launch_after_a_fault_is_as_good_as_any() -> None:
    device = make(3)
    for _ in range(3):
        _caught(lambda: run(device, "barrier_for_half_of_the_block", 64), "barrier")
        np.testing.assert_array_equal(run(device, "reverse", 64, VALUES), VALUES[::-1])


@pytest.mark.parametrize("order", ORDERS)
def test_operations_of_a_warp(order: int) -> None:
    device = make(order)
    ballot, total, first = (device.empty(64, kind) for kind in (np.uint32, np.int32, np.int32))
    device.launch("warp_operations", (1,), 64, (ballot, total, first))
    lane = np.arange(64)
    bits = [sum(1 << i for i in range(32) if (base + i) % 3 == 0) for base in (0, 32)]
    np.testing.assert_array_equal(device.download(ballot), np.repeat(np.array(bits, np.uint32), 32))
    np.testing.assert_array_equal(device.download(total), np.repeat([lane[:32].sum(), lane[32:].sum()], 32))
    np.testing.assert_array_equal(device.download(first), np.repeat([0, 32], 32))
    half = device.empty(64, np.int32)
    device.launch("half_a_warp", (1,), 64, (half,))
    np.testing.assert_array_equal(device.download(half), np.where(lane % 32 < 16, lane + (lane ^ 1), lane))


@pytest.mark.parametrize("order", ORDERS)
def test_atomics(order: int) -> None:
    device = make(order)
    least, count = device.upload(np.array([2**64 - 1], np.uint64)), device.upload(np.zeros(1, np.uint32))
    device.launch("atomics", (3,), 64, (least, count))
    assert int(device.download(least)[0]) == (1000 - 63) << 32
    assert int(device.download(count)[0]) == 192
