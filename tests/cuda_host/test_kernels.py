"""Kernels one by one, on the host executor: bounds, formats, selection, maps. The contract suite (tests/kernels) has
them all at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Rows, gaussian, same_bits
from numpy.typing import NDArray

from inreach_fast import kernels
from inreach_fast.errors import BackendError
from inreach_fast.kernels.gpu.device import DeviceArray, fill
from inreach_fast.kernels.gpu.frame import DeviceRows, Directions, Frame, Piece
from inreach_fast.kernels.gpu.routes import FORMATS, TILES, Bounds, Format, Route
from inreach_fast.kernels.gpu.search import Search, Target
from inreach_fast.kernels.gpu.search_state import Answers, Candidates, Counts
from inreach_fast.kernels.gpu.spread import channel_pieces
from inreach_fast.method.scoring import anomaly_map

from . import backend, build
from .device import HostDevice
from .maps import anomaly_maps as gpu_maps

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="NO C++ COMPILER: the CUDA kernels were not run")

few = settings(max_examples=8)


def uploaded(device: HostDevice, rows: Rows) -> DeviceRows:
    return DeviceRows(device.upload(rows), None, 0, len(rows))


def all_lows(search: Search, q: Any, x: Any, q_rows: DeviceRows, x_rows: DeviceRows) -> NDArray[np.float64]:
    """`low` of every pair, as the filter computes it: with infinite reaches all of them are candidates."""
    device = search.device
    candidates = Candidates(device, q_rows.count * x_rows.count, Counts.zero(device))
    reach = device.empty(q_rows.count, np.uint32)
    fill(device, reach, 0x7F800000)
    candidates.clear()
    search.filter("collect", Piece(0, q_rows, q), Piece(0, x_rows, x), reach, candidates=candidates)
    assert int(device.download(candidates.count)[0]) == candidates.capacity
    low = np.full((q_rows.count, x_rows.count), np.nan)
    query, row, value = (device.download(a) for a in (candidates.query, candidates.row, candidates.low))
    low[query, row] = value
    return low


def violations(
    x: Rows, y: Rows, form: str, order: int, heads: bool = False, dim_check: bool = True
) -> tuple[int, int, NDArray[np.float64]]:
    """How many pairs break P1 and P2, and how far `low` lies below, relative to the distance where there is one."""
    device = HostDevice(order)
    search = Search(device, Route(form, 64))
    frame = Frame.of_sample(device, y)
    q_rows, x_rows = uploaded(device, x), uploaded(device, y)
    if heads:
        directions = Directions.of_sample(device, y, frame.scale)
        q, b = (directions.rows(device, frame, rows, form) for rows in (q_rows, x_rows))
    else:
        q, b = (frame.rows(device, rows, form) for rows in (q_rows, x_rows))
    low = all_lows(search, q, b, q_rows, x_rows)
    decided = reference.pairwise_sq_distance(x, y) * frame.scale * frame.scale
    stretch, floor = float(q.bounds.stretch), float(q.bounds.floor)
    first = int((low > stretch * decided + floor).sum())
    second = 0
    if not heads:
        assert q.extra is not None
        assert b.extra is not None
        extra = device.download(q.extra).astype(np.float64)[:, None] + device.download(b.extra).astype(np.float64)
        second = int((decided > stretch * (low + extra) + floor).sum())
    return first, second, low - decided


@few
@given(
    form=st.sampled_from(sorted(FORMATS)),
    family=st.sampled_from(FAMILIES),
    dim=st.sampled_from([1, 5, 64, 130, 300]),
    seed=st.integers(0, 2**32 - 1),
    heads=st.booleans(),
)
def test_both_bounds_hold(
    form: str, family: Callable[[np.random.Generator, int, int], Rows], dim: int, seed: int, heads: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, y = family(rng, 20, dim), family(rng, 50, dim)
    assert violations(x, y, form, seed % 5, heads)[:2] == (0, 0)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("form", FORMATS)
def test_bounds_of_each_family(form: str, family: Callable[[np.random.Generator, int, int], Rows]) -> None:
    rng = np.random.default_rng(1)
    x, y = family(rng, 9, 160), family(rng, 40, 160)
    assert violations(x, y, form, 2)[:2] == (0, 0)
    assert violations(x, y, form, 3, heads=True)[:2] == (0, 0)


@pytest.mark.parametrize("form", FORMATS)
def test_bounds_are_tight_enough_to_rule_out(form: str) -> None:
    # Without this the bounds could let everything through and all other tests would still pass.
    rng = np.random.default_rng(2)
    x, y = gaussian(rng, 40, 256), gaussian(rng, 150, 256)
    *_counts, gap = violations(x, y, form, 0)
    spread = np.ptp(reference.pairwise_sq_distance(x, y)) * Frame.of_sample(HostDevice(0), y).scale ** 2
    assert np.abs(gap).max() < {"f32": 0.002, "fp16": 0.02, "bf16": 0.1, "tf32": 0.02}[form] * spread


@pytest.mark.parametrize("form", FORMATS)
def test_without_the_allowances_the_bounds_break(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    # Near one another and far from the centre: products round, and all formats but float32 store a cluster as one row.
    centres = 100.0 * rng.normal(size=(4, 256))
    clusters = (centres[rng.integers(0, 4, 120)] + 1e-3 * rng.normal(size=(120, 256))).astype(np.float32)
    # Exact products, so that nothing hides what storing has lost.
    half = (rng.choice([-1, 1], (1, 256)) + 1e-4 * rng.normal(size=(60, 256))).astype(np.float32)
    opposite = np.stack([half, -half], axis=1).reshape(120, 256)
    for rows in (clusters, opposite):
        assert violations(rows[:40], rows[40:], form, 0)[:2] == (0, 0)
    real = Format.bounds

    def bare(self: Format, depth: int, refined: bool = False) -> Bounds:
        bounds = real(self, depth, refined)
        return Bounds(0.0, 0.0, bounds.stretch, bounds.floor)

    monkeypatch.setattr(Format, "bounds", bare)
    broken = np.array([violations(rows[:40], rows[40:], form, 0)[:2] for rows in (clusters, opposite)])
    assert (broken.sum(axis=0) > 0).all()


# ----------------------------------------------------------------------------------------------- formats


def _stored(values: NDArray[np.float32], form: str) -> NDArray[Any]:
    """``values`` (n,) as rows of one value, centre 0, scale 1."""
    device = HostDevice(1)
    frame = Frame(device.upload(np.zeros(1)), 1.0)
    rows = frame.rows(device, uploaded(device, values[:, None]), form)
    return device.download(rows.values)[:, 0]


def _hard_values() -> NDArray[np.float32]:
    rng = np.random.default_rng(4)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)  # all finite ones
    middles = (halves[:-1] + halves[1:]) / 2  # exact in float32: ties
    beside = np.concatenate([np.nextafter(middles, np.float32(v)) for v in (-np.inf, np.inf)])
    wide = (rng.normal(size=3000) * 10.0 ** rng.uniform(-12, 4, 3000)).astype(np.float32)
    values = np.concatenate([halves[::7], middles[::7], beside[::5], wide])
    return np.concatenate([values, -values[:100]])


def test_fp16_is_rounded_to_nearest_even() -> None:
    values = _hard_values()
    same_bits(_stored(values, "fp16"), values.astype(np.float16).view(np.uint16))


def test_bf16_is_rounded_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = _hard_values()
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    same_bits(_stored(values, "bf16"), expected)


def test_tf32_is_rounded_to_nearest_even() -> None:
    values = _hard_values()
    # As fp16, whose fraction is as long, brought to where fp16 has its whole fraction and back.
    fraction, exponent = np.frexp(values)
    expected = np.ldexp(fraction.astype(np.float16).astype(np.float32), exponent)
    same_bits(_stored(values, "tf32"), expected)


@pytest.mark.parametrize("form", ["bf16", "tf32"])
def test_values_too_small_for_a_matrix_instruction_are_stored_as_zero(form: str) -> None:
    least = np.float32(2.0**-100)
    values = np.array([least, np.nextafter(least, np.float32(0)), 1e-38, 1e-42, 0.0], np.float32)
    stored = _stored(np.concatenate([values, -values]), form)
    kept = stored.view(np.uint32).astype(np.uint32) << 1 if form == "tf32" else stored.astype(np.uint32) << 17
    assert (kept != 0).tolist() == [True, False, False, False, False] * 2  # but for the sign


def test_rows_that_a_format_cannot_hold_have_no_bounds() -> None:
    values = np.array([1.0, 7e4, 1e11, 1e13, 3e38], np.float32)
    for form, usable in (("f32", 3), ("bf16", 3), ("tf32", 3), ("fp16", 1)):
        device = HostDevice(0)
        frame = Frame(device.upload(np.zeros(1)), 1.0)
        rows = frame.rows(device, uploaded(device, values[:, None]), form)
        assert rows.extra is not None
        assert np.isinf(device.download(rows.extra)).tolist() == [i >= usable for i in range(5)]
        assert (device.download(rows.low)[usable:] == np.float32(-1e30)).all()
        assert (device.download(rows.values)[usable:] == 0).all()


@pytest.mark.parametrize("form", FORMATS)
def test_formats_that_a_gpu_lacks_are_refused_before_a_launch(form: str) -> None:
    for capability in ((7, 5), (8, 0)):
        device = HostDevice(0, compute_capability=capability)
        for routes in ((Route(form), Route("f32")), (Route("f32"), Route(form))):
            if capability >= FORMATS[form].compute_capability:
                Search(device, *routes)
            else:
                with pytest.raises(BackendError, match=f"no matrix instructions of {form}.*8.0"):
                    Search(device, *routes)


# --------------------------------------------------------------------------------------------- selection


@few
@given(
    width=st.integers(1, 70), k=st.integers(1, 70), m=st.integers(1, 11), seed=st.integers(0, 1000), ties=st.booleans()
)
def test_kth_least(width: int, k: int, m: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4 if ties else 2**32, (m, width), dtype=np.uint32)
    device = HostDevice(seed % 4)
    reach = device.upload(np.full(m, 2**31, np.uint32))
    device.launch("kth_least", (2,), 256, (device.upload(values), np.int32(width), np.int32(k), np.int32(m), reach))
    expected = np.full(m, 2**31, np.uint32)
    if k <= width:
        expected = np.minimum(expected, np.sort(values, axis=1)[:, k - 1])
    same_bits(device.download(reach), expected)


def test_an_overflow_halves_the_range_and_says_so() -> None:
    rng = np.random.default_rng(5)
    rows, queries = gaussian(rng, 300, 40), gaussian(rng, 30, 40)
    launches = {}
    for capacity in (64, 1 << 14):
        options = backend.Options(route=Route("bf16", 64), head_route=Route("bf16", 64), heads=False, capacity=capacity)
        with backend.registered(backend.Case("x", options, 3)) as gpu:
            found = kernels.nearest(queries, rows, backend=backend.NAME)
            assert isinstance(gpu.device, HostDevice)
            launches[capacity] = gpu.device.launches.count("filter_bf16_64")
        same_bits(found.index, reference.nearest(queries, rows)[0])
    assert launches[1 << 14] == 1
    assert launches[64] > 1


def test_a_good_hint_keeps_the_list_short() -> None:
    rng = np.random.default_rng(16)
    queries, rows = gaussian(rng, 40, 64), gaussian(rng, 600, 64)
    options = backend.Options(route=Route("f32", 64), head_route=Route("f32", 64), heads=False, capacity=60)
    index, _ = reference.nearest(queries, rows)
    filters = []
    for hint in (None, index):
        with backend.registered(backend.Case("x", options, 2)) as gpu:
            found = kernels.nearest(queries, rows, hint=hint, backend=backend.NAME)
            assert isinstance(gpu.device, HostDevice)
            filters.append(gpu.device.launches.count("filter_f32_64"))
        same_bits(found.index, index)
    assert filters[0] > filters[1] == 1


def test_the_way_back_begins_from_what_is_known() -> None:
    rng = np.random.default_rng(17)
    rows = gaussian(rng, 150, 64)
    queries = (rows[rng.permutation(150)[:60]] + 0.01 * gaussian(rng, 60, 64)).astype(np.float32)
    options = backend.Options(route=Route("f32", 64), head_route=Route("f32", 64), heads=False, capacity=1 << 14)
    with backend.registered(backend.Case("x", options, 2)):
        forward = kernels.nearest(queries, rows, backend=backend.NAME).counts
        both = kernels.nearest_answered(queries, rows, backend=backend.NAME).counts
    assert forward is not None
    assert both is not None
    assert both.decided - forward.decided < 2 * 60  # of 3600 pairs: each row and the query that it knows


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("tile", TILES)
def test_a_subset_by_index_on_the_device(form: str, tile: int) -> None:
    rng = np.random.default_rng(7)
    rows, index = gaussian(rng, 70, 33), rng.integers(0, 70, 60)
    queries, chosen = gaussian(rng, 40, 33), rng.integers(0, 40, 31)
    device = HostDevice(tile + 1)
    search = Search(device, Route(form, tile), Route(form, tile), capacity=4096)
    frame = Frame.of_sample(device, rows)
    for directions in (None, Directions.of_sample(device, rows, frame.scale)):
        bank = DeviceRows(device.upload(rows), device.upload(index), 5, 50)
        own = DeviceRows(device.upload(queries), device.upload(chosen), 1, 30)
        piece = search.piece(frame, 0, bank, directions)
        answers = Answers.none(device, 30, frame)
        target = Target(frame, directions, 50, lambda piece=piece: [piece], piece)
        search.complete(target, own, answers, Counts.zero(device))
        found = device.empty(30, np.int64), device.empty(30, np.float32)
        search.finish(answers.best, answers.nearest, found)
        expected = reference.nearest(queries[chosen[1:31]], rows[index[5:55]])
        same_bits(device.download(found[0]), expected[0])
        same_bits(device.download(found[1]), expected[1])


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30), most=st.integers(1, 20))
def test_channels_come_in_runs_that_fit(lengths: list[int], most: int) -> None:
    starts = np.cumsum([0, *lengths])
    pieces = channel_pieces(starts, most)
    assert [p[0] for p in pieces] == [0, *(p[1] for p in pieces[:-1])]
    assert pieces[-1][1] == len(lengths)
    for first, stop in pieces:
        assert stop > first
        assert starts[stop] - starts[first] <= most or stop == first + 1


# --------------------------------------------------------------------------------------- maps and checks


@few
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sigma=st.sampled_from([0.0, 0.7, 5.0]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_maps_are_the_bits_of_the_cpu(
    grid: tuple[int, int], size: tuple[int, int], sigma: float, batch: int, seed: int
) -> None:
    scores = np.random.default_rng(seed).exponential(size=(batch, *grid)).astype(np.float32) ** 4
    scores[0, 0, 0] = np.inf if seed % 3 == 0 else -1.0
    device = HostDevice(seed % 4)
    maps, greatest = gpu_maps(device, scores, size, sigma)
    expected = np.stack([anomaly_map(one, size, sigma) for one in scores])
    same_bits(maps, expected)
    same_bits(greatest, expected.max(axis=(1, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_first_nonfinite_row(bad: float) -> None:
    rows = np.zeros((700, 37), np.float32)
    rows[300, 36] = rows[500, 0] = bad
    for index, expected in ((None, 300), (np.array([1, 500, 300], np.int64), 1), (np.arange(300), 2**64 - 1)):
        device = HostDevice(3)
        first = device.upload(np.array([2**64 - 1], np.uint64))
        held: DeviceArray | None = None if index is None else device.upload(index)
        count = len(rows) if index is None else len(index)
        device.launch(
            "first_nonfinite_row", (3,), 256, (device.upload(rows), held, np.int64(count), np.int32(37), first)
        )
        assert int(device.download(first)[0]) == expected


def test_every_kernel_is_launched_by_somebody() -> None:
    """What the engine never launches would be a kernel that no contract test sees."""
    text = "\n".join(path.read_text() for path in sorted((build.KERNELS.parents[2] / "inreach_fast").rglob("*.py")))
    forms = "|".join(FORMATS)
    for name in build.kernel_names():
        stem, form = re.subn(rf"_({forms})(_\d+)?$", "", name)
        assert (f'f"{stem}_{{' if form else f'"{name}"') in text, name


def test_the_list_of_kernels_names_each() -> None:
    told = (build.KERNELS / "README.md").read_text()
    for name in build.kernel_names():
        stem = re.sub(rf"_({'|'.join(FORMATS)})(_\d+)?$", "_{", name)
        assert f"`{stem}" in told or f"`{name}`" in told, name
