"""What of this process is in memory (Linux: /proc/self), and what a call adds to it."""

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
    """Greatest resident bytes since the last `reset_high_water`."""
    return status("VmHWM")


def split() -> dict[str, int]:
    """Resident bytes now, and how they part: the process's own ("anonymous"), and pages of files that it maps.

    Pages of files can be given back at any time without being written: they are memory in use only as long as
    nobody else wants it.
    """
    return {"resident": resident(), "anonymous": status("RssAnon"), "files": status("RssFile")}


def reset_high_water() -> bool:
    """Sets the kernel's mark to the present value; False where that isn't allowed (then samples must do)."""
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
    """Runs it; its result, and bytes resident before and at the peak above that, with the seconds it took.

    The greatest anonymous bytes are sampled every ``interval`` seconds (the kernel keeps no mark of them), before and
    above it.
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
