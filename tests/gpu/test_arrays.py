"""Arrays on a GPU, in and out without a copy, on the caller's stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from kernel_cases import same_bits

from inreach_fast import errors, kernels
from inreach_fast.kernels.gpu.device import Device

pytestmark = pytest.mark.gpu


def _rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_torch_in_torch_out(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    q, b = _rows(50, 96), _rows(900, 96, seed=1)
    queries, bank = (torch.from_numpy(x).to(cuda) for x in (q, b))
    addresses: set[int] = set()
    launch = Device.launch

    def spy(self: Device, kernel: str, grid: Any, block: int, arguments: Any) -> None:
        addresses.update(a.address for a in arguments if hasattr(a, "address"))
        launch(self, kernel, grid, block, arguments)

    monkeypatch.setattr(Device, "launch", spy)
    for k in (1, 5):
        found = kernels.nearest(queries, bank, k=k)
        index, distance = reference.nearest(q, b, k)
        assert found.index.device.type == "cuda"
        same_bits(found.index.cpu().numpy(), index)
        same_bits(found.sq_distance.cpu().numpy(), distance)
    assert {queries.data_ptr(), bank.data_ptr(), found.index.data_ptr()} <= addresses


def test_work_is_in_the_order_of_the_current_stream(cuda: str) -> None:
    import torch

    stream = torch.cuda.Stream()
    rows = torch.zeros((2000, 128), device=cuda)
    truth = torch.from_numpy(_rows(2000, 128)).to(cuda)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # whoever does not wait for this stream reads zeros
        rows.copy_(truth)
        found = kernels.nearest(rows[:64], rows)
        assert found.index.tolist() == list(range(64))


def test_cupy_in_cupy_out(cuda: str) -> None:
    cupy = pytest.importorskip("cupy", reason="NO CUPY: its arrays were not tried")
    q, b = _rows(20, 64), _rows(300, 64, seed=1)
    with cupy.cuda.Stream(non_blocking=True):
        found = kernels.nearest(cupy.asarray(q), kernels.Bank(cupy.asarray(b)))
        assert isinstance(found.index, cupy.ndarray)
        same_bits(cupy.asnumpy(found.index), reference.nearest(q, b, 1)[0])


def test_levels_of_a_network_are_described_where_they_are(cuda: str) -> None:
    import torch

    arrays = [_rows(1, 24, 28, 28), _rows(1, 32, 14, 14)]
    levels = [torch.from_numpy(x).to(cuda).contiguous(memory_format=torch.channels_last) for x in arrays]
    found = kernels.describe(levels, grid=(28, 28), dim=64)
    assert found.device.type == "cuda"
    same_bits(found.cpu().numpy(), kernels.describe(arrays, grid=(28, 28), dim=64))


def test_members_are_filtered_where_they_are(cuda: str) -> None:
    import torch

    members, channel = _rows(500, 64), np.random.default_rng(1).integers(-1, 40, 500)
    ours, theirs = (
        kernels.filter_channels(held, channel, min_length=3, max_std=1.5)
        for held in (torch.from_numpy(members).to(cuda), members)
    )
    same_bits(ours.keep, theirs.keep)
    same_bits(ours.sigma, theirs.sigma)


def test_rows_whose_values_are_more_than_32_bits_count(cuda: str) -> None:
    import torch

    count, dim = (1 << 21) + 1000, 1024
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("A SMALL GPU: no bank of more than 2^31 values was searched")
    rows = torch.empty((count, dim), device=cuda)
    generator = torch.Generator(cuda).manual_seed(0)
    for part in rows.split(1 << 17):
        part.normal_(generator=generator)
    wanted = torch.tensor([0, 1, 77, (1 << 20) + 3, (1 << 21) - 1, 1 << 21, (1 << 21) + 1, count - 2, count - 1])
    queries = rows[wanted.to(cuda)]
    for bank in (rows, kernels.Bank(rows)):  # read in place, without leading directions and with them
        for k in (1, 2):
            found = kernels.nearest(queries, bank, k=k)
            assert found.index.reshape(len(wanted), k)[:, 0].tolist() == wanted.tolist()
            assert not found.sq_distance.reshape(len(wanted), k)[:, 0].any()
    torch.cuda.empty_cache()


def test_mixed_devices_are_told(cuda: str) -> None:
    import torch

    rows = torch.from_numpy(_rows(5, 8))
    with pytest.raises(errors.DeviceMismatchError):
        kernels.nearest(rows.to(cuda), rows)


def test_too_much_for_the_gpu_is_streamed(backend: str) -> None:
    from dataclasses import replace

    from inreach_fast.kernels.gpu import backends as gpu_backends

    opened: Any = gpu_backends.gpu_backend(f"{backend}:0")
    before = opened.options
    q, b = _rows(100, 256), _rows(40_000, 256, seed=1)
    expected = kernels.nearest(q, b)
    try:
        opened.options = replace(before, memory_limit=5_000_000)
        found = kernels.nearest(q, b, backend=f"{backend}:0")
    finally:
        opened.options = before
    same_bits(found.index, expected.index)
    same_bits(found.sq_distance, expected.sq_distance)
