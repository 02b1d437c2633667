"""Ctrl-C while another package works that may make something else of it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """What an interrupt (SIGINT) raises within it, leaves it, and nothing else in its place.

    The import of a compiled package can turn a KeyboardInterrupt into an ImportError, as if the package were not
    installed, and C++ that calls Python into an error of its own. Then another package would be taken, in silence.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    raised: list[BaseException] = []

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except BaseException as error:
            raised.append(error)
            raise

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if raised and sys.exc_info()[1] is not raised[-1]:
            raise raised[-1]
