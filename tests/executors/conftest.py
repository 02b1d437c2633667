"""Executors by name; a Ray cluster of this machine's loopback interface, for the tests that need one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def children() -> set[int]:
    """The processes that descend from this one."""
    parent = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it ended meanwhile
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
    before = children()
    yield lambda: children() - before
    for _ in range(50):
        left = children() - before
        if not left:
            return
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    pytest.fail(f"{len(left)} processes were left")
