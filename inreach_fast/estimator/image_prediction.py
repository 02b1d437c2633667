"""One image's way to its `Prediction` (paper, section 3.4): read, turned, searched here or on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import kernels
from ..array_types import FloatArray, UInt8Array
from ..errors import BackboneMismatchError, ParameterError
from ..images.alignment import rotate_map_back
from ..method.descriptors import position_channels
from ..predict.bounded_search import Limits, bounded_scores, whole_scores
from ..predict.prediction import Prediction
from ..predict.stream import Ready
from .network import WithNetwork

if TYPE_CHECKING:
    from ..predict.gpu.inference import GpuScores
    from ..predict.gpu.slots import GpuSlots


class ImagePrediction(WithNetwork):
    """The part of `InReaCh` that takes one image to its prediction."""

    @property
    def precision(self) -> str:
        """What the network's products are computed in by `predict` and `predict_stream`: "float32", or "float16" or
        "bfloat16", which are faster on a GPU and change the features. A fit is always float32. How far a half
        disagrees on one's own images tells `precision.disagreement`.
        """
        return self._precision

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in ("float32", "float16", "bfloat16"):
            raise ParameterError(f"precision: expected 'float32', 'float16' or 'bfloat16', got {value!r}")
        self._precision = value

    def _limits(self, threshold: float | None, budget_ms: float | None) -> Limits:
        limits = Limits.of(threshold, budget_ms)
        if limits.budget is not None and self.parameters.score != "nearest":
            raise ParameterError(
                f'budget_ms: score="{self.parameters.score}" has no bounds to stop at; leave the budget out, or fit '
                'with score="nearest"'
            )
        return limits

    def _check_has_network(self) -> None:
        if self._from_descriptors:
            raise BackboneMismatchError(
                "predict: the model was fitted on descriptors of the caller's own backbone; give "
                "score_descriptors the descriptors of the image"
            )

    def _ready(self, image: UInt8Array) -> Ready:
        network_input, degrees = self.geometry.apply(image), 0
        if self._alignment is not None:
            network_input, degrees = self._alignment.apply(network_input)
        return Ready(network_input, degrees, (int(image.shape[0]), int(image.shape[1])))

    def _predicted(
        self, rows: FloatArray, degrees: int, size: tuple[int, int] | None, limits: Limits, begun: float
    ) -> Prediction:
        threshold = self.threshold_ if limits.threshold is None else limits.threshold
        scorer = self._get_scorer()
        if limits.any and scorer.score == "nearest":
            p = self.parameters
            found = bounded_scores(
                scorer,
                rows,
                self.grid_,
                p.image_size,
                p.smoothing_sigma,
                self._map,
                beside=lambda rows, down, right: self.nominal_.beside(rows, down, right, self.grid_),
                threshold=limits.threshold,
                deadline=None if limits.budget is None else begun + limits.budget,
                pace=self._pace,
            )
        else:
            found = whole_scores(scorer, rows, lambda values: self._map(values.reshape(self.grid_)))
        smoothed, score = found.anomaly_map, found.score_upper
        return Prediction(
            score=score,
            is_anomalous=score > threshold,
            anomaly_map=rotate_map_back(smoothed, degrees) if degrees else smoothed,
            patch_scores=found.upper.reshape(self.grid_),
            nearest=found.nearest.reshape(self.grid_),
            rotation=float(degrees),
            original_size=size,
            score_lower=found.score_lower,
            score_upper=found.score_upper,
            certain=found.certain(threshold),
            complete=found.complete,
            patch_scores_lower=found.lower.reshape(self.grid_),
            counts=found.counts,
        )

    def _gpu(self) -> GpuSlots | None:
        """The way through the GPU, where network and kernels are there and the score is the plain one."""
        p = self.parameters
        if p.device.partition(":")[0] != "cuda" or p.score != "nearest" or p.distance != "squared_l2":
            return None
        backend = p.kernel_backend
        if not kernels.is_gpu_name(backend):
            return None
        with self._lock:
            backbone, nominal = self.backbone, self.nominal_
            # Of the objects themselves: what `id` says of one may be another's when it is gone.
            of = (nominal, backbone, self._precision)
            if self._on_gpu is None or any(a is not b for a, b in zip(self._on_gpu[0], of, strict=True)):
                from ..predict.gpu.inference import GpuModel
                from ..predict.gpu.slots import open_slots

                channels = position_channels(self.grid_, p.position_weight) if self.positions_ else None
                setting = GpuModel(
                    nominal.bank, self.grid_, p.image_size, p.dim, p.neighbourhood, p.smoothing_sigma, channels
                )
                self._on_gpu = None  # gives the old one's memory back first
                self._on_gpu = (of, open_slots(setting, backbone, backend, self._precision))
            return self._on_gpu[1]

    def _predicted_on_gpu(
        self, found: GpuScores, degrees: int, size: tuple[int, int] | None, limits: Limits
    ) -> Prediction:
        threshold = self.threshold_ if limits.threshold is None else limits.threshold
        return Prediction(
            score=found.score,
            is_anomalous=found.score > threshold,
            anomaly_map=rotate_map_back(found.anomaly_map, degrees) if degrees else found.anomaly_map,
            patch_scores=found.patch_scores,
            nearest=found.nearest,
            rotation=float(degrees),
            original_size=size,
            counts=found.counts,
        )
