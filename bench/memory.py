"""Peak memory of a fit beyond imports and backbone, divided by the descriptors' size; ours and the baseline's.

Each fit runs in its own process (memory_child.py), since a peak cannot be reset.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from . import ROOT
from .records import Case, value_case

OURS, PEER = "fit", "baseline fit"
OURS_ROWS = "fit_descriptors"
PEAK = "peak over descriptors"


def run(*, quick: bool = False, images: int | None = None, extra: tuple[str, ...] = ()) -> list[Case]:
    """Cases: `fit_descriptors` and `fit`, and the baseline on fewer images.

    Args:
        quick: fewer images.
        images: how many, instead of what ``quick`` implies (100).
        extra: further arguments of memory_child.py (backbone, image size).
    """
    images = images or (12 if quick else 100)
    fewer = min(images, 6)
    cases = []
    for what, count in ((OURS_ROWS, images), (OURS, images), (OURS, fewer), (PEER, fewer)):
        found = measure(what, count, extra)
        cases.append(
            value_case(
                f"{what}, {found['images']} images of {found['patches']} patches",
                {PEAK: found["peak"] / found["descriptors"]},
                data=found["data"],
                unit="x",
                limits={PEAK: 1.2} if what != PEER and count == images else None,
                checks={
                    "descriptors": _mb(found["descriptors"]),
                    "peak beyond imports and backbone": _mb(found["peak"]),
                    "before": _mb(found["before"]),
                    "seconds": f"{found['seconds']:.1f}",
                },
                bytes=found,
            )
        )
    return cases


def measure(what: str, images: int, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run one child; its figures in bytes.

    Raises:
        RuntimeError: the child failed; the message ends with its output.
    """
    command = [sys.executable, "-m", "bench.memory_child", what, str(images), *extra]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {what!r}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
