"""The GPU route on the CPU: GPUs that are the host executor, and torch's CPU tensors in the place of a GPU's."""

from __future__ import annotations

import cuda_host.build
import pytest
from gpu_fakes.gpus import HostGpu, OrderedGpu

from inreach_fast.kernels import registry
from inreach_fast.kernels.gpu import backends as gpu_backends
from inreach_fast.kernels.gpu.devices import interop, opening


@pytest.fixture
def host_gpus(monkeypatch: pytest.MonkeyPatch) -> list[HostGpu]:
    """Two GPUs behind backend "cuda"; arrays of torch count as lying on the first."""
    return _behind_the_backend([HostGpu(0), HostGpu(1)], monkeypatch)


@pytest.fixture
def ordered_gpu(monkeypatch: pytest.MonkeyPatch) -> OrderedGpu:
    """The same with one GPU, which watches the order of streams."""
    gpu = OrderedGpu()
    _behind_the_backend([gpu], monkeypatch)
    return gpu


def _behind_the_backend(gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch) -> list[HostGpu]:
    if cuda_host.build.compiler() is None:
        pytest.skip("NO C++ COMPILER: the CUDA kernels were not run on the CPU")
    library = interop.TorchLibrary("cpu")
    found = registry._found
    monkeypatch.setattr(interop, "_TORCH_TYPES", ("cuda", "cpu"))
    monkeypatch.setattr(interop, "_torch_library", lambda: library)
    monkeypatch.setattr(opening, "gpu_count", lambda: len(gpus))
    monkeypatch.setattr(registry, "gpu_count", lambda: len(gpus))
    monkeypatch.setattr(registry, "has_gpu", lambda: True)
    monkeypatch.setattr(registry, "_found", lambda needed: needed == "inreach_fast._cuda" or found(needed))
    monkeypatch.setattr(opening, "_opened", {("cuda", number): gpu for number, gpu in enumerate(gpus)})
    monkeypatch.setattr(gpu_backends, "_single", {})
    return gpus
