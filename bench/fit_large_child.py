"""Fit thousands of varied pictures and save the model, in a separate process: `python -m bench.fit_large_child IMAGES`.

Prints one line of JSON: the plan's estimate, the seconds of each stage, the peaks of memory and disk, and the size of
the saved model. Progress goes to standard error. On SIGTERM it removes what it wrote.
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
from .children import reply_channel
from .varied_images import VariedImages
from .workload import Workload, resize, scratch_folder


def main() -> None:
    """Parse the options, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("images", type=int)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--weights", default="official")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    send = reply_channel()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder is removed
    scratch = scratch_folder()
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="fit-large-") as folder:
        send(measure(options, Path(folder)))


def measure(options: Any, folder: Path) -> dict[str, Any]:
    """Plan, fit and save; everything is written to ``folder``.

    Raises:
        RuntimeError: the disk has less free space than the plan estimates.
    """
    from inreach_fast import InReaCh

    tempfile.tempdir = str(folder)  # data above the limit goes to temporary files
    work = Workload(options.backbone, options.weights, image_size=options.image_size)
    pictures = VariedImages(options.images)
    work.backbone.extract(resize(pictures[0], options.image_size)[None])  # warm
    model = InReaCh(backbone=work.backbone, image_size=options.image_size, memory_limit=options.memory_limit)
    record: dict[str, Any] = {
        "images": options.images,
        "data": f"{work.backbone.name} of {pictures.words}",
        "memory_limit": options.memory_limit,
        "before": resident.resident(),
    }
    start = time.perf_counter()
    plan = model.plan(pictures)
    record["plan"] = {**plan.as_dict(), "planned_in": time.perf_counter() - start}
    _say(f"plan:\n{plan}")
    free = shutil.disk_usage(folder).free
    if free < plan.disk["peak"]:
        raise RuntimeError(
            f"{folder.parent}: {free / 1e9:.1f} GB are free, {plan.disk['peak'] / 1e9:.1f} are needed; free some space"
        )
    saved = folder / "model.inreach"
    with Disk(folder) as disk:
        progress = _progress(disk)
        # The spool is kept until the model is saved, as on the command line: unnamed files could not be counted.
        _, memory = resident.watched(
            lambda: model.fit(pictures, spool=folder / "spool", keep_spool=True, progress=progress), interval=0.02
        )
        fitted = disk.look()
        start = time.perf_counter()
        model.save(saved)
        record["save_seconds"] = time.perf_counter() - start
        disk.look()
        peak = resident.high_water()
        model.remove_spool()
    _say(f"saved in {record['save_seconds']:.0f} s, peak {peak / 1e9:.2f} GB of memory, {disk.peak / 1e9:.1f} of disk")
    return {
        **record,
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
    """Print a line on standard error for each stage, and every half minute."""
    begin = time.perf_counter()
    last: list[Any] = ["", 0.0, 0.0]

    def show(stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if stage != last[0]:
            last[:] = stage, now, 0.0
        if now - last[2] >= 30.0 or done == total:
            last[2] = now
            left = (now - last[1]) / max(1, done) * (total - done)
            _say(
                f"{now - begin:6.0f} s  {stage} {done} of {total}, about {left:.0f} s left; "
                f"{resident.resident() / 1e9:.2f} GB of memory, {disk.look() / 1e9:.2f} of disk"
            )

    return show


class Disk:
    """The disk space of a folder's files and its peak, sampled twice a second.

    Allocated blocks are counted, those of a file with two names once.
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
        """Bytes at this moment."""
        sizes: dict[int, int] = {}
        for file in self._folder.rglob("*"):
            try:
                status = os.stat(file)
            except OSError:  # removed since it was listed
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
