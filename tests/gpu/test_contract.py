"""The contract of exactness on a GPU: the bits of the reference, for every route through the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from cuda_host.backend import CASES
from kernel_cases import FAMILIES, Engine, check_mutual, check_nearest, same_bits

from inreach_fast import kernels
from inreach_fast.kernels.gpu import backends as gpu_backends
from inreach_fast.kernels.gpu.backend import GpuBackend
from inreach_fast.kernels.gpu.routes import FORMATS

pytestmark = pytest.mark.gpu


_known: dict[tuple[Any, ...], Any] = {}


@pytest.fixture(autouse=True)
def reference_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the reference says of the same rows is worked out once for all cases: a GPU is not lent to wait for it."""

    def once(function: Any) -> Any:
        def known(*arguments: Any) -> Any:
            key = (function.__name__, *((a.shape, a.tobytes()) if isinstance(a, np.ndarray) else a for a in arguments))
            if key not in _known:
                _known[key] = function(*arguments)
            return _known[key]

        return known

    for name in ("nearest", "mutual_nearest"):
        monkeypatch.setattr(reference, name, once(getattr(reference, name)))


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def routed(request: pytest.FixtureRequest, backend: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend, by one filter kernel and one way through the engine."""
    opened = gpu_backends.gpu_backend(f"{backend}:0")
    assert isinstance(opened, GpuBackend)
    options = request.param.options
    for route in (options.route, options.head_route):
        needed = (0, 0) if route is None else FORMATS[route.format].compute_capability
        if tuple(opened.device.compute_capability) < needed:
            pytest.skip(f"{route.format} needs compute capability {needed[0]}.{needed[1]}")
    monkeypatch.setattr(opened, "options", options)
    return f"{backend}:0"


@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 130, 37), (257, 700, 64), (130, 300, 1026)])
def test_searches(routed: str, shape: tuple[int, int, int]) -> None:
    m, n, dim = shape
    for family in FAMILIES:
        rng = np.random.default_rng(m)
        queries, bank = family(rng, m, dim), family(rng, n, dim)
        check_nearest(Engine(routed), queries, bank)
        check_nearest(Engine(routed), queries, bank, 3, np.arange(m) % 3, np.arange(n) % 3)
        check_mutual(Engine(routed), queries, bank)


def test_the_size_of_the_work_agrees_with_the_cpu(backend: str) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 1024))
    queries, rows = (
        (centres[rng.integers(0, 40, n)] + 0.05 * rng.normal(size=(n, 1024))).astype(np.float32) for n in (3136, 50_000)
    )
    bank = kernels.Bank(rows)
    ours, theirs = (kernels.nearest(queries, bank, backend=name) for name in (backend, "auto"))
    same_bits(ours.index, theirs.index)
    same_bits(ours.sq_distance, theirs.sq_distance)


def test_descriptors_and_spread(backend: str) -> None:
    rng = np.random.default_rng(1)
    levels = [rng.normal(size=s).astype(np.float32) for s in ((2, 64, 56, 56), (2, 128, 28, 28), (2, 256, 14, 14))]
    ours, theirs = (kernels.describe(levels, grid=(56, 56), dim=256, backend=name) for name in (backend, "auto"))
    same_bits(ours, theirs)
    members, channel = rng.normal(size=(5000, 256)).astype(np.float32), rng.integers(-1, 300, 5000)
    found = [kernels.filter_channels(members, channel, min_length=3, max_std=2.0, backend=n) for n in (backend, "auto")]
    same_bits(found[0].keep, found[1].keep)
    same_bits(found[0].sigma, found[1].sigma)


def test_gpus_share_a_bank(backend: str) -> None:
    from inreach_fast.kernels.gpu.devices.probe import gpu_count

    if gpu_count() < 2:
        pytest.skip("ONE GPU: no bank was shared among GPUs")
    rng = np.random.default_rng(2)
    queries, bank = (rng.normal(size=(n, 96)).astype(np.float32) for n in (200, 5000))
    check_nearest(Engine(f"{backend}:all"), queries, bank, 4)
    check_mutual(Engine(f"{backend}:all"), queries, bank)
