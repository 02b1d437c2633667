"""A fit whose network and kernels are on a GPU: descriptors stay there, within a limit, and the model is the CPU's.

GPUs are the host executor; torch's CPU tensors stand for tensors on the first one.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_fakes.gpus import HostGpu
from small_fits import estimator, pictures, saved, tiny_backbone

import inreach_fast
from inreach_fast import errors, kernels
from inreach_fast.evaluation.feature_cache import CachedDescriber, FeatureCache
from inreach_fast.kernels import describing
from inreach_fast.kernels.gpu.devices import limit
from inreach_fast.method import descriptors
from inreach_fast.method.association import Associator, members_of

SETTINGS: dict[str, Any] = {"min_channel_length": 1, "threshold_images": 2, "backend": "cuda:0"}
PATCHES = 64


@pytest.fixture
def gpu(host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch) -> HostGpu:
    """The first GPU; what the network gives lies on it, and nothing is held there yet."""
    monkeypatch.setattr(describing, "_device", lambda level: "cuda:0" if hasattr(level, "detach") else "cpu")
    gc.collect()  # what earlier tests held goes now, not in between
    monkeypatch.setattr(limit.LEDGER, "_held", type(limit.LEDGER._held)(int))
    monkeypatch.setattr(limit.LEDGER, "limit", None)
    limit.LEDGER._gone.clear()
    return host_gpus[0]


@pytest.mark.parametrize("position", ["never", "always"])
@pytest.mark.parametrize("pairs", ["all", "later"])
def test_the_model_is_the_cpus_byte_for_byte(gpu: HostGpu, tmp_path: Path, position: str, pairs: str) -> None:
    images, given = pictures(6), {**SETTINGS, "position": position, "assoc_pairs": pairs}
    there = estimator(**given).fit(images[:5])
    assert "ask_back" in gpu.launches
    assert "describe_write" in gpu.launches
    here = estimator(**{**given, "backend": "auto"}).fit(images[:5])
    there.parameters = there.parameters.with_changes(backend="auto")  # the one thing that the files may differ in
    assert saved(there, tmp_path) == saved(here, tmp_path)
    there.parameters = there.parameters.with_changes(backend="cuda:0")
    there.partial_fit(images[5:])
    there.parameters = there.parameters.with_changes(backend="auto")
    assert saved(there, tmp_path) == saved(here.partial_fit(images[5:]), tmp_path)


def test_only_rows_that_are_kept_leave_the_gpu(gpu: HostGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    crossed: list[tuple[int, ...]] = []
    brought = descriptors.in_memory

    def spy(rows: Any, *numbers: Any) -> Any:
        found = brought(rows, *numbers)
        if not isinstance(rows, np.ndarray):
            crossed.append(found.shape)
        return found

    seeds, images = torch.randn(2, PATCHES, 24), torch.randn(5, PATCHES, 24)
    associator = Associator(np.array([0, 1]), seeds.numpy(), backend="cuda:0")
    for module in ("method.association", "method.descriptors"):
        monkeypatch.setattr(f"inreach_fast.{module}.in_memory", spy)
    uploaded: list[int] = []
    gpu.uploads = uploaded.append
    first = members_of(associator, 5, images[0], is_seed=False, whole=False)
    assert uploaded.count(2 * PATCHES * 24 * 4) == 1  # the seeds' rows, once
    uploaded.clear()
    crossed.clear()
    for number, rows in enumerate(images[1:]):
        found = members_of(associator, 6 + number, rows, is_seed=False, whole=False)
        assert 0 < len(found.patch) < PATCHES
        assert crossed == [(PATCHES,), (PATCHES,), (len(found.patch), 24)]  # answered, index, members
        assert max(uploaded) <= 2 * PATCHES * 8  # groups: no descriptor goes to the GPU
        crossed.clear()
    host = Associator(np.array([0, 1]), seeds.numpy())
    theirs = members_of(host, 5, images[0].numpy(), is_seed=False, whole=True)
    ours = members_of(associator, 5, images[0], is_seed=False, whole=True)
    for name in ("patch", "joined", "rows", "rest"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(first.rows, theirs.rows)


def test_a_cache_before_the_network_is_asked(gpu: HostGpu, tmp_path: Path) -> None:
    model, cache = estimator(**SETTINGS), FeatureCache(tmp_path)
    model._describer = CachedDescriber(model._describer, cache)
    model.fit(pictures(5))
    assert cache.misses >= 5


def test_features_that_are_not_finite_name_their_image(gpu: HostGpu) -> None:
    backbone, images = tiny_backbone(), pictures(5)
    run, seen = backbone._network.forward, []

    def poisoned(x: Any) -> Any:
        levels = run(x)
        seen.append(1)
        if len(seen) == 5:  # two seeds first, then the others in their order
            levels[0][0, 0, 1, 1] = float("nan")
        return levels

    backbone._network.forward = poisoned  # type: ignore[method-assign]
    with pytest.raises(errors.NonFiniteError, match=r"images\[\d\]"):
        estimator(backbone=backbone, **SETTINGS).fit(images)


# ------------------------------------------------------------------------------------------- the memory limit


def _peak(gpu: HostGpu, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    peak = [0]
    take = limit.Ledger.take

    def spy(self: Any, ordinal: int, nbytes: int, name: str) -> None:
        take(self, ordinal, nbytes, name)
        peak[0] = max(peak[0], self.held(0))

    monkeypatch.setattr(limit.Ledger, "take", spy)
    return peak


def test_a_fit_within_a_limit_is_the_same_fit(gpu: HostGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, peak = pictures(5), _peak(gpu, monkeypatch)
    whole = saved(estimator(**SETTINGS).fit(images), tmp_path)
    free = peak[0]
    for share in (0.6, 0.25):
        allowed = int(share * free)
        peak[0] = 0
        inreach_fast.set_gpu_memory_limit(allowed)
        model = estimator(**SETTINGS).fit(images)
        assert saved(model, tmp_path) == whole
        assert peak[0] <= allowed


def test_a_bank_beyond_the_limit_is_streamed(gpu: HostGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    inreach_fast.set_gpu_memory_limit(rows.nbytes // 2)
    peak = _peak(gpu, monkeypatch)
    bank = kernels.Bank(rows)
    found = kernels.nearest_answered(torch.from_numpy(rows[:9].copy()), bank)
    assert found.index.tolist() == list(range(9))
    assert found.answered.all()
    assert 0 < peak[0] <= rows.nbytes // 2


def test_filters_of_more_members_than_fit_are_the_same(gpu: HostGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    members, channel = rng.normal(size=(2000, 40)).astype(np.float32), rng.integers(-1, 90, 2000)
    inreach_fast.set_gpu_memory_limit(members.nbytes // 2)
    peak = _peak(gpu, monkeypatch)
    ours, theirs = (
        kernels.filter_channels(members, channel, min_length=3, max_std=1.5, backend=b) for b in ("cuda:0", "auto")
    )
    assert 0 < peak[0] <= members.nbytes // 2
    np.testing.assert_array_equal(ours.keep, theirs.keep)
    np.testing.assert_array_equal(ours.sigma, theirs.sigma)


def test_memory_is_counted_until_it_goes(gpu: HostGpu) -> None:
    inreach_fast.set_gpu_memory_limit("1MB")
    rows = np.random.default_rng(1).normal(size=(400, 32)).astype(np.float32)
    bank = kernels.Bank(rows)
    for _ in range(3):
        kernels.nearest(rows[:5], bank, backend="cuda:0")
    assert 400 * 32 * 4 <= limit.LEDGER.held(0) < 400 * 32 * 4 * 3  # the bank and what was made of it
    del bank
    assert limit.LEDGER.held(0) == 0
    gpu.fails["allocate"] = 2
    with pytest.raises(errors.GpuMemoryError):
        kernels.nearest(rows[:5], rows, backend="cuda:0")
    gc.collect()  # the error and its traceback hold each other
    assert limit.LEDGER.held(0) == 0


def test_what_does_not_fit_at_all_says_so(gpu: HostGpu) -> None:
    inreach_fast.set_gpu_memory_limit(2000)
    rows = np.zeros((50, 64), np.float32)
    with pytest.raises(errors.GpuMemoryError, match=r"limit of 2.0 kB; raise it \(set_gpu_memory_limit\)"):
        kernels.nearest(rows, rows, backend="cuda:0")


@pytest.mark.parametrize("wrong", ["much", 0, -1, True, 2.5])
def test_a_limit_that_is_none(gpu: HostGpu, wrong: Any) -> None:
    with pytest.raises(errors.ParameterError, match="set_gpu_memory_limit"):
        inreach_fast.set_gpu_memory_limit(wrong)
    assert inreach_fast.get_gpu_memory_limit() is None


def test_the_environment_sets_the_limit() -> None:
    code = "import inreach_fast; print(inreach_fast.get_gpu_memory_limit())"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, env={"INREACH_GPU_MEMORY_LIMIT": "2 GB"}, capture_output=True).stdout.strip() == (
        b"2000000000"
    )
    failed = subprocess.run(run, env={"INREACH_GPU_MEMORY_LIMIT": "lots"}, capture_output=True)
    assert b"INREACH_GPU_MEMORY_LIMIT: expected bytes" in failed.stderr
