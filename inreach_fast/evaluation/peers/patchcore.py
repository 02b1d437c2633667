"""PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from ... import kernels
from ...array_types import FloatArray, IndexArray, UInt8Array
from ...method.scoring import PATCHCORE_NEIGHBOURS, Scorer
from ...system.progress import Progress, no_progress
from ...system.threads import before_torch
from .peer import Peer, PeerSettings, check_image, check_images, upsampled
from .stages import StageDescriptors

CORESET: Final = 0.1
"""Share of the patches that stay (section 4.2, "PatchCore-10%")."""
PROJECTED: Final = 128
"""Values of a patch after the random projection with which the coreset is chosen (section 3.2)."""


class PatchCore(Peer):
    """A memory of a tenth of all patches, the distance to it, and an image score weighed by the memory around it.

    Descriptors are those of layer2 and layer3 with neighbourhoods of 3 x 3 (section 3.1), the coreset is greedy
    (Algorithm 1), a patch's score is its distance to the memory, an image's score is eq. 7 with 9 neighbours, and the
    map is bilinear with a Gaussian filter of sigma 4 (section 3.3).

    For N images of P patches the memory takes 0.1 * N * P rows; all rows are held while it is chosen.
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        self._describe = StageDescriptors(settings)

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        rows = self._describe.of_all(images, progress)
        rows = rows.reshape(-1, rows.shape[2])
        kept = coreset(rows, CORESET, seed=self.settings.seed, progress=progress)
        self.memory = PatchMemory(np.ascontiguousarray(rows[kept]), self.settings.backend)

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        check_image(image, self.settings)
        rows = self._describe(image)
        squared = self.memory.sq_distances(rows)
        distances = np.sqrt(squared).reshape(self._describe.grid)
        return self.memory.image_score(rows, squared), upsampled(distances, self.settings.image_size)

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
    """
    before_torch(torch.get_num_threads())
    x = torch.from_numpy(np.ascontiguousarray(rows))
    if x.shape[1] > PROJECTED:
        x = x @ torch.from_numpy(_projection(x.shape[1], seed))
    norm = (x * x).sum(dim=1)
    wanted = max(1, round(share * len(x)))
    chosen = np.empty(wanted, dtype=np.int64)
    least = torch.full((len(x),), torch.inf)
    at = 0
    for place in range(wanted):
        if place % 256 == 0:
            progress("coreset", place, wanted)
        chosen[place] = at
        torch.minimum(least, norm + norm[at] - 2 * (x @ x[at]), out=least)
        least[at] = -torch.inf  # rounding or copies must not choose it again
        at = int(torch.argmax(least))
    progress("coreset", wanted, wanted)
    return np.sort(chosen)


def _projection(dim: int, seed: int) -> FloatArray:
    drawn = np.random.default_rng(seed).standard_normal((dim, PROJECTED), dtype=np.float32)
    return np.asarray(drawn / np.float32(np.sqrt(PROJECTED)))
