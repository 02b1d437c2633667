"""Processes that tests start: none may be left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

DEADLINE = 120.0  # seconds; reached only by a test that fails


def eventually(condition: Callable[[], object]) -> bool:
    """Whether a condition comes true before the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children() -> set[int]:
    """The ids of the processes that descend from this one."""
    parent = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it has ended
            parent[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    found: set[int] = set()
    for pid in parent:
        above = pid
        while above in parent and above != os.getpid():
            above = parent[above]
        if above == os.getpid() and pid != os.getpid():
            found.add(pid)
    return found


@pytest.fixture
def no_process_left() -> Iterator[Callable[[], set[int]]]:
    """The processes that the test has started so far; fails if one is left at its end."""
    resource_tracker.ensure_running()  # multiprocessing starts it once for the whole program
    before = children()
    yield lambda: children() - before
    if not eventually(lambda: not children() - before):
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        pytest.fail("processes were left")
