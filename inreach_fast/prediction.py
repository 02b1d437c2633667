"""What `InReaCh.predict` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Scores of one image, or of a batch of B images (every array then has a leading axis of B).

    Attributes:
        score: float, or float32 (B,): the map's maximum (ALGORITHM section 6).
        is_anomalous: bool, or bool (B,): ``score`` above the model's threshold.
        anomaly_map: float32 (H, W): smoothed map in the frame of the network's input (H, W =
            ``image_size``), rotated back where the image was aligned.
            `InReaCh.map_to_original` brings it to the frame of the picture that was read.
        patch_scores: float32 (h, w): score of each patch, in the network's (and, aligned, the rotated) frame.
        nearest: int64 (h, w): the nearest nominal patch, a row of `NominalModel.patches`; its
            ``image_index`` and ``patch_index`` tell where it was seen.
        rotation: degrees by which alignment turned the image before scoring; 0.0 without alignment.
        original_size: (height, width) in pixels of the picture as it was given, for a batch a tuple of them;
            None where descriptors were scored.
    """

    score: Any
    is_anomalous: Any
    anomaly_map: FloatArray
    patch_scores: FloatArray
    nearest: IndexArray
    rotation: Any = 0.0
    original_size: Any = None

    @property
    def is_batch(self) -> bool:
        """Whether the arrays have a leading axis for the images of a batch."""
        return self.anomaly_map.ndim == 3

    def __len__(self) -> int:
        return len(self.anomaly_map) if self.is_batch else 1

    def __getitem__(self, i: int) -> Prediction:
        """The prediction of image ``i`` of a batch, as for one image; IndexError outside it."""
        if not self.is_batch:
            raise IndexError("the prediction of a single image cannot be indexed; only a batch's can")
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of a batch of {len(self)}")
        sizes = self.original_size
        return Prediction(
            score=float(self.score[i]),
            is_anomalous=bool(self.is_anomalous[i]),
            anomaly_map=self.anomaly_map[i],
            patch_scores=self.patch_scores[i],
            nearest=self.nearest[i],
            rotation=float(np.asarray(self.rotation)[i]),
            original_size=None if sizes is None else sizes[i],
        )
