"""To which stream memory of torch's and CuPy's allocators belongs, and to which GPU, on stand-ins for both."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gpu_fakes import cupy_stub

from inreach_fast.kernels.gpu.device import Device
from inreach_fast.kernels.gpu.devices import interop, memory, opening

POOLED = 4711


class _Cuda:
    """torch.cuda's streams as far as memory asks for them; an external stream of handle 0 is one of the pool's, as
    torch has it."""

    def __init__(self, current: int) -> None:
        self.current = current

    def current_stream(self, device: Any) -> SimpleNamespace:
        return SimpleNamespace(cuda_stream=self.current)

    def default_stream(self, device: Any) -> SimpleNamespace:
        return SimpleNamespace(cuda_stream=0)

    def ExternalStream(self, handle: int, device: Any) -> SimpleNamespace:
        return SimpleNamespace(cuda_stream=handle or POOLED)

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Any:
        before, self.current = self.current, stream.cuda_stream
        yield
        self.current = before

    @contextmanager
    def device(self, device: Any) -> Any:
        yield


@pytest.mark.parametrize("current", [0, 77])
@pytest.mark.parametrize("wanted", [0, 77, 99])
def test_torchs_memory_belongs_to_the_stream_that_it_is_for(current: int, wanted: int) -> None:
    cuda, taken = _Cuda(current), []

    def empty(count: int, **named: Any) -> torch.Tensor:
        taken.append(cuda.current)
        return torch.empty(count, dtype=torch.uint8)

    held = memory.TorchMemory("cuda:0")
    held._torch = SimpleNamespace(cuda=cuda, empty=empty, uint8=torch.uint8)
    held.allocate(16, wanted)
    assert taken == [wanted]
    assert cuda.current == current


def test_cupys_memory_belongs_to_the_stream_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its pool's arena for the device's own stream, whatever stream the caller has made current."""
    state = cupy_stub.install(monkeypatch)
    monkeypatch.setattr(opening, "open_gpu", lambda kind, ordinal: state.gpu)
    device = Device(opening.open_gpu("cupy", 0), memory=opening.shared_memory("cupy", 0))
    state.stream = 77
    device.empty(4, "float32")
    assert state.allocated_on == [0]


def test_cupys_arrays_are_widened_on_their_own_gpu() -> None:
    """CuPy computes on the GPU that is current, which need not be the array's."""

    class Device:
        current = 0

        def __init__(self, ordinal: int) -> None:
            self.ordinal = ordinal

        def __enter__(self) -> None:
            self.before, Device.current = Device.current, self.ordinal

        def __exit__(self, *_: object) -> None:
            Device.current = self.before

    class Array(np.ndarray):
        device = SimpleNamespace(id=1)

    def on_gpu(function: Any) -> Any:
        def called(*values: Any, **named: Any) -> Any:
            assert Device.current == 1
            return function(*values, **named)

        return called

    library = object.__new__(interop.CupyLibrary)
    library._cupy = SimpleNamespace(cuda=SimpleNamespace(Device=Device), ascontiguousarray=on_gpu(np.ascontiguousarray))
    rows = np.arange(6, dtype=np.float16).reshape(2, 3).view(Array)
    assert library.contiguous(rows, "float32").dtype == np.float32
    assert Device.current == 0
