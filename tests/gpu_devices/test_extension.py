"""The extension `inreach_fast._cuda` on a stand-in for the driver, whose GPUs are the host executor."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator

import cuda_host.build
import numpy as np
import pytest
import reference
from gpu_fakes import build
from kernel_cases import FAMILIES, Engine, check_mutual, check_nearest

import inreach_fast
from inreach_fast import errors, kernels
from inreach_fast.kernels import registry
from inreach_fast.kernels.gpu import backends as gpu_backends
from inreach_fast.kernels.gpu.devices import driver_errors, opening, probe

pytestmark = pytest.mark.skipif(cuda_host.build.compiler() is None, reason="NO C++ COMPILER: the extension was not run")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """A driver with two GPUs, the extension on it, and nothing remembered from before or for after."""
    library = build.open_driver(gpus=2)
    monkeypatch.setenv("INREACH_LIBCUDA", str(build.fake_driver()))
    module = build.load_extension(build.extension())
    monkeypatch.setitem(__import__("sys").modules, "inreach_fast._cuda", module)
    monkeypatch.setattr(inreach_fast, "_cuda", module, raising=False)
    monkeypatch.setattr(opening, "_FATBIN", build.HERE / "fatbin")
    monkeypatch.setattr(opening, "_opened", {})
    monkeypatch.setattr(gpu_backends, "_single", {})
    registry._found.cache_clear()
    probe._library.cache_clear()
    yield library
    for function in _FUNCTIONS:
        library.fake_fail(function.encode(), 0)
    registry._found.cache_clear()
    probe._library.cache_clear()


_FUNCTIONS = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuMemAlloc_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuLaunchKernel",
    "cuStreamSynchronize",
]


def test_the_backend_is_there_and_not_taken_by_auto(driver: ctypes.CDLL) -> None:
    assert "cuda" in kernels.available_backends()
    assert registry.auto_backend() != "cuda"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_searches_are_the_reference(driver: ctypes.CDLL, family) -> None:
    rng = np.random.default_rng(3)
    queries, bank = family(rng, 9, 37), family(rng, 140, 37)
    for backend in ("cuda", "cuda:1", "cuda:0,1"):
        check_nearest(Engine(backend), queries, bank)
        check_nearest(Engine(backend), queries, bank, 3, np.arange(9) % 3, np.arange(140) % 3)
        check_mutual(Engine(backend), queries, bank)
    assert driver.fake_launches() > 0


def test_descriptors_and_spread_are_the_cpus(driver: ctypes.CDLL) -> None:
    rng = np.random.default_rng(4)
    levels = [rng.normal(size=shape).astype(np.float32) for shape in ((5, 6, 7), (9, 3, 4))]
    for backend in ("cuda", "cuda:all"):
        np.testing.assert_array_equal(
            kernels.describe(levels, grid=(6, 7), dim=24, backend=backend),
            kernels.describe(levels, grid=(6, 7), dim=24),
        )
        members, channel = rng.normal(size=(60, 13)).astype(np.float32), rng.integers(-1, 6, 60)
        ours, theirs = (
            kernels.filter_channels(members, channel, min_length=3, max_std=2.0, backend=b) for b in (backend, "auto")
        )
        np.testing.assert_array_equal(ours.keep, theirs.keep)
        np.testing.assert_array_equal(ours.sigma, theirs.sigma)


def test_memory_is_given_back_and_contexts_are_the_callers_again(driver: ctypes.CDLL) -> None:
    bank = kernels.Bank(np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32))
    kernels.nearest(bank.rows[:5], bank, backend="cuda")
    gc.collect()
    kept = driver.fake_used()
    assert 200 * 16 * 4 <= kept < 10 * 200 * 16 * 4  # the bank stays, work space does not
    del bank
    gc.collect()
    assert driver.fake_used() < 200 * 16 * 4
    assert driver.fake_depth() == 0


# function -> when it is called, for every code a call can fail with
@pytest.mark.parametrize(
    ("function", "code", "kind"),
    [
        ("cuInit", 100, errors.GpuUnavailableError),
        ("cuInit", 803, errors.GpuUnavailableError),
        ("cuDeviceGetCount", 3, errors.GpuError),
        ("cuDevicePrimaryCtxRetain", 46, errors.GpuUnavailableError),
        ("cuDevicePrimaryCtxRetain", 2, errors.GpuMemoryError),
        ("cuModuleLoadData", 209, errors.GpuUnavailableError),
        ("cuModuleLoadData", 222, errors.GpuUnavailableError),
        ("cuModuleGetFunction", 500, errors.GpuError),
        ("cuMemAlloc_v2", 2, errors.GpuMemoryError),
        ("cuMemGetInfo_v2", 999, errors.GpuLostError),
        ("cuMemcpyHtoDAsync_v2", 700, errors.GpuLostError),
        ("cuMemcpyDtoHAsync_v2", 719, errors.GpuLostError),
        ("cuLaunchKernel", 719, errors.GpuLostError),
        ("cuLaunchKernel", 901, errors.GpuError),
        ("cuStreamSynchronize", 214, errors.GpuLostError),
    ],
)
def test_what_the_driver_answers_becomes_a_typed_error(
    driver: ctypes.CDLL, function: str, code: int, kind: type[Exception]
) -> None:
    driver.fake_fail(function.encode(), code)
    rows = np.ones((4, 8), np.float32)
    with pytest.raises(errors.BackendError, match=str(code)) as caught:
        kernels.nearest(rows, rows, backend="cuda:0")
    assert type(caught.value) is kind
    driver.fake_fail(function.encode(), 0)
    if kind is not errors.GpuLostError:  # nothing half-made was kept
        assert kernels.nearest(rows, rows, backend="cuda:0").index.tolist() == [0, 0, 0, 0]


def test_an_old_driver_and_no_driver(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    build.open_driver(gpus=1, version=11040)
    with pytest.raises(errors.BackendError, match=r"CUDA 11\.4.*update the driver"):
        kernels.nearest(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), backend="cuda")
    assert "cuda" not in kernels.available_backends()
    build.open_driver(gpus=0)
    with pytest.raises(errors.BackendError, match="CUDA_VISIBLE_DEVICES"):
        kernels.nearest(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), backend="cuda")
    monkeypatch.setenv("INREACH_LIBCUDA", "libnothere.so.1")
    probe._library.cache_clear()
    with pytest.raises(errors.GpuUnavailableError, match="install NVIDIA's driver"):
        probe.gpu_count()


def test_names_of_gpus(driver: ctypes.CDLL) -> None:
    rows = np.ones((3, 4), np.float32)
    for name, words in (
        ("cuda:2", "does not exist"), ("cuda:0,0", "twice"), ("cuda:x", "is not a backend"),
        ("cuda:", "is not a backend"),
        ("native:1", "is not a backend"),
    ):  # fmt: skip
        with pytest.raises(errors.BackendError, match=words):
            kernels.nearest(rows, rows, backend=name)


def test_a_bank_larger_than_the_gpu_is_streamed(driver: ctypes.CDLL) -> None:
    rng = np.random.default_rng(5)
    queries, bank = rng.normal(size=(7, 64)).astype(np.float32), rng.normal(size=(3000, 64)).astype(np.float32)
    index, sq_distance = reference.nearest(queries, bank, 2)
    pieces = []
    for limit in (1 << 30, 700_000, 400_000):  # the bank alone has 768,000 bytes
        gc.collect()
        before = driver.fake_launches()
        driver.fake_limit(driver.fake_used() + limit)
        found = kernels.nearest(queries, bank, k=2, backend="cuda:0")
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.sq_distance, sq_distance)
        pieces.append(driver.fake_launches() - before)
    assert pieces[0] < pieces[1] < pieces[2]
    mutual = kernels.mutual_nearest(queries, bank, backend="cuda:0")
    np.testing.assert_array_equal(mutual.ab_index, index[:, 0])
    gc.collect()
    driver.fake_limit(driver.fake_used() + 1000)
    with pytest.raises(errors.GpuMemoryError, match="memory is full"):
        kernels.nearest(queries, bank, backend="cuda:0")


@pytest.mark.parametrize(("locked", "walked", "waits"), [(False, False, 0), (True, False, 1), (False, True, 1)])
def test_memory_that_is_read_later_is_waited_for(driver: ctypes.CDLL, locked: bool, walked: bool, waits: int) -> None:
    """A host array may be changed as soon as its copy has been asked for."""
    driver.fake_host_memory(locked, walked)
    try:
        gpu = inreach_fast._cuda.Gpu(0, b"FAKE")
        address, before = gpu.allocate(64), driver.fake_waits()
        gpu.copy_in(address, np.ones(16, np.float32), 0)
        assert driver.fake_waits() - before == waits
        gpu.release(address)
    finally:
        driver.fake_host_memory(False, False)


def test_a_forked_process_is_told(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_pid", -1)
    with pytest.raises(errors.GpuError, match="spawn"):
        kernels.nearest(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), backend="cuda")


def test_errors_of_the_extension_carry_code_name_and_call(driver: ctypes.CDLL) -> None:
    with pytest.raises(RuntimeError) as caught:
        inreach_fast._cuda.Gpu(7, b"FAKE")
    assert caught.value.args == (101, "FAKE_ERROR_101", "cuDeviceGet")
    assert isinstance(driver_errors.as_gpu_error(caught.value), errors.GpuUnavailableError)
