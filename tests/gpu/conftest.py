"""Tests that need a GPU (``pytest -m gpu``). Where there is none they say so and are skipped.

All that can be had without one is tested elsewhere: kernels, launches, errors, banks in pieces and the whole way of a
prediction in tests/cuda_host, tests/cuda_build and tests/gpu_devices. Here is what only a GPU shows: its arithmetic,
its memory and streams, torch.cuda, CuPy itself and CUDA graphs. For races and accesses out of bounds run them as

    compute-sanitizer --tool memcheck  python -m pytest -m gpu tests/gpu/test_contract.py
    compute-sanitizer --tool racecheck python -m pytest -m gpu tests/gpu/test_contract.py
"""

from __future__ import annotations

import pytest

from inreach_fast.errors import GpuError
from inreach_fast.kernels import available_backends
from inreach_fast.kernels.gpu.devices.probe import gpu_count


def _why_not(backend: str | None = None) -> str | None:
    try:
        gpu_count()
    except GpuError as error:
        return f"NO GPU: {error}"
    if backend is not None and backend not in available_backends():
        return f"NO {backend}: a GPU is here, the backend is not installed"
    return None


@pytest.fixture(params=["cuda", "cupy"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that is installed, on a GPU."""
    reason = _why_not(request.param)
    if reason:
        pytest.skip(reason)
    name: str = request.param
    return name


@pytest.fixture
def cuda() -> str:
    """torch's device, with a backend of ours beside it."""
    import torch

    reason = _why_not()
    if reason is None and not torch.cuda.is_available():
        reason = "NO CUDA IN TORCH: a GPU is here, torch cannot use it"
    if reason is None and not {"cuda", "cupy"} & set(available_backends()):
        reason = "NO cuda, NO cupy: a GPU is here, neither backend is installed"
    if reason:
        pytest.skip(reason)
    return "cuda"
