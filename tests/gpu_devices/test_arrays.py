"""Arrays that are on a GPU, in and out without a copy. GPUs are the host executor, and torch's CPU tensors stand for
tensors on the first one, so that all runs but torch.cuda itself."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import numpy as np
import pytest
import reference
import torch
from gpu_fakes.gpus import HostGpu, OrderedGpu
from kernel_cases import FAMILIES, same_bits

from inreach_fast import errors, kernels
from inreach_fast.kernels import registry
from inreach_fast.kernels.gpu import arrays as on_gpu
from inreach_fast.kernels.gpu import backends as gpu_backends
from inreach_fast.kernels.gpu.backend import GpuBackend
from inreach_fast.kernels.gpu.devices import interop


def _tensors(*arrays: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(a)) for a in arrays]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kept", [False, True])
def test_searches_are_the_reference_and_tensors_come_back(host_gpus: list[HostGpu], family: Any, kept: bool) -> None:
    rng = np.random.default_rng(1)
    q, b = family(rng, 11, 35), family(rng, 130, 35)
    q_group, b_group = np.arange(11) % 3, np.arange(130) % 3
    queries, bank = _tensors(q, b)
    if kept:
        bank = kernels.Bank(bank)
        assert bank.gpu is not None
    for k in (1, 4):
        found = kernels.nearest(queries, bank, k=k, query_group=q_group, bank_group=b_group)
        index, distance = reference.nearest(q, b, k, q_group, b_group)
        assert isinstance(found.index, torch.Tensor)
        same_bits(found.index.numpy(), index)
        same_bits(found.sq_distance.numpy(), distance)
    mutual = kernels.mutual_nearest(queries, bank)
    ab, ab_distance, ba, ba_distance = reference.mutual_nearest(q, b)
    for ours, theirs in (
        (mutual.ab_index, ab), (mutual.ab_sq_distance, ab_distance), (mutual.ba_index, ba),
        (mutual.ba_sq_distance, ba_distance),
    ):  # fmt: skip
        same_bits(ours.numpy(), theirs)
    pairs = [x.numpy() for x in mutual.pairs()]
    for ours, theirs in zip(pairs, reference.mutual_pairs(ab, ba), strict=True):
        same_bits(ours, theirs)
    answered = kernels.nearest_answered(queries, bank, query_group=q_group, bank_group=b_group)
    on_cpu = kernels.nearest_answered(q, b, query_group=q_group, bank_group=b_group)
    same_bits(answered.index.numpy(), on_cpu.index)
    same_bits(answered.answered.numpy(), on_cpu.answered)
    assert "decide" in host_gpus[0].launches
    assert not host_gpus[1].launches


def test_rows_are_read_in_place(host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = torch.randn(5, 40), torch.randn(64, 40)
    seen: set[int] = set()
    launch = HostGpu.launch

    def spy(gpu: HostGpu, kernel: str, grid: Any, block: int, arguments: Any, stream: int) -> None:
        seen.update(a for a in arguments if isinstance(a, int))
        launch(gpu, kernel, grid, block, arguments, stream)

    monkeypatch.setattr(HostGpu, "launch", spy)
    found = kernels.nearest(queries, bank)
    assert {queries.data_ptr(), bank.data_ptr()} <= seen  # rows in
    assert {found.index.data_ptr(), found.sq_distance.data_ptr()} <= seen  # answers out


def test_rows_of_a_bank_on_the_gpu_stay_where_they_are(
    host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bank that is kept is read in place as well: it neither visits the CPU nor lies on the GPU twice."""
    rows = torch.randn(6000, 136)
    bank, seen, uploads = kernels.Bank(rows), set(), []
    launch = HostGpu.launch

    def spy(gpu: HostGpu, kernel: str, grid: Any, block: int, arguments: Any, stream: int) -> None:
        seen.update((kernel, a) for a in arguments if isinstance(a, int))
        launch(gpu, kernel, grid, block, arguments, stream)

    monkeypatch.setattr(HostGpu, "launch", spy)
    host_gpus[0].uploads = uploads.append
    found = kernels.nearest(rows[:3].clone(), bank)
    assert found.index.tolist() == [0, 1, 2]
    assert {("frame_rows_f32", rows.data_ptr()), ("decide", rows.data_ptr())} <= seen
    assert sum(uploads) < rows.nbytes / 8


def test_what_the_callers_stream_reads_is_its_own_or_waited_for(
    ordered_gpu: OrderedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    level = rng.normal(size=(1, 5, 6, 7)).astype(np.float32)
    q, b = rng.normal(size=(9, 24)).astype(np.float32), rng.normal(size=(80, 24)).astype(np.float32)
    monkeypatch.setattr(interop.TorchLibrary, "stream", lambda self, ordinal: 77)
    call = on_gpu.call_for("cuda", torch.from_numpy(level))
    from inreach_fast.kernels.describing import make_plan

    assert isinstance(call, on_gpu.Call)
    found = call.describe(_tensors(level), make_plan(((5, 6, 7),), (6, 7), 24, 3))
    same_bits(found.numpy(), kernels.describe([level], grid=(6, 7), dim=24))
    for bank in (kernels.Bank(b), kernels.Bank(torch.from_numpy(b))):
        same_bits(kernels.nearest(torch.from_numpy(q), bank).index.numpy(), reference.nearest(q, b)[0])
    assert 77 in ordered_gpu.streams


@pytest.mark.parametrize("on_the_gpu", [False, True])
def test_a_call_waits_once(host_gpus: list[HostGpu], on_the_gpu: bool) -> None:
    rng = np.random.default_rng(8)
    queries, rows = (rng.normal(size=(n, 40)).astype(np.float32) for n in (30, 200))
    bank, gpu = kernels.Bank(torch.from_numpy(rows) if on_the_gpu else rows), host_gpus[0]
    kernels.nearest(torch.from_numpy(queries), bank)  # prepares it
    for call in (
        lambda q: kernels.nearest(q, bank),
        lambda q: kernels.nearest(q, bank, hint=np.zeros(30, np.int64)),
        lambda q: kernels.nearest_bounds(q, bank),
        lambda q: kernels.nearest_answered(q, bank),
        lambda q: kernels.mutual_nearest(q, bank),
    ):
        before = gpu.waits
        call(torch.from_numpy(queries))
        assert gpu.waits - before == 1
        with pytest.raises(errors.NonFiniteError, match="row 4 "):
            call(torch.from_numpy(np.where(np.arange(30)[:, None] == 4, np.nan, queries).astype(np.float32)))
    if on_the_gpu:
        return
    for call in (
        lambda: kernels.nearest(queries, bank, backend="cuda:0"),
        lambda: kernels.nearest_answered(queries, bank, backend="cuda:0"),
        lambda: kernels.mutual_nearest(queries, bank, backend="cuda:0"),
    ):
        before = gpu.waits
        call()
        assert gpu.waits - before == 1


def test_hints_on_a_gpu_that_name_no_row_are_passed_over(host_gpus: list[HostGpu]) -> None:
    rng = np.random.default_rng(9)
    q, b = (rng.normal(size=(n, 24)).astype(np.float32) for n in (9, 50))
    hint = torch.from_numpy(np.array([-7, -1, 0, 49, 50, 2**40, -(2**40), 3, 3], np.int64))
    found = kernels.nearest(torch.from_numpy(q), torch.from_numpy(b), hint=hint)
    same_bits(found.index.numpy(), reference.nearest(q, b)[0])
    with pytest.raises(errors.ParameterError, match="hint: expected 9 entries"):
        kernels.nearest(torch.from_numpy(q), torch.from_numpy(b), hint=hint[:3])
    with pytest.raises(errors.ParameterError, match=r"hint: entries must lie in"):
        kernels.nearest(torch.from_numpy(q), torch.from_numpy(b), hint=[50] * 9)


def test_describe_reads_any_strides_in_place(host_gpus: list[HostGpu]) -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 6, 7), (2, 9, 3, 4))]
    levels = _tensors(*arrays)
    levels[0] = levels[0].contiguous(memory_format=torch.channels_last)
    levels[1] = torch.from_numpy(np.repeat(arrays[1], 2, axis=3))[..., ::2]
    # torch's CPU tensors count as the CPU's own here, so that the call is made as nearest makes it.
    call = on_gpu.call_for("cuda", levels[0])
    from inreach_fast.kernels.describing import make_plan

    plan = make_plan(((5, 6, 7), (9, 3, 4)), (6, 7), 24, 3)
    assert isinstance(call, on_gpu.Call)
    same_bits(call.describe(levels, plan).numpy(), kernels.describe(arrays, grid=(6, 7), dim=24))


def test_members_are_filtered_where_they_are(host_gpus: list[HostGpu]) -> None:
    rng = np.random.default_rng(10)
    members, channel = rng.normal(size=(300, 20)).astype(np.float32), rng.integers(-1, 30, 400)
    rows = rng.integers(0, 300, 400)
    sizes: list[int] = []
    host_gpus[0].uploads = sizes.append
    ours, theirs = (
        kernels.filter_channels(held, channel, min_length=3, max_std=1.5, rows=rows)
        for held in (torch.from_numpy(members), members)
    )
    for name in ("keep", "channels", "length", "sigma"):
        same_bits(getattr(ours, name), getattr(theirs, name))
    assert "channel_mean" in host_gpus[0].launches
    assert members.nbytes not in sizes
    whole = kernels.filter_channels(torch.from_numpy(members), channel[:300], min_length=1, max_std=None)
    same_bits(whole.keep, kernels.filter_channels(members, channel[:300], min_length=1, max_std=None).keep)
    assert not kernels.filter_channels(torch.from_numpy(members), [-1] * 300, min_length=1, max_std=1.0).keep.any()
    members[7, 3] = np.nan
    messages = []
    for held in (torch.from_numpy(members), members):
        kernels.filter_channels(held, np.where(np.arange(300) == 7, -1, 1), min_length=1, max_std=1.0)  # in no channel
        with pytest.raises(errors.NonFiniteError) as caught:
            kernels.filter_channels(held, np.arange(300) // 2, min_length=1, max_std=1.0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    with pytest.raises(errors.ParameterError, match="members: expected float32"):
        kernels.filter_channels(torch.from_numpy(members).double(), channel[:300], min_length=1, max_std=1.0)


def test_a_bank_in_memory_is_uploaded_once(host_gpus: list[HostGpu]) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 24)).astype(np.float32)
    bank = kernels.Bank(rows)
    index, _ = reference.nearest(rows[:4], rows, 1)
    for _ in range(3):
        found = kernels.nearest(torch.from_numpy(rows[:4].copy()), bank)
        same_bits(found.index.numpy(), index)
    # Frames of the bank's 300 rows once, of the queries three times.
    assert sum(name.startswith("frame_rows") for name in host_gpus[0].launches) == 4


def test_float16_is_taken_and_what_does_not_fit_is_refused(host_gpus: list[HostGpu]) -> None:
    half = torch.randn(6, 16).half()
    found = kernels.nearest(half, half.float())
    assert found.index.tolist() == list(range(6))
    with pytest.raises(errors.ParameterError, match=r"queries: expected float32, got torch.float64"):
        kernels.nearest(half.double(), half.float())
    with pytest.raises(errors.ParameterError, match=r"queries: expected an array of 2 dimensions"):
        kernels.nearest(half.float()[0], half.float())
    with pytest.raises(errors.MixedSizesError):
        kernels.nearest(half.float(), half.float()[:, :3])


def test_arrays_on_two_devices_are_told(host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(6, 16)
    with pytest.raises(errors.DeviceMismatchError, match=r"bank: in the CPU's memory.*GPU 0"):
        kernels.nearest(rows, rows.numpy())
    with pytest.raises(errors.DeviceMismatchError, match="does not name GPU 0"):
        kernels.nearest(rows, rows, backend="cuda:1")
    other = torch.randn(6, 16)
    ordinal = interop.TorchLibrary.ordinal
    monkeypatch.setattr(
        interop.TorchLibrary, "ordinal", lambda self, x: 1 if x.data_ptr() == other.data_ptr() else ordinal(self, x)
    )
    with pytest.raises(errors.DeviceMismatchError, match=r"bank: on GPU 1.*GPU 0"):
        kernels.nearest(rows, other)


def test_rows_that_are_not_finite_are_named(host_gpus: list[HostGpu]) -> None:
    rows = torch.randn(40, 16)
    bad = rows.clone()
    bad[17, 3] = float("nan")
    bad[30, 0] = float("inf")
    with pytest.raises(errors.NonFiniteError, match="bank: row 17"):
        kernels.nearest(rows, bad)
    with pytest.raises(errors.NonFiniteError, match="queries: row 17"):
        kernels.nearest(bad, rows)
    good = kernels.Bank(bad, index=[1, 2, 3])
    assert kernels.nearest(rows[2:3], good).index.tolist() == [1]


def test_banks_on_a_gpu_travel_and_serve_the_cpu(host_gpus: list[HostGpu]) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(50, 8)).astype(np.float32)
    bank = kernels.Bank(torch.from_numpy(rows), np.arange(50) % 2, index=np.arange(49, -1, -1))
    copy = pickle.loads(pickle.dumps(bank))
    assert copy.gpu is None
    expected = kernels.nearest(rows[:5], copy, query_group=[0] * 5)
    found = kernels.nearest(torch.from_numpy(rows[:5]), bank, query_group=[0] * 5)
    same_bits(found.index.numpy(), expected.index)
    native = kernels.nearest(torch.from_numpy(rows[:5]), bank, query_group=[0] * 5, backend=registry.auto_backend())
    same_bits(native.index, expected.index)


def test_the_callers_stream_carries_all_work(host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interop.TorchLibrary, "stream", lambda self, ordinal: 77)
    rows = torch.randn(6, 16)
    kernels.nearest(rows, rows)
    assert host_gpus[0].streams == {77}


@pytest.mark.parametrize("code", [2, 35, 100, 209])
def test_auto_falls_back_to_the_cpu_with_one_line(
    host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    from inreach_fast.kernels.gpu.devices.driver_errors import gpu_error

    def refuse(*name: Any) -> Any:
        raise gpu_error(code, f"FAKE_ERROR_{code}")

    registry.warn_once.cache_clear()
    monkeypatch.setattr(on_gpu, "one_gpu", refuse)
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(20, 8)).astype(np.float32)
    queries, bank = _tensors(rows[:7], rows)
    with caplog.at_level(logging.WARNING, logger="inreach_fast"):
        for _ in range(2):
            found = kernels.nearest(queries, bank, k=2)
            mutual = kernels.mutual_nearest(queries, kernels.Bank(bank))
    assert isinstance(found.index, torch.Tensor)
    same_bits(found.index.numpy(), reference.nearest(rows[:7], rows, 2)[0])
    same_bits(mutual.ab_index.numpy(), np.arange(7))
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert f"FAKE_ERROR_{code}" in lines[0]
    assert "on the CPU instead" in lines[0]
    with pytest.raises(errors.GpuError):
        kernels.nearest(queries, bank, backend="cuda")


@pytest.mark.parametrize(("code", "falls_back"), [(35, True), (209, True), (719, False), (999, False)])
def test_the_kernels_beside_a_network_on_a_gpu(
    host_gpus: list[HostGpu],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    falls_back: bool,
) -> None:
    from inreach_fast.kernels.gpu.devices.driver_errors import gpu_error

    assert registry.backend_for("auto", "cuda") == "cuda"
    assert registry.backend_for("auto", "cuda:1") == "cuda:1"

    def refuse(name: str) -> Any:
        raise gpu_error(code, f"FAKE_ERROR_{code}")

    registry.warn_once.cache_clear()
    monkeypatch.setattr(registry, "gpu_backend", refuse)
    if falls_back:
        assert [registry.backend_for("auto", "cuda") for _ in range(2)] == ["auto", "auto"]
        assert [f"FAKE_ERROR_{code}" in r.getMessage() for r in caplog.records] == [True]
    else:
        with pytest.raises(errors.GpuLostError, match="new process"):
            registry.backend_for("auto", "cuda")


def test_a_lost_gpu_is_not_papered_over(host_gpus: list[HostGpu]) -> None:
    rows = torch.randn(6, 16)
    host_gpus[0].fails["launch"] = 700
    with pytest.raises(errors.GpuLostError, match="new process"):
        kernels.nearest(rows, rows)


def test_memory_that_does_not_suffice_for_a_call(host_gpus: list[HostGpu]) -> None:
    assert isinstance(gpu_backends.gpu_backend("cuda:0"), GpuBackend)
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(2000, 64)).astype(np.float32)
    host_gpus[0].limit = 400_000  # the bank alone has 512,000 bytes
    found = kernels.nearest(rows[:5], rows, backend="cuda")
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    for bank in (rows, kernels.Bank(rows)):
        answered = kernels.nearest_answered(rows[:5], bank, backend="cuda")
        assert answered.answered.all()
    # Of arrays that are on the GPU, where a call's memory comes from elsewhere.
    queries = torch.from_numpy(rows[:5].copy())
    answered = kernels.nearest_answered(queries, kernels.Bank(rows))
    assert answered.index.tolist() == [0, 1, 2, 3, 4]
    assert answered.answered.all()
    assert host_gpus[0].used <= host_gpus[0].limit


class _Dlpack:
    """An array of no library that is known, with DLPack alone."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __dlpack__(self, **named: Any) -> Any:
        return self.array.__dlpack__(**named)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_levels_of_any_library_are_described(host_gpus: list[HostGpu]) -> None:
    """Their memory is theirs again when the call returns, so that it waits; torch's is in the order of the stream."""
    from inreach_fast.kernels.describing import make_plan

    level = np.random.default_rng(2).normal(size=(1, 5, 6, 7)).astype(np.float32)
    call, plan = on_gpu.call_for("cuda", torch.from_numpy(level)), make_plan(((5, 6, 7),), (6, 7), 24, 3)
    expected = kernels.describe([level], grid=(6, 7), dim=24)
    assert isinstance(call, on_gpu.Call)
    call.describe(_tensors(level), plan)  # makes the tables
    for given, waits in ((torch.from_numpy(level), 0), (_Dlpack(level), 1)):
        before = host_gpus[0].waits
        same_bits(call.describe([given], plan).numpy(), expected)
        assert host_gpus[0].waits - before == waits


def test_anything_with_dlpack_is_taken() -> None:
    rows = np.random.default_rng(7).normal(size=(9, 4)).astype(np.float32)
    found = kernels.nearest(_Dlpack(rows), kernels.Bank(_Dlpack(rows)))
    assert found.index.tolist() == list(range(9))
