"""Association of some images with the seed images: ours against torch.cdist and two minima for each pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inreach_fast.method.association import Associator

from . import baseline, exact
from .records import Case, timed_case
from .timing import OURS, race
from .workload import Workload

Rows = npt.NDArray[np.float32]
PEER = "torch.cdist + two minima a pair"


def run(work: Workload, *, quick: bool = False, images: int | None = None, seeds: int | None = None) -> list[Case]:
    """One case: every image is compared with every seed image except itself."""
    images = images or (3 if quick else 12)
    seeds = seeds or (2 if quick else 10)
    x = work.descriptors(images)
    seed_images = np.arange(min(seeds, images), dtype=np.int64)

    contestants: dict[str, Any] = {
        PEER: lambda: baseline.associate(x, seed_images.tolist()),
        OURS: lambda: associate(x, seed_images),
    }
    seconds = race(contestants, rounds=3, budget=60, warm=[OURS])
    ours, theirs = contestants[OURS](), contestants[PEER]()
    n, p, dim = x.shape
    pairs = n * len(seed_images) - len(seed_images)
    case = timed_case(
        f"association, {n} images of {p} x {dim}, {len(seed_images)} seeds ({pairs} pairs)",
        seconds,
        data=work.features,
        goals=None if quick else {PEER: 20},  # preparing once pays from a dozen images on
        checks={
            "equal to float64 brute force": check(x, seed_images, ours),
            "patches that the peer files the same": f"{float((ours == theirs).mean()):.4%}",
        },
    )
    work.drop_descriptors()
    return [case]


def associate(x: Rows, seed_images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ours: int64 (N, P), the channel ``slot * P + p`` that each patch joins, or -1."""
    joiner = Associator(seed_images, x)
    return np.stack([joiner.associate(i, rows) for i, rows in enumerate(x)])


def check(x: Rows, seed_images: npt.NDArray[np.int64], channel: npt.NDArray[np.int64], count: int = 48) -> str:
    """How many sampled patches of the last image have the association of float64 brute force, in words."""
    image = len(x) - 1
    slots = [slot for slot, s in enumerate(seed_images.tolist()) if s != image]
    patches = exact.sample(x.shape[1], count)
    queries = x[image][patches]
    found = [exact.nearest(queries, x[seed_images[slot]])[0] for slot in slots]
    right = 0
    for j, q in enumerate(patches.tolist()):
        distance = [
            float(exact.sq_distance(x[image, q], x[seed_images[slot], f[j]][None])[0])
            for slot, f in zip(slots, found, strict=True)
        ]
        best = int(np.argmin(distance))
        slot, p = slots[best], int(found[best][j])
        back = int(exact.nearest(x[seed_images[slot], p][None], x[image])[0][0])
        right += channel[image, q] == (slot * x.shape[1] + p if back == q else -1)
    return f"{right} of {len(patches)}"
