"""What `InReaCh.predict` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array_types import FloatArray, IndexArray


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
        score_lower, score_upper: float, or float32 (B,): certified bounds of the score that plain `predict` gives;
            equal to ``score`` unless a threshold or a budget ended the search early.
        certain: bool, or bool (B,): ``is_anomalous`` is proven to be plain `predict`'s for that threshold.
        complete: bool, or bool (B,): every patch was searched, and all the above is plain `predict`'s, to the
            bit. Where it is False, ``patch_scores``, ``anomaly_map`` and ``score`` are upper bounds (of the distance
            to the ``nearest`` found so far).
        patch_scores_lower: float32 (h, w): lower bound of each patch's score, equal to ``patch_scores`` where
            that is proven.
        counts: `kernels.SearchCounts` of the search, for a batch a tuple of them; None where not counted.
    """

    score: Any
    is_anomalous: Any
    anomaly_map: FloatArray
    patch_scores: FloatArray
    nearest: IndexArray
    rotation: Any = 0.0
    original_size: Any = None
    score_lower: Any = None
    score_upper: Any = None
    certain: Any = None
    complete: Any = None
    patch_scores_lower: Any = None
    counts: Any = None

    def __post_init__(self) -> None:
        proven = np.ones(len(self), dtype=bool) if self.is_batch else True
        for name, value in (
            ("score_lower", self.score),
            ("score_upper", self.score),
            ("certain", proven),
            ("complete", proven),
            ("patch_scores_lower", self.patch_scores),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # the dataclass is frozen; this is its own constructor

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
            score_lower=float(self.score_lower[i]),
            score_upper=float(self.score_upper[i]),
            certain=bool(self.certain[i]),
            complete=bool(self.complete[i]),
            patch_scores_lower=self.patch_scores_lower[i],
            counts=None if self.counts is None else self.counts[i],
        )


def stacked(done: list[Prediction]) -> Prediction:
    """The predictions of single images, at least one, as one of a batch; `Prediction.__getitem__` undoes it."""
    return Prediction(
        score=np.array([p.score for p in done], dtype=np.float32),
        is_anomalous=np.array([p.is_anomalous for p in done], dtype=bool),
        anomaly_map=np.stack([p.anomaly_map for p in done]),
        patch_scores=np.stack([p.patch_scores for p in done]),
        nearest=np.stack([p.nearest for p in done]),
        rotation=np.array([p.rotation for p in done], dtype=np.float64),
        original_size=None if done[0].original_size is None else tuple(p.original_size for p in done),
        score_lower=np.array([p.score_lower for p in done], dtype=np.float32),
        score_upper=np.array([p.score_upper for p in done], dtype=np.float32),
        certain=np.array([p.certain for p in done], dtype=bool),
        complete=np.array([p.complete for p in done], dtype=bool),
        patch_scores_lower=np.stack([p.patch_scores_lower for p in done]),
        counts=None if done[0].counts is None else tuple(p.counts for p in done),
    )
