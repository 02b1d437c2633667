"""Predictions: what `InReaCh.predict` returns, and the fitted model made ready to compute it (paper, section 3.4)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import ExplanationError, NonFiniteError, ParameterError
from ..images.alignment import Alignment, rotate_map_back
from ..images.pixels import PixelRule
from ..images.preprocess import Geometry
from ..images.reading import as_image
from ..method.descriptors import Describer, DescriptorSpace, bad_features
from ..method.feedback import FeedbackBanks
from ..method.nominal_model import NominalModel
from ..method.scoring import MapFrame, Scorer, frame_of, image_score
from ..parameters import Parameters, real_number
from .bounded_search import BoundedScores, BoundedSearch, Limits, SearchSpeed
from .explanation import Explainer, Explanation, TrainingEvidence
from .stream import in_stream
from .thread_choice import ThreadChoice

if TYPE_CHECKING:
    from .gpu.inference import GpuScores
    from .gpu.slots import GpuSlots


@dataclass(frozen=True, eq=False)
class Prediction:
    """Scores of one image, or of a batch of B images (every array then has a leading axis of B).

    Attributes:
        score: float, or float32 (B,): the map's maximum (ALGORITHM section 6).
        is_anomalous: bool, or bool (B,): whether ``score`` exceeds the threshold.
        anomaly_map: float32 (H, W): smoothed map in the frame of the network's input (H, W = ``image_size``, or all
            tiles), rotated back if the image was aligned; NaN outside of the region of interest.
            `InReaCh.map_to_original` brings it to the frame of the original picture.
        patch_scores: float32 (h, w): score of each patch, in the frame of the network's (aligned: rotated) input; NaN
            outside of the region of interest.
        nearest: int64 (h, w): the nearest nominal patch, a row of `NominalModel.patches`; its ``image_index`` and
            ``patch_index`` tell where it was seen. -1 outside of the region of interest.
        rotation: float, or float64 (B,): degrees by which alignment rotated the image; 0.0 without alignment.
        original_size: (height, width) in pixels of the picture as given, for a batch a tuple of them; None if
            descriptors were scored.
        score_lower, score_upper: float, or float32 (B,): certified bounds of the score of plain `predict`; equal to
            ``score`` unless a threshold or a budget ended the search early.
        certain: bool, or bool (B,): ``is_anomalous`` is proven to be plain `predict`'s for that threshold.
        complete: bool, or bool (B,): every patch was searched, and everything is plain `predict`'s, to the bit. If
            False, ``patch_scores``, ``anomaly_map`` and ``score`` are upper bounds (distances to ``nearest``, the
            nearest patch found so far).
        patch_scores_lower: float32 (h, w): lower bound of each patch's score, equal to ``patch_scores`` if proven.
        counts: `kernels.SearchCounts` of the search, for a batch a tuple of them.
        runtime: name of what computed the network if it is another than in the fit, so that scores may differ in
            their last digits; None if it is the fit's.
        feedback: int64 (h, w): number of the feedback (`InReaCh.accept`, `InReaCh.reject`) that a patch's score is due
            to, 0 for none; None if the model has no feedback.
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
    runtime: str | None = None
    feedback: Any = None
    _explainer: Explainer | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        proven = np.ones(len(self), dtype=bool) if self.is_batch else True
        defaults = {"score_lower": self.score, "score_upper": self.score, "certain": proven, "complete": proven}
        for name, value in {**defaults, "patch_scores_lower": self.patch_scores}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # a frozen dataclass sets its own fields so

    def __getstate__(self) -> dict[str, Any]:
        # A pickle holds the prediction and not its model.
        return {**self.__dict__, "_explainer": None}

    @property
    def is_batch(self) -> bool:
        """Whether the arrays have a leading axis for the images of a batch."""
        return self.anomaly_map.ndim == 3

    @property
    def due_to(self) -> list[int]:
        """The numbers of the feedback that scores of patches are due to, ascending."""
        return [] if self.feedback is None else [number for number in np.unique(self.feedback).tolist() if number]

    def __len__(self) -> int:
        return len(self.anomaly_map) if self.is_batch else 1

    def __getitem__(self, i: int) -> Prediction:
        """The prediction of image ``i`` of a batch, as for one image; IndexError outside it."""
        if not self.is_batch:
            raise IndexError("the prediction of a single image cannot be indexed; only a batch's can")
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of a batch of {len(self)}")
        values = {name: getattr(self, name) for name in _VALUES}
        one = {name: None if value is None else value[i] for name, value in values.items() if name != "rotation"}
        scalars = {name: value.item() for name, value in one.items() if isinstance(value, np.generic)}
        whole = {
            "rotation": float(np.asarray(self.rotation)[i]),
            "runtime": self.runtime,
            "_explainer": self._explainer,
        }
        return Prediction(**{**one, **scalars, **whole})

    def explain(self, most: int = 5, *, threshold: float | None = None) -> Explanation:
        """Why the image was scored as it was: its worst regions, and the training images that are nearest to them.

        The model is kept in memory as long as its predictions; a pickled prediction does without it.

        Args:
            most: number of regions, at least 1.
            threshold: of the regions and the verdict, instead of the one that the image was predicted with.

        Returns:
            `Explanation`; its boxes are in pixels of the original image.

        Raises:
            ParameterError: a batch, whose images are explained one by one; or ``most``. ExplanationError: the
            prediction was pickled or copied. ModelCorruptError, ModelChangedError: the model's file.
        """
        if self.is_batch:
            raise ParameterError(
                "explain: this is the prediction of a batch; explain one image of it, as in prediction[0].explain()"
            )
        if self._explainer is None:
            raise ExplanationError(
                "explain: the prediction no longer has its model (it was pickled, or made by hand); predict again"
            )
        names = ("score", "complete", "anomaly_map", "patch_scores", "nearest", "rotation", "original_size", "feedback")
        limit = self._explainer.threshold if threshold is None else real_number("threshold", threshold, zero=True)
        explainer = replace(self._explainer, threshold=limit)
        return explainer.explain(**{name: getattr(self, name) for name in names}, most=most)


# What each image of a batch has its own of.
_VALUES = tuple(f.name for f in fields(Prediction) if f.name not in ("runtime", "_explainer"))


def stacked(done: list[Prediction]) -> Prediction:
    """Predictions of single images, at least one, as those of a batch; `Prediction.__getitem__` is the inverse."""
    values: dict[str, Any] = {"runtime": done[0].runtime}
    for name in _VALUES:
        parts = [getattr(one, name) for one in done]
        if parts[0] is None or name in ("original_size", "counts"):
            values[name] = None if parts[0] is None else tuple(parts)
        else:
            values[name] = np.stack(parts)
            if values[name].dtype == np.float64 and name != "rotation":
                values[name] = values[name].astype(np.float32)
    return Prediction(**values, _explainer=done[0]._explainer)


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """An image as the network sees it."""

    name: str  # for errors
    pixels: UInt8Array  # (H, W, 3)
    degrees: int  # by which alignment rotated it
    size: tuple[int, int]  # (height, width) of the original image


@dataclass(frozen=True, eq=False)
class Predictor:
    """A fitted model made ready to predict: everything that images have in common."""

    nominal: NominalModel
    scorer: Scorer
    describer: Describer
    precision: str  # of the network's products
    geometry: Geometry
    alignment: Alignment | None  # None unless images are rotated
    grid: tuple[int, int]  # (h, w) patches of an image
    space: DescriptorSpace
    parameters: Parameters
    evidence: TrainingEvidence
    other_runtime: str | None = None  # of the network, if it is not the fit's
    feedback: FeedbackBanks | None = None
    threads: ThreadChoice | None = None  # None: as many as kernels and torch have
    speed: SearchSpeed = field(default_factory=SearchSpeed)

    def _at_work(self, count: int) -> AbstractContextManager[None]:
        """Within it ``count`` images are described and scored."""
        return nullcontext() if self.threads is None else self.threads.images(count)

    @cached_property
    def frame(self) -> MapFrame:
        """Where the patches of an image lie, and their map."""
        return frame_of(self.parameters, self.grid)

    @property
    def without_feedback(self) -> Scorer:
        """The scorer by the nominal patches alone, all of them."""
        return self.evidence.scorer

    @cached_property
    def gpu(self) -> GpuSlots | None:
        """Network, search and map on one GPU, if both the network and the kernels are on it, the score is the squared
        distance, and there is no feedback, region of interest or tile; else None.
        """
        p, backend = self.parameters, self.scorer.backend
        on_gpu = p.device.partition(":")[0] == "cuda" and kernels.is_gpu_name(backend)
        if not on_gpu or p.score != "nearest" or p.distance != "squared_l2" or self.space.projection is not None:
            return None
        if self.feedback is not None or p.roi is not None or p.tile is not None:
            return None
        from .gpu.inference import GpuModel
        from .gpu.slots import open_slots

        bank, size = self.scorer.bank, p.image_size
        model = GpuModel(bank, self.grid, size, p.dim, p.neighbourhood, p.smoothing_sigma, self.space.positions)
        return open_slots(model, self.describer.backbone, backend, self.precision)

    def predict(
        self, images: Iterable[tuple[str, Any]], limits: Limits, threshold: float, begun: float
    ) -> list[Prediction]:
        """Predictions of (name, image) pairs; the budget of the first image began at ``begun``, a `time.perf_counter`.

        ``threshold`` decides whether an image is anomalous.
        """
        done: list[Prediction] = []
        source = iter(images)
        # Budgets are each image's own, so that images take turns.
        step = self.parameters.batch_size if limits.budget is None else 1
        while inputs := [self.read(*item) for item in islice(source, step)]:
            if self.gpu is not None:
                scores = self.gpu.scores([one.pixels for one in inputs])
                for one in inputs:
                    with named_features(one.name):
                        done.append(self._from_gpu(next(scores), one, threshold))
            else:
                with self._at_work(len(inputs)):
                    described = self.describe(np.stack([one.pixels for one in inputs]))
                    for one, rows in zip(inputs, described, strict=True):
                        with named_features(one.name):
                            done.append(self.score(rows, limits, threshold, begun, one))
            begun = time.perf_counter()
        return done

    def stream(
        self, images: Iterable[tuple[str, Any]], limits: Limits, threshold: float, ahead: int
    ) -> Iterator[Prediction]:
        """Predictions of (name, image) pairs as they come; see `InReaCh.predict_stream`."""
        gpu = self.gpu

        def start(one: NetworkInput) -> Any:
            if gpu is not None:
                return one, gpu.start(one.pixels)
            begun = time.perf_counter()
            with self._at_work(1):
                (rows,) = self.describe(one.pixels[None])
                with named_features(one.name):
                    return self.score(rows, limits, threshold, begun, one)

        def collect(started: Any) -> Prediction:
            if gpu is None:
                done: Prediction = started
                return done
            one, slot = started
            with named_features(one.name):
                return self._from_gpu(gpu.collect(slot), one, threshold)

        in_flight = 0 if gpu is None else gpu.in_flight
        return in_stream(images, lambda item: self.read(*item), start, collect, ahead=ahead, in_flight=in_flight)

    def read(self, name: str, image: Any) -> NetworkInput:
        """An image in any form that `as_image` takes, as the network sees it."""
        array = as_image(image, name, PixelRule(self.parameters.bit_depth, self.parameters.max_pixels))
        pixels, degrees = self.geometry.apply(array, name), 0
        if self.alignment is not None:
            pixels, degrees = self.alignment.apply(pixels)
        return NetworkInput(name, pixels, degrees, (int(array.shape[0]), int(array.shape[1])))

    def describe(self, inputs: UInt8Array, precision: str | None = None) -> list[FloatArray]:
        """Descriptors of network inputs, uint8 (B, H, W, 3): B times (P, D)."""
        return [self.space(rows) for rows in self.describer(inputs, precision or self.precision)]

    def map(self, values: FloatArray) -> FloatArray:
        """The anomaly map, float32 (H, W), of P patch scores."""
        return self.frame.map(values)

    def score(
        self, rows: FloatArray, limits: Limits, threshold: float, begun: float, one: NetworkInput | None = None
    ) -> Prediction:
        """The prediction for an image's descriptors, (P, D); ``one``: the image, if descriptors were not given."""
        scorer = self.scorer
        judged = None if self.feedback is None else self.feedback.of_image(rows, scorer.backend)
        if limits != Limits() and scorer.is_distance:
            deadline = None if limits.budget is None else begun + limits.budget
            search = BoundedSearch(self.nominal, scorer, rows, self.frame, judged, self.speed)
            found = search.run(limits.threshold, deadline)
        else:
            searched = kernels.nearest(rows, scorer.bank, backend=scorer.backend)
            by = None
            if judged is None:
                values = scorer.scores_of(rows, searched)
            else:
                values, by = judged.scores(searched.sq_distance, scorer.of_squared)
            smoothed = self.map(values)
            score = image_score(smoothed)
            found = BoundedScores(values, values, searched.index, smoothed, score, score, True, searched.counts, by)
        return self._prediction(found, threshold, one)

    def scored(self, one: NetworkInput, values: FloatArray, nearest: IndexArray, threshold: float) -> Prediction:
        """The prediction for an image whose patches have these scores and nearest nominal patches, (P,) each."""
        smoothed = self.map(values)
        score = image_score(smoothed)
        found = BoundedScores(values, values, nearest, smoothed, score, score, True, None)
        return self._prediction(found, threshold, one)

    def values(self, rows: FloatArray) -> FloatArray:
        """Scores of an image's patches, (P, D), without what was rejected: float32 (P,)."""
        scorer = self.scorer
        found = kernels.nearest(rows, scorer.bank, backend=scorer.backend)
        if self.feedback is None:
            return scorer.scores_of(rows, found)
        judged = replace(self.feedback, rejected=()).of_image(rows, scorer.backend)
        return judged.scores(found.sq_distance, scorer.of_squared)[0]

    def _from_gpu(self, found: GpuScores, one: NetworkInput, threshold: float) -> Prediction:
        values, score = found.patch_scores, found.score
        scores = BoundedScores(values, values, found.nearest, found.anomaly_map, score, score, True, found.counts)
        return self._prediction(scores, threshold, one)

    def _prediction(self, found: BoundedScores, threshold: float, one: NetworkInput | None) -> Prediction:
        degrees = 0 if one is None else one.degrees
        smoothed, low, high = found.anomaly_map, found.score_lower, found.score_upper
        return Prediction(
            score=high,
            is_anomalous=high > threshold,
            anomaly_map=rotate_map_back(smoothed, degrees) if degrees else smoothed,
            patch_scores=self.frame.on_grid(found.upper),
            nearest=self.frame.on_grid(found.nearest, -1),
            rotation=float(degrees),
            original_size=None if one is None else one.size,
            score_lower=low,
            score_upper=high,
            certain=low > threshold or high <= threshold,
            complete=found.complete,
            patch_scores_lower=self.frame.on_grid(found.lower),
            counts=found.counts,
            runtime=None if one is None else self.other_runtime,
            feedback=None if found.feedback is None else self.frame.on_grid(found.feedback, 0),
            _explainer=Explainer(self.evidence, threshold),
        )


@contextmanager
def named_features(name: str) -> Iterator[None]:
    """Names the image whose features are not finite."""
    try:
        yield
    except NonFiniteError as error:
        raise bad_features(name) from error
