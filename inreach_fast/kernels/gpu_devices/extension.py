"""Cards through the extension `inreach_fast._cuda`, whose kernels nvcc compiled beforehand."""

from __future__ import annotations

import threading

from .card import Card
from .driver_errors import typed_errors
from .source import fatbin

_cards: dict[int, Card] = {}
_lock = threading.Lock()


def extension_card(ordinal: int) -> Card:
    """The card of that number, opened once a process.

    Raises:
        GpuUnavailableError, GpuMemoryError, GpuError: it cannot be opened.
    """
    with _lock:
        if ordinal not in _cards:
            from ..._cuda import Card as ExtensionCard

            with typed_errors(f"cuda:{ordinal}"):
                _cards[ordinal] = ExtensionCard(ordinal, fatbin())
        return _cards[ordinal]
