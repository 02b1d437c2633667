"""The contestants of `bench.accuracy` that work on shared descriptors: ours, and named peers' rules.

All of them get the same rows, (N, P, D) float32 for N training images of P patches on one grid, so that they differ
in the rule alone. Each gives patch scores of new images, leave-one-image-out patch scores of the training images
where its rule has them, and the bytes that it has to keep.

* every patch: all patches, the nearest one's squared distance.
* reachability: all patches, each reached only as far as another image confirms it (docs/architecture.md).
* patchcore (Roth et al., CVPR 2022): a greedy k-centre coreset of 10 %; the image score is the greatest patch's
  distance weighted by eq. 7 (9 neighbours). The map has squared distances.
* softpatch (Jiang et al., NeurIPS 2022): at each place of the grid, the local outlier factor (6 neighbours) of each
  image's patch among all images'; the 15 % of the patches with the greatest factor go, a coreset of 10 % of the rest
  stays, and a distance counts times the factor of the patch that it is measured to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inreach_fast import kernels
from inreach_fast.method.nominal_model import NominalModel
from inreach_fast.system.progress import no_progress

Rows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

CORESET, NEIGHBOURS = 0.1, 9
LOF_NEIGHBOURS, OUTLIERS = 6, 0.15


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
    bank = kernels.Bank(np.ascontiguousarray(flat[coreset(flat, CORESET)]))
    return Fitted(lambda x: kernels.nearest(x, bank).sq_distance, None, bank.rows.nbytes, partial(_reweighted, bank))


def _reweighted(bank: Any, rows: Rows, scores: Scores) -> float:
    """Eq. 7 of PatchCore, of the patch with the greatest distance."""
    at = int(np.argmax(scores))
    found = kernels.nearest(rows[at : at + 1], bank)
    nearest = bank.rows[found.index]
    around = kernels.nearest(nearest, bank, k=min(NEIGHBOURS, len(bank))).index.ravel()
    distance = np.linalg.norm(bank.rows[around].astype(np.float64) - rows[at], axis=1)
    greatest = float(np.sqrt(found.sq_distance[0]))
    # 1 - exp(s) / sum exp(d), in a form that does not overflow.
    return (1.0 - 1.0 / float(np.exp(distance - greatest).sum())) * greatest if len(around) > 1 else greatest


def softpatch(rows: Rows) -> Fitted:
    """Patches weighed by their local outlier factor, the greatest factors cut, a coreset of the rest."""
    factor = outlier_factors(rows).ravel()
    flat = rows.reshape(-1, rows.shape[2])
    kept = np.flatnonzero(factor <= np.quantile(factor, 1.0 - OUTLIERS))
    kept = kept[coreset(flat[kept], CORESET)]
    bank, weight = kernels.Bank(np.ascontiguousarray(flat[kept])), factor[kept].astype(np.float32)

    def score(x: Rows) -> Scores:
        found = kernels.nearest(x, bank)
        return np.asarray(np.sqrt(found.sq_distance) * weight[found.index], dtype=np.float32)

    return Fitted(score, None, bank.rows.nbytes + weight.nbytes)


def outlier_factors(rows: Rows) -> npt.NDArray[np.float64]:
    """Local outlier factor (Breunig et al. 2000) of each patch among those of its place, (N, P)."""
    n, p, _ = rows.shape
    k = min(LOF_NEIGHBOURS, n - 1)
    found = np.empty((n, p))
    for place in range(p):
        x = rows[:, place].astype(np.float64)
        distance = np.sqrt(np.maximum(((x[:, None] - x[None]) ** 2).sum(axis=2), 0.0))
        np.fill_diagonal(distance, np.inf)
        near = np.argsort(distance, axis=1, kind="stable")[:, :k]
        at = np.take_along_axis(distance, near, axis=1)
        reachable = np.maximum(at, at[near, -1])
        density = 1.0 / np.maximum(reachable.mean(axis=1), 1e-12)
        found[:, place] = density[near].mean(axis=1) / density
    return found


def coreset(rows: Rows, share: float) -> npt.NDArray[np.int64]:
    """Greedy k-centre (farthest first) from row 0: the numbers of ``share`` of the rows, ascending."""
    x = torch.from_numpy(np.ascontiguousarray(rows))
    norm = (x * x).sum(dim=1)
    wanted = max(1, round(share * len(x)))
    chosen = np.empty(wanted, dtype=np.int64)
    least = torch.full((len(x),), torch.inf)
    at = 0
    for place in range(wanted):
        chosen[place] = at
        torch.minimum(least, norm + norm[at] - 2 * (x @ x[at]), out=least)
        at = int(torch.argmax(least))
    return np.sort(chosen)


RULES: dict[str, Callable[[Rows], Fitted]] = {
    "reachability": reachability,
    "every patch": every_patch,
    "patchcore": patchcore,
    "softpatch": softpatch,
}
