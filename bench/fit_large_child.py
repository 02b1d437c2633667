"""A fit of thousands of varied pictures, saved, in a process of its own: `python -m bench.fit_large_child IMAGES`.

Tells as one line of JSON what the plan said beforehand, the seconds of each stage, the peaks of memory and disk, and
the saved model's size. While it runs it says on standard error how far it is. Stopped (SIGTERM) it removes what it
wrote.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import resident
from .children import speaker
from .varied_images import VariedImages
from .workload import Workload, resize, scratch_folder


def main() -> None:
    """Parses, fits, tells."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("images", type=int)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--weights", default="official")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    tell = speaker()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through the folder's removal
    scratch = scratch_folder()
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="fit-large-") as folder:
        tell(measure(options, Path(folder)))


def measure(options: Any, folder: Path) -> dict[str, Any]:
    """Plan, fit, save; everything written lies in ``folder``.

    Raises:
        RuntimeError: the disk has less room than the plan says.
    """
    from inreach_fast import InReaCh

    tempfile.tempdir = str(folder)  # what outgrows the limit without a spool goes to temporary files
    work = Workload(options.backbone, options.weights, image_size=options.image_size)
    pictures = VariedImages(options.images)
    work.backbone.extract(resize(pictures[0], options.image_size)[None])  # warm
    model = InReaCh(backbone=work.backbone, image_size=options.image_size, memory_limit=options.memory_limit)
    told: dict[str, Any] = {
        "images": options.images,
        "data": f"{work.backbone.name} of {pictures.words}",
        "memory_limit": options.memory_limit,
        "before": resident.resident(),
    }
    start = time.perf_counter()
    plan = model.plan(pictures)
    told["plan"] = {**plan.as_dict(), "planned_in": time.perf_counter() - start}
    _say(f"the plan says:\n{plan}")
    free = shutil.disk_usage(folder).free
    if free < plan.disk["peak"]:
        raise RuntimeError(
            f"{folder.parent}: {free / 1e9:.1f} GB are free, and {plan.disk['peak'] / 1e9:.1f} are needed"
        )
    saved = folder / "model.inreach"
    with Disk(folder) as disk:
        progress = _progress(disk)
        # The spool stays until the model is saved, as at the command line: files without a name could not be counted.
        _, memory = resident.watched(
            lambda: model.fit(pictures, spool=folder / "spool", keep_spool=True, progress=progress), interval=0.02
        )
        fitted = disk.look()
        start = time.perf_counter()
        model.save(saved)
        told["save_seconds"] = time.perf_counter() - start
        disk.look()
        peak = resident.high_water()
        model.remove_spool()
    _say(f"saved in {told['save_seconds']:.0f} s, peak {peak / 1e9:.2f} GB of memory, {disk.peak / 1e9:.1f} of disk")
    return {
        **told,
        "fit": memory,
        "peak": peak,
        "patches": int(model.report_.counts["patches"]),
        "joined": int(model.report_.counts["associated"]),
        "nominal": len(model.nominal_),
        "stages": dict(model.report_["seconds"]),
        "disk_fitted": fitted,
        "disk_peak": disk.peak,
        "model_bytes": saved.stat().st_size,
    }


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _progress(disk: Disk) -> Callable[[str, int, int], None]:
    """A line on standard error for every stage, and every half minute."""
    begin = time.perf_counter()
    last: list[Any] = ["", 0.0, 0.0]

    def tell(stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if stage != last[0]:
            last[:] = stage, now, 0.0
        if now - last[2] >= 30.0 or done == total:
            last[2] = now
            left = (now - last[1]) / max(1, done) * (total - done)
            _say(
                f"{now - begin:6.0f} s  {stage} {done} of {total}, about {left:.0f} s left of it; "
                f"{resident.resident() / 1e9:.2f} GB of memory, {disk.look() / 1e9:.2f} of disk"
            )

    return tell


class Disk:
    """The room that a folder's files take on disk, and the greatest of it, looked at twice a second.

    What counts is allocated blocks, those of a file with two names once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.peak = folder, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Disk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> int:
        """Bytes now."""
        sizes: dict[int, int] = {}
        for file in self._folder.rglob("*"):
            try:
                status = os.stat(file)
            except OSError:  # gone between the listing and the look
                continue
            sizes[status.st_ino] = 512 * status.st_blocks
        total = sum(sizes.values())
        self.peak = max(self.peak, total)
        return total

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.look()


if __name__ == "__main__":
    main()
