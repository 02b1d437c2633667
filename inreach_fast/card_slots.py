"""Several `CardInference` of one model on one card, so that copies, network and search of images overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .backbones import Backbone
from .gpu_inference import CardInference, CardScores, Setting
from .kernels.gpu_devices.driver_errors import typed_errors

UInt8Array = npt.NDArray[np.uint8]
# One image is copied while the network or the search of another runs; more gain nothing and cost memory.
SLOTS = 2


@dataclass(frozen=True)
class Slot:
    """One stream of a card.

    Attributes:
        inference: what runs on it.
        current: makes the stream torch's current one.
    """

    inference: CardInference
    current: Callable[[], AbstractContextManager[Any]] = nullcontext


class CardSlots:
    """Slots that are taken in turn; one caller at a time."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = deque(slots)
        self.in_flight = len(slots) - 1

    def start(self, image: UInt8Array) -> Slot:
        """Enqueues an image, uint8 (H, W, 3), in the next slot; at most ``in_flight`` others are not collected yet."""
        slot = self._slots[0]
        self._slots.rotate(-1)
        with typed_errors(), slot.current():
            slot.inference.start(image)
        return slot

    def collect(self, slot: Slot) -> CardScores:
        """Waits for the image that was started in the slot.

        Raises:
            NonFiniteError: the network's features. GpuMemoryError, GpuLostError, GpuError: the card's.
        """
        with typed_errors(), slot.current():
            return slot.inference.collect()

    def scores(self, images: Iterable[UInt8Array]) -> Iterator[CardScores]:
        """One after the other, while the next ones run."""
        started: deque[Slot] = deque()
        for image in images:
            started.append(self.start(image))
            if len(started) > self.in_flight:
                yield self.collect(started.popleft())
        while started:
            yield self.collect(started.popleft())


def open_slots(setting: Setting, backbone: Backbone, backend: str, precision: str) -> CardSlots | None:
    """The slots of a model on the card that its network is on; None where ``backend`` shares banks among cards.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: the card cannot be used.
    """
    import torch

    from .gpu_network import TorchNetwork, captured, page_locked
    from .kernels.gpu.backend import GpuBackend
    from .kernels.gpu_backends import gpu_backend
    from .kernels.gpu_devices.card import CardDevice
    from .kernels.gpu_devices.memory import TorchMemory
    from .kernels.gpu_devices.opening import open_card, parse_name

    shared = gpu_backend(backend)
    if not isinstance(shared, GpuBackend):
        return None
    kind, numbers = parse_name(backend)
    ordinal = backbone.device.index if backbone.device.index is not None else torch.cuda.current_device()
    if numbers is not None and numbers != (ordinal,):
        return None  # the bank is on another card than the network: through the CPU's memory
    shared = gpu_backend(f"{kind}:{ordinal}")
    assert isinstance(shared, GpuBackend)
    slots = []
    for _ in range(SLOTS):
        cuda: Any = torch.cuda
        stream = cuda.Stream(device=ordinal)
        with typed_errors(), torch.cuda.stream(stream):
            device = CardDevice(open_card(kind, ordinal), stream.cuda_stream, memory=TorchMemory(f"cuda:{ordinal}"))
            network = TorchNetwork(backbone, setting.size, precision)
            inference = CardInference(setting, device, shared, network, capture=captured(stream), host=page_locked)
        slots.append(Slot(inference, lambda stream=stream: torch.cuda.stream(stream)))  # type: ignore[misc]
    return CardSlots(slots)
