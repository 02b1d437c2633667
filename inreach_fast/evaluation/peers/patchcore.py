"""PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ... import kernels
from ...array_types import FloatArray, IndexArray, UInt8Array
from ...method.scoring import PATCHCORE_NEIGHBOURS, Scorer
from ...system.progress import Progress, no_progress
from .peer import Peer, PeerSettings, check_image, check_images, fitted, upsampled
from .stages import StageDescriptors

CORESET: Final = 0.1
"""Share of the patches that stay (section 4, "PatchCore-10%")."""
PROJECTED: Final = 128
"""Values of a patch after the random projection with which the coreset is chosen (the authors' program)."""
_AHEAD: Final = 512
_CHUNK: Final = 2048  # rows whose distances to the new ones fit into a cache


class PatchCore(Peer):
    """A memory of a tenth of all patches, the distance to it, and an image score weighed by the memory around it.

    Descriptors are those of layer2 and layer3 with neighbourhoods of 3 x 3 (section 3.1), the coreset is greedy
    (Algorithm 1), a patch's score is its distance to the memory, an image's score is eq. 7 with 9 neighbours
    (anomalib's number), and the map is bilinear with a Gaussian filter of sigma 4 (section 3.3).

    For N images of P patches the memory takes 0.1 * N * P rows; all rows are held while it is chosen.
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        self._describe = StageDescriptors(settings)
        self.memory: PatchMemory | None = None

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        rows = self._describe.of_all(images, progress)
        rows = rows.reshape(-1, rows.shape[2])
        kept = coreset(rows, CORESET, seed=self.settings.seed, progress=progress)
        self.memory = PatchMemory(np.ascontiguousarray(rows[kept]), self.settings.backend)

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        check_image(image, self.settings)
        memory, rows = fitted(self.memory, self), self._describe(image)
        squared = memory.sq_distances(rows)
        distances = np.sqrt(squared).reshape(self._describe.grid)
        return memory.image_score(rows, squared), upsampled(distances, self.settings.image_size)

    def parameters(self) -> dict[str, Any]:
        return {"coreset": CORESET, "projected": PROJECTED, "neighbours": PATCHCORE_NEIGHBOURS}


class PatchMemory:
    """The patches that stay, and scores by them.

    Args:
        rows: float32 (m, D). backend: of the kernels.
    """

    def __init__(self, rows: FloatArray, backend: str = "auto") -> None:
        self.bank, self.backend = kernels.Bank(rows), backend
        # The channels of a score without channels are never asked for.
        self._weighed = Scorer(self.bank, lambda: np.zeros(0, dtype=np.int64), "patchcore", "l2", backend)

    def sq_distances(self, rows: FloatArray) -> FloatArray:
        """Squared distances, float32 (n,), of patches (n, D) to the nearest one that stays."""
        return kernels.nearest(rows, self.bank, backend=self.backend).sq_distance

    def image_score(self, rows: FloatArray, scores: FloatArray) -> float:
        """Eq. 7, for the patch with the greatest of the scores (n,); its plain distance if only one patch stays."""
        at = int(np.argmax(scores))
        if len(self.bank) == 1:
            return float(np.sqrt(scores[at]))
        return float(self._weighed.patch_scores(rows[at : at + 1])[0][0])


def coreset(rows: FloatArray, share: float, *, seed: int = 0, progress: Progress = no_progress) -> IndexArray:
    """Greedy k-centre (farthest first) from row 0: the numbers of a ``share`` of rows (n, D), ascending, at least one.

    Rows of more than `PROJECTED` values are projected to so many by a random matrix of this seed, as in Algorithm 1.

    The rows that are farthest now are chosen among themselves as long as one of them is farther than all others were,
    since distances only fall. So many rows are chosen between two passes over all rows, and they are the same.
    """
    x = rows if rows.shape[1] <= PROJECTED else rows @ _projection(rows.shape[1], seed)
    wanted = max(1, round(share * len(x)))
    chosen = [0]
    least = np.full(len(x), np.inf, dtype=np.float32)
    _approach(least, x, chosen)
    while len(chosen) < wanted:
        progress("coreset", len(chosen), wanted)
        order = np.argsort(-least, kind="stable")[: _AHEAD + 1]
        others = least[order[-1]] if len(order) > _AHEAD else -np.inf
        ahead = np.sort(order[:_AHEAD])
        own, between = least[ahead], _sq_distances(x[ahead], x[ahead])
        new: list[int] = []
        while len(chosen) + len(new) < wanted:
            at = int(np.argmax(own))
            if new and own[at] <= others:
                break
            new.append(int(ahead[at]))
            np.minimum(own, between[at], out=own)
            own[at] = -np.inf
        _approach(least, x, new)
        chosen += new
    progress("coreset", wanted, wanted)
    return np.sort(np.array(chosen, dtype=np.int64))


def _approach(least: FloatArray, x: FloatArray, new: list[int]) -> None:
    """Lowers the squared distances ``least`` (n,) by those to the rows ``new``, which are never the farthest again."""
    for first in range(0, len(x), _CHUNK):
        part = slice(first, first + _CHUNK)
        np.minimum(least[part], _sq_distances(x[part], x[new]).min(axis=1), out=least[part])
    least[new] = -np.inf


def _sq_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    found: FloatArray = a @ b.T
    found *= -2
    found += (a * a).sum(axis=1)[:, None]
    found += (b * b).sum(axis=1)
    return found


def _projection(dim: int, seed: int) -> FloatArray:
    drawn = np.random.default_rng(seed).standard_normal((dim, PROJECTED), dtype=np.float32)
    return np.asarray(drawn / np.float32(np.sqrt(PROJECTED)))
