"""interrupts_kept: an interrupt leaves the block as itself, whatever the block makes of it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytest

from inreach_fast.system.interrupts import interrupts_kept


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A shell's background jobs, and their tests, inherit that interrupts are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_that_becomes(error: type[Exception] | None) -> None:
    with interrupts_kept():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if error is not None:
                raise error from None


@pytest.mark.parametrize("error", [ImportError, RuntimeError, None])
def test_an_interrupt_stays_one(error: type[Exception] | None) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupt_that_becomes(error)
    assert signal.getsignal(signal.SIGINT) == before


def test_it_is_heard_at_once() -> None:
    done = []

    def block() -> None:
        with interrupts_kept():
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == []


def test_without_an_interrupt_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts_kept():
        pass
    with pytest.raises(ImportError), interrupts_kept():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) == before


def test_a_handler_that_raises_nothing_is_called_and_that_is_all() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with contextlib.suppress(ImportError), interrupts_kept():
            signal.raise_signal(signal.SIGINT)
            raise ImportError
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]


def test_in_another_thread_and_where_interrupts_are_ignored_it_does_nothing() -> None:
    done = []

    def block() -> None:
        with interrupts_kept():
            done.append(1)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        block()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [1, 1]
