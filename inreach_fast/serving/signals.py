"""Ending on a signal when the work in hand is done."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether to stop, and because of which signal.

    A flag and short sleeps rather than a `threading.Event`: a handler that sets one can block on the lock that the
    interrupted `wait` holds.
    """

    def __init__(self) -> None:
        self.asked = False
        self.signal = 0

    def sleep(self, seconds: float) -> None:
        """Sleeps, and returns early when asked to stop."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C."""
        return self.signal == signal.SIGINT


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """In the block, SIGINT and SIGTERM (and Windows's Ctrl-Break) ask to stop; a second SIGINT interrupts at once.

    Outside the main thread, where Python allows no handlers, they do what they did before.
    """
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked, stop.signal = True, number

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]
    before = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
