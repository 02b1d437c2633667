"""``python -m bench.playground.try_cover``: how many patches a cover keeps, by the order in which patches are visited.

All pairs are held in memory, so use few patches. "greedy" is the greedy set cover, which takes the patch that covers
most each time and which no order reaches; the others keep a patch if no kept one is within epsilon.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..workload import Workload

Square = npt.NDArray[np.float32]


def main() -> int:
    """Print the share kept by each order at several epsilons, in units of the median distance to the nearest patch."""
    parser = argparse.ArgumentParser(prog="python -m bench.playground.try_cover", description=__doc__)
    parser.add_argument("--patches", type=int, default=8000)
    parser.add_argument("--images", type=int, default=8, help="training images that they are drawn from")
    options = parser.parse_args()
    work = Workload()
    rows = work.descriptors(options.images).reshape(-1, 1024)
    random = np.random.default_rng(0)
    rows = rows[np.sort(random.choice(len(rows), min(options.patches, len(rows)), replace=False))]
    square = _all_pairs(rows)
    ranked = np.sort(np.partition(square, 21, axis=1)[:, :22], axis=1)
    typical = float(np.median(np.sqrt(ranked[:, 1])))
    print(f"{len(rows)} patches of {work.features}; median distance to the nearest {typical:.3g}")
    print("| epsilon | image, patch | random | densest | most within epsilon | farthest | greedy |")
    print("|---:|" + "---:|" * 6)
    for times in (0.8, 1.0, 1.5, 2.0, 3.0):
        limit = (times * typical) ** 2
        within = square <= limit
        kept = [
            _leaders(within, range(len(rows))),
            _leaders(within, random.permutation(len(rows))),
            _leaders(within, np.argsort(ranked[:, 21], kind="stable")),
            _leaders(within, np.argsort(-within.sum(axis=1), kind="stable")),
            _farthest(square, limit),
            _greedy(within),
        ]
        print(
            f"| {times * typical:.3g} | " + " | ".join(f"{count / len(rows):.1%}" for count in kept) + " |", flush=True
        )
    return 0


def _all_pairs(rows: Square) -> Square:
    rows = rows - rows.mean(axis=0)
    norms = (rows * rows).sum(axis=1)
    square = norms[:, None] + norms[None, :] - 2 * (rows @ rows.T)
    np.fill_diagonal(square, 0)
    return np.maximum(square, 0)


def _leaders(within: npt.NDArray[np.bool_], order: Iterable[int]) -> int:
    covered, kept = np.zeros(len(within), dtype=bool), 0
    for i in order:
        if not covered[i]:
            covered |= within[i]
            kept += 1
    return kept


def _farthest(square: Square, limit: float) -> int:
    distance, kept = square[0].copy(), 1
    while distance.max() > limit:
        np.minimum(distance, square[int(distance.argmax())], out=distance)
        kept += 1
    return kept


def _greedy(within: npt.NDArray[np.bool_]) -> int:
    gain, left, kept = within.sum(axis=1), np.ones(len(within), dtype=bool), 0
    while left.any():
        new = within[int(gain.argmax())] & left
        left &= ~new
        gain = gain - within[np.flatnonzero(new)].sum(axis=0)
        kept += 1
    return kept


if __name__ == "__main__":
    raise SystemExit(main())
