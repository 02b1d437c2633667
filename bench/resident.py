"""Resident memory of this process (Linux: /proc/self), and what a call adds to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


def resident() -> int:
    """Resident bytes of this process now."""
    return status("VmRSS")


def high_water() -> int:
    """Peak resident bytes since the last `reset_high_water`."""
    return status("VmHWM")


def split() -> dict[str, int]:
    """Resident bytes now, and of these the anonymous ones and the pages of mapped files.

    The system can take back pages of files at any time without writing them.
    """
    return {"resident": resident(), "anonymous": status("RssAnon"), "files": status("RssFile")}


def reset_high_water() -> bool:
    """Reset the kernel's peak to the present value; False if that is not allowed (then samples are used)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def status(field: str) -> int:
    """A field of /proc/self/status that is given in kB, in bytes."""
    with STATUS.open(encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {field}")


def watched(run: Callable[[], Any], interval: float = 0.002) -> tuple[Any, dict[str, Any]]:
    """Run ``work``: its result; resident bytes before, the peak above that, and the seconds.

    The peak of anonymous bytes is sampled every ``interval`` seconds, since the kernel does not record it.
    """
    before, own_before = resident(), status("RssAnon")
    peak, own_peak = [before], [own_before]
    exact = reset_high_water()
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(interval):
            peak[0] = max(peak[0], resident())
            own_peak[0] = max(own_peak[0], status("RssAnon"))

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        result = run()
    finally:
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
    highest = high_water() if exact else peak[0]
    return result, {
        "before": before,
        "peak": max(highest, peak[0]) - before,
        "sampled_peak": peak[0] - before,
        "anonymous_before": own_before,
        "anonymous_peak": own_peak[0] - own_before,
        "seconds": seconds,
    }
