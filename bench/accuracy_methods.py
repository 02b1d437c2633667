"""The contestants of `bench.accuracy` that work on shared descriptors: ours, and named peers' rules.

All of them get the same rows, (N, P, D) float32 for N training images of P patches on one grid, so that they differ
in the rule alone. Each gives patch scores of new images, leave-one-image-out patch scores of the training images
where its rule has them, and the bytes that it has to keep.

* every patch: all patches, the nearest one's squared distance.
* reachability: all patches, each reached only as far as another image confirms it (docs/architecture.md).
* patchcore: `evaluation.peers.patchcore`'s coreset and image score. The map has squared distances.
* softpatch: `evaluation.peers.softpatch`'s outlier factors, coreset and weighed distances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inreach_fast import kernels
from inreach_fast.evaluation.peers.patchcore import CORESET, PatchMemory, coreset
from inreach_fast.evaluation.peers.softpatch import WeighedMemory
from inreach_fast.method.nominal_model import NominalModel
from inreach_fast.system.progress import no_progress

Rows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """A rule on its training images.

    Attributes:
        score: patch scores (P,) of an image's rows (P, D).
        own: leave-one-image-out patch scores (N, P), or None.
        stored: bytes that the rule has to keep for scoring.
        image_score: from rows (P, D) and patch scores (P,) to the image's score; None for the map's greatest value.
    """

    score: Callable[[Rows], Scores]
    own: Scores | None
    stored: int
    image_score: Callable[[Rows, Scores], float] | None = None


def every_patch(rows: Rows) -> Fitted:
    """All patches, none weighed."""
    n, p, d = rows.shape
    bank = kernels.Bank(rows.reshape(-1, d), np.repeat(np.arange(n), p))
    own = np.stack([kernels.nearest(rows[i], bank, query_group=np.full(p, i)).sq_distance for i in range(n)])
    return Fitted(lambda x: kernels.nearest(x, bank).sq_distance, own, rows.nbytes)


def reachability(rows: Rows) -> Fitted:
    """All patches, each reached only as far as another image confirms it."""
    n, p, d = rows.shape
    image, patch = np.repeat(np.arange(n), p), np.tile(np.arange(p), n)
    unknown = np.full(n * p, -1)
    model = NominalModel(rows.reshape(-1, d), image, patch, unknown, unknown).confirmed(1, "auto", no_progress)
    own = np.empty((n, p), dtype=np.float32)
    for i in range(n):
        floor = model.without_testimony(i, rows[i], 1, "auto")
        own[i] = kernels.nearest(rows[i], model.bank, query_group=np.full(p, i), bank_floor=floor).sq_distance
    return Fitted(lambda x: kernels.nearest(x, model.bank).sq_distance, own, rows.nbytes + 4 * n * p)


def patchcore(rows: Rows) -> Fitted:
    """A coreset of 10 %, with the re-weighted image score."""
    flat = rows.reshape(-1, rows.shape[2])
    memory = PatchMemory(np.ascontiguousarray(flat[coreset(flat, CORESET)]))
    return Fitted(memory.sq_distances, None, memory.bank.rows.nbytes, memory.image_score)


def softpatch(rows: Rows) -> Fitted:
    """Patches weighed by their local outlier factor, the greatest factors cut, a coreset of the rest."""
    memory = WeighedMemory.of(rows)
    return Fitted(memory.scores, None, memory.bank.rows.nbytes + memory.weight.nbytes)


RULES: dict[str, Callable[[Rows], Fitted]] = {
    "reachability": reachability,
    "every patch": every_patch,
    "patchcore": patchcore,
    "softpatch": softpatch,
}
