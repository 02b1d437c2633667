"""A fit of thousands of varied pictures, saved, in a process of its own: `python -m bench.fit_large_child IMAGES`.

Tells as one line of JSON what the plan said beforehand, the seconds of each stage, the peak of memory and of the
spool, and the saved model's size.
"""

from __future__ import annotations

import argparse
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
    scratch = scratch_folder()
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="fit-large-") as folder:
        tell(measure(options, Path(folder)))


def measure(options: Any, folder: Path) -> dict[str, Any]:
    """Plan, fit, save; everything written lies in ``folder``."""
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
    told["plan"] = {**model.plan(pictures).as_dict(), "planned_in": time.perf_counter() - start}
    spool = folder / "spool"
    with Disk(folder) as disk:
        _, memory = resident.watched(lambda: model.fit(pictures, spool=spool, progress=_progress()))
        saved = folder / "model.inreach"
        start = time.perf_counter()
        model.save(saved)
        told["save_seconds"] = time.perf_counter() - start
    return {
        **told,
        "fit": memory,
        "peak": resident.high_water(),
        "patches": int(model.report_.counts["patches"]),
        "nominal": len(model.nominal_),
        "stages": dict(model.report_["seconds"]),
        "disk_peak": disk.peak,
        "model_bytes": sum(file.stat().st_size for file in saved.rglob("*")) if saved.is_dir() else _size(saved),
    }


def _size(path: Path) -> int:
    return path.stat().st_size


def _progress() -> Callable[[str, int, int], None]:
    """A line on standard error now and then."""
    last = [time.perf_counter() - 60.0]

    def tell(stage: str, done: int, total: int) -> None:
        if time.perf_counter() - last[0] >= 20.0:
            last[0] = time.perf_counter()
            print(f"{stage} {done} of {total}, {resident.resident() / 1e9:.2f} GB", file=sys.stderr, flush=True)

    return tell


class Disk:
    """The greatest number of bytes in a folder's files, looked at twice a second."""

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

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.peak = max(self.peak, self._named())

    def _named(self) -> int:
        total = 0
        for file in self._folder.rglob("*"):
            try:
                total += file.stat().st_size
            except OSError:  # gone between the listing and the look
                continue
        return total


if __name__ == "__main__":
    main()
