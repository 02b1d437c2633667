"""To which stream memory of torch's and CuPy's allocators belongs, on stand-ins for their streams."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_fakes import cupy_stub

from inreach_fast.kernels.gpu_devices import memory, opening

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
    monkeypatch.setattr(opening, "open_card", lambda kind, ordinal: state.card)
    device = opening.open_device("cupy", 0)
    state.stream = 77
    device.empty(4, "float32")
    assert state.allocated_on == [0]
