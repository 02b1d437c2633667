"""`InReaCh`: the one object that most users meet; its parts are its base classes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..errors import NotFittedError
from ..method.descriptors import Describer
from ..parameters import Parameters
from ..predict.bounded_search import Pace
from .compressing import Compressing
from .growing import Growing
from .network import as_backbone
from .predicting import Predicting
from .saving import Saving
from .training_scores import TrainingScores


class InReaCh(Growing, Predicting, TrainingScores, Compressing, Saving):
    """Inter-Realization Channels (McIntosh and Branzan Albu, ICCV 2023): fits unsorted images, inspects new.

    Args:
        preset: "default", "paper" or "reference".
        backbone: a name (see `Parameters`) or a `Backbone`.
        memory_limit: bytes that a fit may take beyond its seed images and one image at a time, as a whole number or
            as in "2GB"; what outgrows it goes to files (docs/training.md). None: half of the machine's memory. No
            result depends on it, and it is not saved.
        executor: where a fit describes and associates images: "local", this process, or what
            `executors.make_executor` takes. No result depends on it, and it is not saved.
        precision: what the network computes predictions in: "float32", "float16" or "bfloat16". It is not saved.
        parameters: any of `Parameters`, by keyword.

    Attributes (after `fit`, `fit_descriptors` or `load`):
        nominal_: `NominalModel`, the nominal patches and where each was seen.
        threshold_: float; `predict` calls a higher score anomalous. Chosen without labels from the
            leave-one-image-out scores of a seeded sample of ``threshold_images`` training images, by a rule
            that withstands 40 % of defective images: `threshold` gives the rule and its reason.
        report_: `FitReport`: counts and seconds of each stage.
        seed_images_: int64 (S,), the training images whose patches found the channels, ascending.
        n_images_: int, training images used. image_names_: their names, list of str.
        grid_: (h, w) patches of an image. positions_: bool, whether position channels are in use.
        transpose_score_: float, in squared 8-bit units (NaN after `fit_descriptors`).
        rotations_: None, or float64 (N,) degrees by which alignment turned each training image.
        threshold_scores_: float32, the leave-one-image-out scores that the threshold was chosen from, and
            threshold_images_: int64, whose they are.

    Results depend on the data, the parameters and ``random_state`` alone, not on batch size or backend.

    Raises:
        ParameterError: unknown parameter or value that is not allowed; the message names it.
    """

    def __init__(
        self,
        preset: str = "default",
        *,
        backbone: Any = None,
        memory_limit: int | str | None = None,
        executor: Any = "local",
        precision: str = "float32",
        **parameters: Any,
    ) -> None:
        self.memory_limit = memory_limit
        self.precision = precision
        self.executor = executor
        self._backbone = None
        if backbone is not None and not isinstance(backbone, str):
            self._backbone = as_backbone(backbone)
            backbone = backbone.name
        if backbone is not None:
            parameters["backbone"] = backbone
        self.parameters = Parameters.from_preset(preset, **parameters)
        self._lock = threading.RLock()
        self._spec = None
        self._fingerprint = None
        self._folder = None
        self._pace = Pace()
        self._describer = Describer(lambda: self.backbone, lambda: self.parameters)
        self._on_gpu = None
        self._scratch = None  # where temporary files go; None: the system's place
        self._spool = None  # of a fit that is to be saved before its spool is removed
        self._fitted = False

    if not TYPE_CHECKING:  # a type checker shall still tell a misspelt attribute

        def __getattr__(self, name: str) -> Any:
            if name.endswith("_") and not name.startswith("_") and not self.__dict__.get("_fitted"):
                raise NotFittedError(f"InReaCh: {name} is there after fit, fit_descriptors or InReaCh.load")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("InReaCh is neither pickled nor copied; save(path) writes it, and InReaCh.load(path) reads it")

    def __repr__(self) -> str:
        state = f"{len(self.nominal_)} nominal patches" if self._fitted else "not fitted"
        return f"InReaCh(preset={self.parameters.preset!r}, backbone={self.parameters.backbone!r}, {state})"
