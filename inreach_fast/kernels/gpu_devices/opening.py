"""The devices behind a backend's name: "cuda", "cupy", and with cards "cuda:1", "cuda:0,1", "cuda:all"."""

from __future__ import annotations

import os
import re
from typing import Any

from ...errors import BackendError, GpuError
from .card import Card, CardDevice, Memory
from .probe import card_count

KINDS = ("cuda", "cupy")
_CARDS = re.compile(r"all|\d+(,\d+)*")
_pid = os.getpid()


def is_card_name(backend: str) -> bool:
    """Whether a backend's name means cards."""
    return backend.split(":")[0] in KINDS


def parse_name(backend: str) -> tuple[str, tuple[int, ...] | None]:
    """The kind, and the cards' numbers: None for the current one.

    Raises:
        BackendError: no such name, or a card named twice. GpuUnavailableError: a card that is not there.
    """
    kind, colon, cards = backend.partition(":")
    if kind not in KINDS or (colon and not _CARDS.fullmatch(cards)):
        raise BackendError(
            f"backend: {backend!r} is not a backend; cards are named 'cuda', 'cuda:1', 'cuda:0,1', 'cuda:all'"
        )
    if not colon:
        return kind, None
    count = card_count()
    numbers = tuple(range(count)) if cards == "all" else tuple(int(n) for n in cards.split(","))
    if len(set(numbers)) != len(numbers):
        raise BackendError(f"backend: {backend!r} names a card twice")
    if max(numbers) >= count:
        raise BackendError(f"backend: {backend!r} names a card that is not there; the driver shows {count}")
    return kind, numbers


def current_card() -> int:
    """The card that torch calls current, where torch uses CUDA already; else the first."""
    import torch

    cuda: Any = torch.cuda
    return int(cuda.current_device()) if cuda.is_available() and cuda.is_initialized() else 0


def open_card(kind: str, ordinal: int) -> Card:
    """The card, opened once a process.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: it cannot be opened.
    """
    if os.getpid() != _pid:
        raise GpuError(
            "CUDA cannot be used in a forked process; start worker processes with the method 'spawn', or leave device "
            "and backend at the CPU's there"
        )
    if kind == "cuda":
        from .extension import extension_card

        return extension_card(ordinal)
    from .cupy_card import cupy_card

    return cupy_card(ordinal)


def open_device(kind: str, ordinal: int, *, stream: int = 0, memory: Memory | None = None) -> CardDevice:
    """A device on a card; without ``memory``, that of `shared_memory`, else the card's own."""
    card = open_card(kind, ordinal)
    return CardDevice(card, stream, memory=memory or shared_memory(kind, ordinal))


def shared_memory(kind: str, ordinal: int) -> Any:
    """torch's allocator where torch can use CUDA, so that the network and the bank share one pool; for CuPy its own."""
    import torch

    if kind == "cupy":
        from .memory import CupyMemory

        return CupyMemory(ordinal)
    if torch.cuda.is_available():
        from .memory import TorchMemory

        return TorchMemory(f"cuda:{ordinal}")
    return None
