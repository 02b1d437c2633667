"""`describe` against the unfolding route, in NumPy and in torch; and the same bits always."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cuda_host.build
import numpy as np
import pytest
import reference_describe
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import Engine, cpu_engines, cuda_engines, running

import inreach_fast
from inreach_fast.errors import BackendError, DataError, ParameterError
from inreach_fast.kernels import available_backends, describe, describing, is_gpu_name
from inreach_fast.kernels.describe_plan import axis_resample, level_taps

pytestmark = pytest.mark.engines(pruned=False)

Shape = tuple[int, int, int]

# Level shapes (C, h, w), grid, dim, neighbourhood: what is peculiar about each, in its name.
CASES: dict[str, tuple[list[Shape], tuple[int, int], int, int]] = {
    "three scales, two levels on one grid": ([(5, 7, 9), (3, 4, 3), (3, 4, 3), (20, 2, 2)], (7, 9), 16, 3),
    "one pixel, one level, fewer features than outputs": ([(2, 1, 1)], (1, 1), 32, 3),
    "one pixel upsampled": ([(6, 1, 1), (4, 3, 2)], (5, 4), 10, 3),
    "more levels than outputs": ([(3, 5, 5)] * 4 + [(7, 3, 2)] * 4, (5, 5), 3, 3),
    "stages that take turns": ([(3, 5, 5), (2, 3, 3)] * 3, (5, 5), 7, 3),
    "no neighbourhood": ([(9, 6, 5), (11, 3, 3)], (6, 5), 8, 1),
    "wide neighbourhood, larger than the level": ([(4, 3, 2), (3, 2, 2)], (3, 2), 9, 5),
    "levels finer than the grid": ([(4, 11, 13), (3, 5, 6)], (4, 5), 6, 3),
    "an output of many channels": ([(600, 12, 12), (90, 5, 7)], (12, 12), 3, 3),
    "wide and flat": ([(4, 2, 700), (3, 1, 350)], (2, 700), 5, 3),
    "several row tasks": ([(70, 90, 31), (33, 60, 40)], (90, 31), 20, 3),
}


def random_levels(shapes: Sequence[Shape], seed: int = 0, batch: int | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    return [rng.standard_normal((*lead, *shape)).astype(np.float32) for shape in shapes]


def torch_unfolding(levels: list[np.ndarray], grid: tuple[int, int], dim: int, k: int) -> np.ndarray:
    """The second witness: the same route in torch's float64 unfold, interpolate and adaptive_avg_pool1d."""
    functional = torch.nn.functional
    vectors = []
    for level in levels:
        x = torch.from_numpy(level).double()[None]
        unfolded = functional.unfold(x, k, padding=k // 2).reshape(1, -1, *level.shape[1:])
        resized = functional.interpolate(unfolded, size=grid, mode="bilinear", align_corners=False)
        features = resized.flatten(2).transpose(1, 2)  # (1, P, C*k*k)
        vectors.append(functional.adaptive_avg_pool1d(features, dim))
    joined = functional.adaptive_avg_pool1d(torch.cat(vectors, dim=2), dim)
    return joined[0].numpy()


@pytest.mark.parametrize("name", CASES)
def test_both_unfolding_routes_agree_with_it(engine: Engine, name: str) -> None:
    shapes, grid, dim, k = CASES[name]
    levels = random_levels(shapes)
    got = describe(levels, grid=grid, dim=dim, neighbourhood=k, backend=engine.backend)
    assert got.dtype == np.float32
    assert got.shape == (grid[0] * grid[1], dim)
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, reference_describe.describe(levels, grid, dim, k), rtol=0, atol=2e-6)
    np.testing.assert_allclose(got, torch_unfolding(levels, grid, dim, k), rtol=0, atol=2e-6)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Shape], tuple[int, int], int, int, int]:
    size = st.integers(1, 9)
    shapes = draw(st.lists(st.tuples(st.integers(1, 40), size, size), min_size=1, max_size=5))
    if draw(st.booleans()):  # runs on one grid, as backbones have them
        shapes = [shape for shape in shapes for _ in range(2)]
    grid = draw(st.one_of(st.just(shapes[0][1:]), st.tuples(size, size)))
    return (shapes, grid, draw(st.integers(1, 50)), draw(st.sampled_from([1, 3, 5])), draw(st.integers(0, 2**31)))


@settings(max_examples=40)
@given(problems())
def test_any_shape(problem: tuple[list[Shape], tuple[int, int], int, int, int]) -> None:
    shapes, grid, dim, k, seed = problem
    levels = random_levels(shapes, seed)
    expected = reference_describe.describe(levels, grid, dim, k)
    results = [
        describe(levels, grid=grid, dim=dim, neighbourhood=k, backend=backend) for backend in available_backends()
    ]
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=2e-6)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("name", CASES)
def test_backends_and_instruction_sets_give_the_same_bits(name: str) -> None:
    shapes, grid, dim, k = CASES[name]
    levels = random_levels(shapes, 1, batch=2)
    results = []
    engines = cpu_engines(pruned=False)
    if cuda_host.build.compiler() is not None:
        engines += cuda_engines("few")
    for engine in engines:
        with running(engine):
            results.append(describe(levels, grid=grid, dim=dim, neighbourhood=k, backend=engine.backend))
    assert len(results) >= 2
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].view(np.uint32), other.view(np.uint32))


def test_zeros_around_an_image_are_zeros_after_any_other_image(engine: Engine, threads: None) -> None:
    """Packed planes keep the zeros beyond the image from call to call: no value of another image may be among them."""
    inreach_fast.set_num_threads(1)
    full = np.float32(np.nan)
    calls = [((9, 7), 3), ((9, 7), 5), ((5, 7), 3), ((9, 6), 3), ((2, 7), 5), ((40, 7), 3), ((9, 7), 3)]
    for (height, width), k in [*calls, *reversed(calls)]:
        for channels in (30, 3, 11):
            shape = (channels, height, width)
            layouts = [lambda x: x, lambda x: np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1)]
            for layout in layouts:
                describe([np.full(shape, full)], grid=(height, width), dim=6, neighbourhood=k, backend=engine.backend)
                levels = [layout(x) for x in random_levels([shape])]
                got = describe(levels, grid=(height, width), dim=6, neighbourhood=k, backend=engine.backend)
                expected = reference_describe.describe(levels, (height, width), 6, k)
                np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_tap_order_is_the_documented_one(engine: Engine) -> None:
    """Values whose order of summing shows: tap by tap, each rounded, then blended along y, then along x."""
    levels = [np.float32(10.0) ** (8 * np.random.default_rng(3).random((5, 4, 4)) - 4).astype(np.float32)]
    grid, dim, k = (7, 7), 3, 3
    taps = level_taps((5,), dim, k)[0]
    padded = np.pad(levels[0], ((0, 0), (1, 1), (1, 1)))
    table = np.zeros((4, 4, dim), np.float32)
    for j in range(dim):
        run = slice(taps.tap_begin[j], taps.tap_begin[j + 1])
        for t, weight in enumerate(taps.weights[run]):
            c, place = divmod(int(taps.feature_begin[j]) + t, k * k)
            shifted = padded[c, place // k : place // k + 4, place % k : place % k + 4]
            table[:, :, j] = weight * shifted if t == 0 else table[:, :, j] + weight * shifted
    axis = axis_resample(4, 7)
    upper = np.minimum(axis.i0 + 1, 3)
    rows = axis.w0[:, None, None] * table[axis.i0] + axis.w1[:, None, None] * table[upper]
    expected = axis.w0[None, :, None] * rows[:, axis.i0] + axis.w1[None, :, None] * rows[:, upper]
    got = describe(levels, grid=grid, dim=dim, backend=engine.backend)
    np.testing.assert_array_equal(got, expected.reshape(49, dim))


@pytest.mark.engines(routes="none")
def test_threads_change_nothing(engine: Engine, threads: None) -> None:
    shapes, grid, dim, k = CASES["several row tasks"]
    levels = random_levels(shapes, 2, batch=2)
    inreach_fast.set_num_threads(1)
    alone = describe(levels, grid=grid, dim=dim, neighbourhood=k, backend=engine.backend)
    for count in (2, 5, 40):
        inreach_fast.set_num_threads(count)
        together = describe(levels, grid=grid, dim=dim, neighbourhood=k, backend=engine.backend)
        np.testing.assert_array_equal(alone, together)


def test_a_batch_is_its_images(engine: Engine) -> None:
    shapes, grid, dim, k = CASES["three scales, two levels on one grid"]
    levels = random_levels(shapes, 4, batch=5)
    got = describe(levels, grid=grid, dim=dim, neighbourhood=k, backend=engine.backend)
    assert got.shape == (5, 63, 16)
    for i in range(5):
        single = describe([x[i] for x in levels], grid=grid, dim=dim, neighbourhood=k, backend=engine.backend)
        np.testing.assert_array_equal(got[i], single)
    assert describe([x[:0] for x in levels], grid=grid, dim=dim, backend=engine.backend).shape == (0, 63, 16)


def layouts(x: np.ndarray) -> dict[str, Any]:
    """The same (B, C, h, w) values in other places of memory."""
    holes = np.full(tuple(2 * n for n in x.shape), np.nan, np.float32)
    holes[::2, ::2, ::2, ::2] = x
    readonly = x.copy()
    readonly.setflags(write=False)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.dtype("f4")).reshape(x.shape)
    return {
        "channels last": torch.from_numpy(x).contiguous(memory_format=torch.channels_last),
        "torch": torch.from_numpy(x).requires_grad_(),
        "channels in the middle": np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
        "columns first": np.asfortranarray(x),
        "holes": holes[::2, ::2, ::2, ::2],
        "backwards": np.ascontiguousarray(x[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1],
        "read only": readonly,
        "unaligned": unaligned,
    }


@pytest.mark.parametrize("layout", layouts(np.zeros((1, 1, 1, 1), np.float32)))
def test_layout_changes_nothing(engine: Engine, layout: str) -> None:
    levels = random_levels([(37, 9, 21), (19, 5, 11)], 5, batch=2)
    expected = describe(levels, grid=(9, 21), dim=24, backend=engine.backend)
    moved = [layouts(x)[layout] for x in levels]
    np.testing.assert_array_equal(describe(moved, grid=(9, 21), dim=24, backend=engine.backend), expected)


def test_broadcast_levels(engine: Engine) -> None:
    """Strides of zero."""
    level = np.broadcast_to(np.float32(2), (2, 4, 6, 6))
    inner = describe([level], grid=(6, 6), dim=8, backend=engine.backend).reshape(2, 6, 6, 8)[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, 2, rtol=1e-6)


def test_writes_into_rows_of_a_wider_buffer(engine: Engine) -> None:
    levels = random_levels([(7, 4, 5)], 6, batch=3)
    expected = describe(levels, grid=(4, 5), dim=6, backend=engine.backend)
    buffer = np.full((3 * 20, 8), -1, np.float32)
    out = buffer.reshape(3, 20, 8)[:, :, :6]
    assert describe(levels, grid=(4, 5), dim=6, backend=engine.backend, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert (buffer[:, 6:] == -1).all()
    single = np.full((20, 8), -1, np.float32)
    describe([levels[0][1]], grid=(4, 5), dim=6, backend=engine.backend, out=single[:, 1:7])
    np.testing.assert_array_equal(single[:, 1:7], expected[1])
    assert (single[:, [0, 7]] == -1).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_reach_as_far_as_their_taps(engine: Engine, poison: float) -> None:
    shapes: list[Shape] = [(16, 6, 6), (16, 3, 3)]
    levels = random_levels(shapes, 7)
    clean = describe(levels, grid=(6, 6), dim=8, backend=engine.backend).reshape(6, 6, 8)
    levels[0][0, 2, 3] = poison
    got = describe(levels, grid=(6, 6), dim=8, backend=engine.backend).reshape(6, 6, 8)
    touched = ~np.isfinite(got)
    assert touched[1:4, 2:5, 0].all()
    assert touched.sum() == 9  # output 0 averages channels 0 to 3 of the first level; nothing else saw it
    if not np.isnan(poison):
        assert (got[touched] == poison).all()
    np.testing.assert_array_equal(got[~touched], clean[~touched])


def test_resampling_reads_no_sample_of_weight_zero() -> None:
    for source in range(1, 12):
        for target in range(1, 12):
            axis = axis_resample(source, target)
            assert (axis.i0 >= 0).all()
            assert (axis.i0 + (axis.w1 != 0) < source).all()
            np.testing.assert_allclose(axis.w0 + axis.w1, 1, rtol=0, atol=1e-7)
            if source == target:
                assert not axis.w1.any()


def test_every_descriptor_of_a_constant_is_that_constant() -> None:
    """Both poolings and the resampling are averages: weights of every output sum to 1 over its levels."""
    channels = (256,) * 3 + (512,) * 4 + (1024,) * 6
    total = np.zeros(1024)
    for taps in level_taps(channels, 1024, 3):
        sums = np.add.reduceat(taps.weights.astype(np.float64), taps.tap_begin[:-1])
        total[taps.first_output : taps.first_output + len(sums)] += sums
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)


LEVEL = np.ones((2, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("levels", "options", "error", "message"),
    [
        ([], {}, ParameterError, "at least one level"),
        (LEVEL, {}, ParameterError, "expected a list"),
        ("abc", {}, DataError, "levels[0]"),
        ([LEVEL, LEVEL.astype(np.float64)], {}, DataError, "levels[1]: expected float32, got float64"),
        ([torch.zeros(2, 4, 4, dtype=torch.float16)], {}, DataError, "levels[0]: expected float32"),
        ([LEVEL.astype(">f4")], {}, DataError, "levels[0]: expected float32"),
        ([LEVEL, LEVEL[0]], {}, DataError, "levels[1]: expected the shape"),
        ([LEVEL[:, :0]], {}, DataError, "levels[0]: is empty"),
        ([LEVEL, LEVEL[None]], {}, DataError, "levels[1]: its batch"),
        ([LEVEL[None], np.ones((2, 2, 4, 4), np.float32)], {}, DataError, "levels[1]: its batch"),
        ([LEVEL], {"grid": 4}, ParameterError, "grid"),
        ([LEVEL], {"grid": (0, 4)}, ParameterError, "grid[0]"),
        ([LEVEL], {"grid": (4, 2.5)}, ParameterError, "grid[1]"),
        ([LEVEL], {"dim": 0}, ParameterError, "dim"),
        ([LEVEL], {"dim": True}, ParameterError, "dim"),
        ([LEVEL], {"neighbourhood": 2}, ParameterError, "neighbourhood"),
        ([LEVEL], {"neighbourhood": -1}, ParameterError, "neighbourhood"),
        ([LEVEL], {"backend": "abacus"}, BackendError, "abacus"),
        ([LEVEL], {"out": np.zeros((16, 5), np.float32)}, ParameterError, "out"),
        ([LEVEL], {"out": np.zeros((16, 6))}, ParameterError, "out"),
        ([LEVEL], {"out": np.zeros((6, 16), np.float32).T}, ParameterError, "out"),
        ([LEVEL], {"out": np.broadcast_to(np.float32(0), (16, 6))}, ParameterError, "out"),
    ],
)
def test_bad_arguments_are_named(levels: Any, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        describe(levels, **{"grid": (4, 4), "dim": 6, **options})


def test_tensors_of_a_device_without_kernels_are_described_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, and the answer is a tensor again; here on a device that only claims to be another."""
    x = np.random.default_rng(5).standard_normal((2, 3, 4, 5), dtype=np.float32)
    expected = describe([x], grid=(4, 5), dim=6)
    monkeypatch.setattr(describing, "_device", lambda level: "xpu:0")
    for backend in ("auto", *available_backends()):
        if not is_gpu_name(backend):
            found = describe([torch.from_numpy(x)], grid=(4, 5), dim=6, backend=backend)
            assert isinstance(found, torch.Tensor)
            assert np.array_equal(found.numpy(), expected)


def test_isa_variable_is_read_at_start() -> None:
    """The environment's way to force an instruction set, through a process of its own."""
    code = (
        "import numpy as np, sys; from inreach_fast import _core; from inreach_fast.kernels import describe;"
        "x = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32);"
        "d = describe([x], grid=(6, 7), dim=9, backend='native');"
        "sys.stdout.write(_core.isa() + d.tobytes().hex())"
    )
    if "native" not in available_backends():
        pytest.skip("needs the compiled extension")
    root = str(Path(inreach_fast.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "INREACH_ISA": "scalar", "PYTHONPATH": root},
    )
    x = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    expected = describe([x], grid=(6, 7), dim=9, backend="native").tobytes().hex()
    assert run.stdout == "scalar" + expected
