"""What the protocol asks of a method: `InReaChContestant` and `PeerContestant`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..array_types import FloatArray, UInt8Array
from ..errors import ImageError, NonFiniteError, ParameterError, TooFewImagesError
from ..estimator import InReaCh
from ..images.reading import read_image
from ..method.scoring import anomaly_map
from ..system.progress import Progress
from .feature_cache import CachedDescriber, FeatureCache
from .peers import PeerSettings, make_peer

#: Parameters of `InReaCh` that all methods share.
_SHARED = (
    "backbone", "weights", "depth", "device", "backbone_runtime", "normalisation", "image_size", "resize", "bit_depth",
    "max_pixels", "random_state", "backend",
)  # fmt: skip


class Scored(NamedTuple):
    """A test image's score, and its map, float32 (H, W) at the network's input, rotated by ``degrees`` as the image."""

    score: float
    anomaly_map: FloatArray
    degrees: int


class Contestant(ABC):
    """A method on its way through the protocol.

    Attributes:
        model: holds the parameters that all methods share, and the network; for InReaCh it is the model itself.
    """

    def __init__(self, model: InReaCh) -> None:
        self.model = model

    @abstractmethod
    def fit(self, paths: Sequence[Path], *, skip_bad: bool, progress: Progress | None) -> set[str]:
        """Fits image files; the names of those that could be read. Raises ImageError unless ``skip_bad``."""

    @abstractmethod
    def predict(self, path: Path) -> Scored:
        """Scores an image file."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Attributes of a `ClassResult` that the method alone knows; after `fit`."""


class InReaChContestant(Contestant):
    """InReaCh, with descriptors from a cache if there is one."""

    def __init__(self, model: InReaCh, cache: FeatureCache | None) -> None:
        super().__init__(model)
        if cache is not None:
            model._describer = CachedDescriber(model._describer, cache)

    def fit(self, paths: Sequence[Path], *, skip_bad: bool, progress: Progress | None) -> set[str]:
        self.model.fit(list(paths), skip_bad=skip_bad, progress=progress)
        return set(self.model.image_names_)

    def predict(self, path: Path) -> Scored:
        prediction = self.model.predict(path)
        degrees, values = int(prediction.rotation), prediction.anomaly_map
        if degrees:
            # The prediction's map was rotated back, so its corners have no values: use the one before.
            values = anomaly_map(prediction.patch_scores, values.shape, self.model.parameters.smoothing_sigma)
        return Scored(float(prediction.score), values, degrees)

    def facts(self) -> dict[str, Any]:
        return {
            "backbone": self.model.backbone.name,
            "parameters": self.model.parameters.as_dict(),
            "transpose_score": self.model.transpose_score_,
            "positions": bool(self.model.positions_),
            "fit_report": self.model.report_.as_dict(),
        }


class PeerContestant(Contestant):
    """A peer, on the images that InReaCh's network would see; it rotates none of them.

    Raises:
        ParameterError: no such method, or a parameter that peers do not know (roi, tile, quantization).
    """

    def __init__(
        self, method: str, model: InReaCh, cache: FeatureCache | None, training_steps: int | None = None
    ) -> None:
        super().__init__(model)
        p = model.parameters
        for name in ("roi", "tile", "quantization"):
            if getattr(p, name) is not None:
                raise ParameterError(f"{name}: {method} does not know it; leave it out, or evaluate inreach alone")
        self._images, self._backbone = 0, "its own"
        self._peer = make_peer(
            method,
            PeerSettings(
                image_size=p.image_size,
                backbone=self._shared_backbone,
                seed=p.random_state,
                training_steps=training_steps,
                folder=None if cache is None else cache.folder / "peers",
                cache=cache,
                backend=p.backend,
            ),
        )

    def fit(self, paths: Sequence[Path], *, skip_bad: bool, progress: Progress | None) -> set[str]:
        images, names = list[UInt8Array](), list[str]()
        for path in paths:
            try:
                images.append(self._read(path))
            except ImageError:
                if not skip_bad:
                    raise
            else:
                names.append(str(path))
        if not images:
            raise TooFewImagesError("images: none of the training images can be read; check the folder")
        self._images = len(images)
        try:
            self._peer.fit(images, **({} if progress is None else {"progress": progress}))
        except NonFiniteError as error:  # it names the image by its number
            raise NonFiniteError(re.sub(r"images\[(\d+)\]", lambda n: names[int(n[1])], str(error))) from error
        return set(names)

    def predict(self, path: Path) -> Scored:
        try:
            score, values = self._peer.predict(self._read(path))
        except NonFiniteError as error:
            raise NonFiniteError(f"{path}: {error}") from error
        return Scored(score, values, 0)

    def facts(self) -> dict[str, Any]:
        shared = self.model.parameters.as_dict()
        return {
            "backbone": self._backbone,
            "parameters": {name: shared[name] for name in _SHARED} | self._peer.parameters(),
            "transpose_score": None,
            "positions": False,
            "fit_report": {"images": self._images, "seconds": {}},
        }

    def _shared_backbone(self) -> Any:
        self._backbone = self.model.backbone.name
        return self.model.backbone

    def _read(self, path: Path) -> UInt8Array:
        return self.model.geometry.apply(read_image(path, self.model.pixel_rule))
