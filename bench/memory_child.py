"""One fit in one process: prints its peak memory as JSON. `python -m bench.memory_child WHAT IMAGES`.

The count begins once everything is imported and, where a backbone takes part, built and run once: resident
memory then is "before", and the peak is what the fit adds at its worst moment.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import baseline
from .memory import OURS, OURS_ROWS, PEER
from .workload import Workload, resize

GRID = (56, 56)
DIM = 1024


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=(OURS, OURS_ROWS, PEER))
    parser.add_argument("images", type=int)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--weights", default="official")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    if options.what == OURS_ROWS:
        found = of_descriptors(options.images, (options.image_size // 4,) * 2)
    else:
        work = Workload(options.backbone, options.weights, image_size=options.image_size)
        found = of_images(options.what, options.images, work)
    print(json.dumps({"images": options.images, **found}))


def of_descriptors(images: int, grid: tuple[int, int] = GRID) -> dict[str, Any]:
    """`fit_descriptors` on rows made here, which count: the peak holds them too."""
    from inreach_fast import InReaCh

    shape = (images, grid[0] * grid[1], DIM)
    # Once, small: lazy imports, thread pool, the kernels' own constants.
    _warm_up()

    def run() -> Any:
        return InReaCh(assoc_depth=_depth(images)).fit_descriptors(synthetic(*shape[:2]), grid)

    return {"data": "synthetic rows", **watched(run, shape)}


def of_images(what: str, images: int, work: Workload) -> dict[str, Any]:
    """`fit` of images, backbone included, ours or the baseline's."""
    from inreach_fast import InReaCh

    pictures = work.training_images(images)
    small = resize(pictures[0], work.image_size)
    levels = work.backbone.extract(small[None])
    shape = (images, int(levels[0].shape[-2] * levels[0].shape[-1]), DIM)
    del levels

    def run() -> Any:
        if what == PEER:
            return baseline.fit(pictures, work.backbone, size=work.image_size, assoc_depth=_depth(images))
        model = InReaCh(backbone=work.backbone, image_size=work.image_size, assoc_depth=_depth(images))
        return model.fit(pictures)

    if what == OURS:
        _warm_up()
    return {"data": work.features, **watched(run, shape)}


def _depth(images: int) -> int:
    """Seed images: the usual ten, fewer where hardly any channel would get past the span filter."""
    return min(10, max(2, images // 3))


def _warm_up() -> None:
    from inreach_fast import InReaCh

    InReaCh(assoc_depth=2).fit_descriptors(synthetic(8, 64), (8, 8))


def synthetic(images: int, patches: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    """(images, patches, dim): each place has its own vector, each image a low-rank deviation and some noise."""
    random = np.random.default_rng(0)
    places = random.standard_normal((patches, dim), dtype=np.float32)
    directions = random.standard_normal((16, dim), dtype=np.float32)
    x = np.empty((images, patches, dim), dtype=np.float32)
    for image in x:
        random.standard_normal(out=image, dtype=np.float32)
        image *= 0.1
        image += places
        for start in range(0, patches, 256):  # by parts, so that no second image-sized array is made
            part = image[start : start + 256]
            part += 0.2 * random.standard_normal((len(part), 16), dtype=np.float32) @ directions
    return x


def watched(run: Callable[[], Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Runs it; bytes resident before and at the peak above that, and the descriptors' size."""
    before = resident()
    peak = [before]
    exact = reset_high_water()
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    highest = high_water() if exact else peak[0]
    del result
    return {
        "patches": shape[1],
        "descriptors": int(np.prod(shape, dtype=np.int64)) * 4,
        "before": before,
        "peak": max(highest, peak[0]) - before,
        "sampled_peak": peak[0] - before,
        "seconds": seconds,
    }


def resident() -> int:
    """Resident bytes of this process now."""
    return _status("VmRSS")


def high_water() -> int:
    """Greatest resident bytes since the last `reset_high_water`."""
    return _status("VmHWM")


def reset_high_water() -> bool:
    """Sets the kernel's mark to the present value; False where that isn't allowed (then samples must do)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
