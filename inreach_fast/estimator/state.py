"""What `InReaCh` knows, and what a fit leaves in it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..array_types import DoubleArray, FloatArray, IndexArray
from ..errors import MixedSizesError, NotFittedError
from ..fit.growth_state import GrowthState
from ..fit.nominate import Fitted
from ..fit.report import FitReport
from ..images.alignment import Alignment
from ..method.descriptors import Describer
from ..method.nominal_model import NominalModel
from ..method.scoring import Scorer, anomaly_map
from ..method.threshold import robust_threshold
from ..parameters import Parameters
from ..predict.bounded_search import Pace
from ..storage.spool import Spool
from .descriptor_references import Reference

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..predict.gpu.slots import GpuSlots


class State:
    """Attributes of `InReaCh`, which documents the public ones, and what its parts ask of them.

    What a fit leaves is not there before: its names say so (`InReaCh.__getattr__`), or ``_fitted`` does.
    """

    parameters: Parameters
    _lock: threading.RLock
    _fitted: bool

    # The network; of a loaded model, what it is rebuilt from, which it must be, and the model's folder (`network`).
    _backbone: Backbone | None
    _spec: dict[str, Any] | None
    _fingerprint: str | None
    _folder: Path | None

    # From network inputs to descriptors; evaluation puts one with a cache in its place.
    _describer: Describer

    # Where a fit puts what outgrows memory, and the spool that it left (`fitting`).
    _scratch: Path | None
    _spool: Spool | None

    # What a fit leaves.
    nominal_: NominalModel
    grid_: tuple[int, int]
    n_images_: int
    image_names_: list[str]
    seed_images_: IndexArray
    positions_: bool
    transpose_score_: float
    rotations_: DoubleArray | None
    threshold_: float
    threshold_scores_: FloatArray
    threshold_images_: IndexArray
    report_: FitReport
    _alignment: Alignment | None
    _from_descriptors: bool
    _described: list[Reference | None] | None
    _growth: GrowthState | None
    _grown_nominal: NominalModel | None

    # What predictions prepare, and what they have learnt of this machine.
    _scorer: Scorer | None
    _pace: Pace
    _on_gpu: tuple[Any, GpuSlots | None] | None

    def _check_fitted(self) -> None:
        if not self._fitted:
            raise NotFittedError("InReaCh: not fitted yet; call fit, fit_descriptors or InReaCh.load first")

    def _check_shape(self, array: FloatArray) -> None:
        wanted = (self.grid_[0] * self.grid_[1], self.nominal_.patches.shape[1])
        if array.shape[1:] != wanted:
            raise MixedSizesError(f"x: the model was fitted on (P, D) = {wanted}, these are {array.shape[1:]}")

    def _take(self, fitted: Fitted) -> None:
        """Makes a fit's outcome this model's."""
        alignment = fitted.alignment
        self.nominal_ = fitted.nominal
        self.grid_ = fitted.grid
        self.n_images_ = len(fitted.image_names)
        self.image_names_ = fitted.image_names
        self.seed_images_ = fitted.seed_images
        self.positions_ = fitted.positions
        self.transpose_score_ = float("nan") if alignment is None else alignment.score_before
        self._alignment = alignment if alignment is not None and alignment.kept else None
        self.rotations_ = None if self._alignment is None else self._alignment.angles.astype(np.float64)
        self.threshold_scores_ = fitted.threshold_scores
        self.threshold_images_ = fitted.threshold_images
        self.threshold_ = robust_threshold(fitted.threshold_scores)
        self.report_ = fitted.report
        self._growth = fitted.growth
        self._grown_nominal = fitted.nominal
        self._scorer = None
        self._fitted = True

    def _current(self, state: GrowthState) -> Fitted:
        """This model, as a fit would have handed it over."""
        return Fitted(
            self.nominal_,
            self.grid_,
            self.image_names_,
            self.seed_images_,
            self.positions_,
            self._alignment,
            self.threshold_scores_,
            self.threshold_images_,
            self.report_,
            state,
        )

    def _growth_state(self) -> GrowthState | None:
        """What growing needs, as long as it is of the patches that the model has."""
        return self._growth if self.nominal_ is self._grown_nominal else None

    def _map(self, patch_scores: FloatArray) -> FloatArray:
        return anomaly_map(patch_scores, self.parameters.image_size, self.parameters.smoothing_sigma)

    def _get_scorer(self) -> Scorer:
        with self._lock:
            if self._scorer is None or self._scorer.bank is not self.nominal_.bank:
                p, nominal, patches = self.parameters, self.nominal_, self.grid_[0] * self.grid_[1]
                self._scorer = Scorer(
                    nominal.bank,
                    lambda: nominal.channel_seed_image * patches + nominal.channel_seed_patch,
                    p.score,
                    p.distance,
                    p.kernel_backend,
                )
            return self._scorer
