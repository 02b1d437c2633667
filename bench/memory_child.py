"""One fit in one process: prints its peak memory as JSON. `python -m bench.memory_child WHAT IMAGES`.

The measurement starts when everything is imported and the backbone, if there is one, was built and run once: resident
memory is then "before", and the peak is the most that the fit adds to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import baseline
from .memory import OURS, OURS_ROWS, PEER
from .resident import watched
from .workload import Workload, resize

GRID = (56, 56)
DIM = 1024


def main() -> None:
    """Parse the options, measure, print."""
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
    """`fit_descriptors` on rows made here; the peak includes them."""
    from inreach_fast import InReaCh

    shape = (images, grid[0] * grid[1], DIM)
    # A small run first: lazy imports, thread pool, the kernels' constants.
    _warm_up()

    def run() -> Any:
        return InReaCh(assoc_depth=_depth(images)).fit_descriptors(synthetic(*shape[:2]), grid)

    return {"data": "synthetic rows", **_figures(run, shape)}


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
    return {"data": work.features, **_figures(run, shape)}


def _figures(run: Callable[[], Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    return {"patches": shape[1], "descriptors": int(np.prod(shape, dtype=np.int64)) * 4, **watched(run)[1]}


def _depth(images: int) -> int:
    """Number of seed images: ten, or fewer if the span filter would drop almost every channel."""
    return min(10, max(2, images // 3))


def _warm_up() -> None:
    from inreach_fast import InReaCh

    InReaCh(assoc_depth=2).fit_descriptors(synthetic(8, 64), (8, 8))


def synthetic(images: int, patches: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    """(images, patches, dim): a vector for each position, plus a low-rank deviation and some noise for each image."""
    random = np.random.default_rng(0)
    places = random.standard_normal((patches, dim), dtype=np.float32)
    directions = random.standard_normal((16, dim), dtype=np.float32)
    x = np.empty((images, patches, dim), dtype=np.float32)
    for image in x:
        random.standard_normal(out=image, dtype=np.float32)
        image *= 0.1
        image += places
        for start in range(0, patches, 256):  # in parts, so that no second array of that size is made
            part = image[start : start + 256]
            part += 0.2 * random.standard_normal((len(part), 16), dtype=np.float32) @ directions
    return x


if __name__ == "__main__":
    main()
