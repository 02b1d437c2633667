"""Several `GpuInference` of one model on one GPU, so that copies, network and search of images overlap."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from ...array_types import UInt8Array
from ...backbones import Backbone
from ...kernels.gpu.backend import GpuBackend
from ...kernels.gpu.backends import gpu_backend, one_gpu
from ...kernels.gpu.device import Device
from ...kernels.gpu.devices.driver_errors import typed_errors
from ...kernels.gpu.devices.memory import TorchMemory
from ...kernels.gpu.devices.opening import open_gpu, parse_name
from .inference import GpuInference, GpuModel, GpuScores
from .network import TorchNetwork, captured, page_locked

# One image is copied while the network or the search of another runs; more gain nothing and cost memory.
SLOTS = 2


class Slot(NamedTuple):
    """What runs on one stream of a GPU; ``current`` makes the stream torch's current one."""

    inference: GpuInference
    current: Callable[[], AbstractContextManager[Any]] = nullcontext


class Started(Future[GpuScores]):
    """An image that was started: in a slot until it is collected."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.slot: Slot | None = slot

    def finish(self) -> Slot:
        """Waits for the image and returns its slot."""
        slot, self.slot = self.slot, None
        assert slot is not None
        try:
            with typed_errors(), slot.current():
                self.set_result(slot.inference.collect())
        except Exception as error:
            self.set_exception(error)
        return slot


class GpuSlots:
    """Slots that are used in turn, by any number of callers.

    If all slots are in use (by a paused stream, another thread), the image that was started first is waited for, and
    its outcome is kept for its caller.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free = deque(slots)
        self._started: deque[Started] = deque()
        self._lock = threading.Lock()
        self.in_flight = len(slots) - 1

    def start(self, image: UInt8Array) -> Started:
        """Enqueues an image, uint8 (H, W, 3), in the next slot."""
        with self._lock:
            if not self._free:
                self._free.append(self._started.popleft().finish())
            slot = self._free.popleft()
            try:
                with typed_errors(), slot.current():
                    slot.inference.start(image)
            except BaseException:
                self._free.append(slot)
                raise
            started = Started(slot)
            self._started.append(started)
            return started

    def collect(self, started: Started) -> GpuScores:
        """Waits for an image; once.

        Raises:
            NonFiniteError: the network's features. GpuMemoryError, GpuLostError, GpuError: the GPU's.
        """
        with self._lock:
            if started.slot is not None:
                self._started.remove(started)
                self._free.append(started.finish())
        return started.result()

    def scores(self, images: Iterable[UInt8Array]) -> Iterator[GpuScores]:
        """The outcomes in order, while the next images run."""
        started: deque[Started] = deque()
        for image in images:
            started.append(self.start(image))
            if len(started) > self.in_flight:
                yield self.collect(started.popleft())
        while started:
            yield self.collect(started.popleft())


def open_slots(model: GpuModel, backbone: Backbone, backend: str, precision: str) -> GpuSlots | None:
    """The slots of a model on the GPU of its network; None where ``backend`` names another GPU, or several.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: the GPU cannot be used.
    """
    import torch

    if not isinstance(gpu_backend(backend), GpuBackend):
        return None
    kind, numbers = parse_name(backend)
    cuda: Any = torch.cuda
    ordinal = backbone.device.index if backbone.device.index is not None else cuda.current_device()
    if numbers is not None and numbers != (ordinal,):
        return None
    slots = []
    for _ in range(SLOTS):
        stream = cuda.Stream(device=ordinal)
        stream.wait_stream(cuda.current_stream(ordinal))  # the weights were moved and folded there
        with typed_errors(), cuda.stream(stream):
            device = Device(open_gpu(kind, ordinal), stream.cuda_stream, memory=TorchMemory(f"cuda:{ordinal}"))
            network = TorchNetwork(backbone, model.size, precision)
            inference = GpuInference(
                model, device, one_gpu(kind, ordinal), network, capture=captured(stream), host=page_locked
            )
        slots.append(Slot(inference, lambda stream=stream: cuda.stream(stream)))  # type: ignore[misc]
    return GpuSlots(slots)
