"""`InReaCh`: the estimator, and the one object that most users meet."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import kernels, model_file
from .alignment import Alignment, MeanImage, align_images, rotate, rotate_map_back, transpose_score
from .association import Associator, choose_seeds
from .channels import NominalRows, select_nominal
from .compression import Compression
from .descriptors import (
    DescriptorBuffer,
    append_positions,
    check_descriptors,
    describe_images,
    position_channels,
)
from .errors import (
    BackboneMismatchError,
    DegenerateDataError,
    ImageError,
    MixedSizesError,
    ModelCorruptError,
    NonFiniteError,
    NotFittedError,
    ParameterError,
    TooFewImagesError,
)
from .fit_report import FitReport
from .image_source import ImageSource, as_image, open_images
from .kernels import Bank
from .nominal_model import NominalModel
from .parameters import Parameters
from .prediction import Prediction
from .preprocess import Geometry
from .scoring import Scorer, anomaly_map, image_score
from .threshold import robust_threshold, sample_images
from .verdict import Limits, Pace, bounded_scores, whole_scores

if TYPE_CHECKING:
    from .backbones import Backbone

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]

_NOMINAL_ARRAYS = ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")


class InReaCh:
    """Inter-Realization Channels (McIntosh and Branzan Albu, ICCV 2023): fits unsorted images, inspects new.

    Args:
        preset: "default", "paper" or "reference".
        backbone: a name (see `Parameters`) or a `Backbone`.
        parameters: any of `Parameters`, by keyword.

    Attributes (after `fit`, `fit_descriptors` or `load`):
        nominal_: `NominalModel`, the nominal patches and where each was seen.
        threshold_: float; `predict` calls a higher score anomalous. Chosen without labels from the
            leave-one-image-out scores of a seeded sample of ``threshold_images`` training images, by a rule
            that withstands 40 % of defective images: `threshold` gives the rule and its reason.
        report_: `FitReport`: counts and seconds of each stage.
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

    def __init__(self, preset: str = "default", *, backbone: Any = None, **parameters: Any) -> None:
        self._backbone: Backbone | None = None
        if backbone is not None and not isinstance(backbone, str):
            self._backbone = _as_backbone(backbone)
            backbone = backbone.name
        if backbone is not None:
            parameters["backbone"] = backbone
        self.parameters = Parameters.from_preset(preset, **parameters)
        self._lock = threading.RLock()
        self._spec: dict[str, Any] | None = None
        self._fingerprint: str | None = None
        self._folder: Path | None = None
        self._pace = Pace()
        self._fitted = False

    if not TYPE_CHECKING:  # a type checker shall still tell a misspelt attribute

        def __getattr__(self, name: str) -> Any:
            if name.endswith("_") and not name.startswith("_") and not self.__dict__.get("_fitted"):
                raise NotFittedError(f"InReaCh: {name} is there after fit, fit_descriptors or InReaCh.load")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("InReaCh is neither pickled nor copied; save(path) writes it, and InReaCh.load(path) reads it")

    # ------------------------------------------------------------------------------------------ parts

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the network's input."""
        p = self.parameters
        if p.resize is None:
            return Geometry(resize=p.image_size, crop=None)
        return Geometry(resize=p.resize, crop=p.image_size)

    @property
    def backbone(self) -> Backbone:
        """The network, loaded on first use.

        Raises:
            BackboneMismatchError: not the one that the model was fitted with. BackboneError, WeightsError: it
            cannot be had.
        """
        with self._lock:
            if self._backbone is None:
                from .backbones import backbone_from_spec, load_backbone

                p = self.parameters
                if self._spec is not None:
                    backbone = backbone_from_spec(self._spec, device=p.device, folder=self._folder)
                    self._check_backbone(backbone)
                else:
                    backbone = load_backbone(
                        p.backbone,
                        weights=p.weights,
                        depth=p.depth,
                        device=p.device,
                        normalisation=p.normalisation,
                        seed=p.random_state,
                    )
                self._backbone = backbone
            return self._backbone

    def _check_backbone(self, backbone: Backbone) -> None:
        if self._fingerprint is not None and backbone.fingerprint != self._fingerprint:
            raise BackboneMismatchError(
                f"backbone: the model was fitted with {self.parameters.backbone!r} of fingerprint "
                f"{self._fingerprint[:12]}, this is {backbone.name!r} of {backbone.fingerprint[:12]} (other "
                "weights, levels or normalisation); give the same backbone, or fit again"
            )

    def _base_descriptors(self, batch: UInt8Array) -> FloatArray:
        """Network inputs, uint8 (B, H, W, 3), to descriptors without positions, float32 (B, P, dim)."""
        p = self.parameters
        rows, _ = describe_images(batch, self.backbone, dim=p.dim, neighbourhood=p.neighbourhood, backend=p.backend)
        return rows

    def _grid(self, patches: int) -> tuple[int, int]:
        """The grid (h, w) of an image's patches: the network's input divided by its first level's stride."""
        height, width = self.parameters.image_size
        for stride in (1, 2, 4, 8, 16, 32, 64):
            h, w = -(-height // stride), -(-width // stride)
            if h * w == patches:
                return h, w
        _, h, w = self.backbone.level_shapes(height, width)[0]
        return h, w

    # -------------------------------------------------------------------------------------------- fit

    def fit(self, images: Any, *, skip_bad: bool = False, progress: Progress | None = None) -> InReaCh:
        """Finds the nominal patches of unsorted training images (paper, section 3).

        Args:
            images: a folder; a list of paths or of images (uint8 (H, W, 3) or (H, W), PIL images, tensors
                (C, H, W)); an array (N, H, W, 3); or a torch Dataset. Sizes may differ: all are resized.
            skip_bad: pass over images that cannot be read, and count them in ``report_["skipped"]``, instead
                of raising ImageError.
            progress: called as progress(stage, done, total).

        Returns:
            self.

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError, DegenerateDataError (all images identical),
            NonFiniteError (the network's features), NoChannelsError.
        """
        p = self.parameters
        if self._spec is not None and self._backbone is None:
            self._spec = self._fingerprint = None  # a loaded model fitted anew: its old backbone binds no more
        tell = progress or _silent
        report = FitReport()
        source = open_images(images)
        report.counts.update(images=len(source), skipped=0)
        _check_enough(len(source))
        with report.stage("read"):
            inputs, used, skipped = self._read(source, skip_bad, tell)
        report.counts.update(skipped=len(skipped), skipped_names=skipped)
        _check_enough(len(inputs))
        if all(np.array_equal(inputs[0], other) for other in inputs[1:]):
            raise DegenerateDataError(
                f"images: all {len(inputs)} training images are identical, so that nothing can be learnt "
                "from their differences; give different images"
            )
        with report.stage("align"):
            alignment, positions = self._align(inputs, tell)
        buffer: DescriptorBuffer | None = None
        channels: FloatArray | None = None
        grid = (0, 0)
        with report.stage("describe"):
            # One by one: a batch would gain nothing (see describe_images) and stand in memory beside the buffer.
            for i in range(len(inputs)):
                (rows,) = self._base_descriptors(inputs[i : i + 1])
                patches, dim = rows.shape
                if buffer is None:
                    grid = self._grid(patches)
                    channels = position_channels(grid, p.position_weight) if positions else None
                    buffer = DescriptorBuffer(len(inputs) * patches, dim + (2 if positions else 0))
                view = buffer.array[i * patches : (i + 1) * patches]
                view[:, :dim] = rows
                if channels is not None:
                    view[:, dim:] = channels
                if not np.isfinite(view).all():
                    raise _bad_features(source.names[used[i]])
                tell("describe", i + 1, len(inputs))
        assert buffer is not None
        n_images = len(inputs)
        del inputs, rows, view
        chosen, scores, sampled = self._fit_rows(buffer.array, n_images, grid, report, tell)
        with report.stage("compact"):
            patches_array = buffer.compact(chosen.rows)
        self._finish(patches_array, chosen, n_images, grid, scores, sampled, report)
        self.positions_ = positions
        self.transpose_score_ = alignment.score_before
        self._alignment: Alignment | None = alignment if alignment.kept else None
        self.rotations_ = alignment.angles.astype(np.float64) if alignment.kept else None
        self.image_names_ = [source.names[i] for i in used]
        self._training: tuple[ImageSource, list[int]] | None = (source, used)
        self._described: weakref.ref[Any] | None = None
        self._from_descriptors = False
        return self

    def fit_descriptors(self, x: Any, grid: Sequence[int], *, progress: Progress | None = None) -> InReaCh:
        """Fits descriptors of the caller's own backbone, taken as they are: nothing is appended.

        Args:
            x: (N, P, D) float32 in C order (read in place, never altered), or what converts without loss.
            grid: (h, w) with h * w = P. Maps have the size of the parameter ``image_size``.
            progress: called as progress(stage, done, total).

        Returns:
            self.

        Raises:
            ParameterError, MixedSizesError (ragged), NonFiniteError, TooFewImagesError, DegenerateDataError,
            NoChannelsError.
        """
        report = FitReport()
        with report.stage("read"):
            array = check_descriptors(x)
        n_images, patches, dim = array.shape
        h, w = _check_grid(grid, patches)
        report.counts.update(images=n_images, skipped=0, skipped_names=[])
        _check_enough(n_images)
        if all(np.array_equal(array[0], other) for other in array[1:]):
            raise DegenerateDataError(
                f"x: the descriptors of all {n_images} images are identical; give different images"
            )
        rows = array.reshape(-1, dim)
        chosen, scores, sampled = self._fit_rows(rows, n_images, (h, w), report, progress or _silent)
        self._finish(rows[chosen.rows], chosen, n_images, (h, w), scores, sampled, report)
        self.positions_ = False
        self.transpose_score_ = float("nan")
        self._alignment = None
        self.rotations_ = None
        self.image_names_ = [f"x[{i}]" for i in range(n_images)]
        self._training = None
        self._described = weakref.ref(x) if isinstance(x, np.ndarray) else None
        self._from_descriptors = True
        return self

    def _read(self, source: ImageSource, skip_bad: bool, tell: Progress) -> tuple[UInt8Array, list[int], list[str]]:
        geometry = self.geometry
        inputs = np.empty((len(source), *self.parameters.image_size, 3), dtype=np.uint8)
        used: list[int] = []
        skipped: list[str] = []
        for i in range(len(source)):
            try:
                inputs[len(used)] = geometry.apply(source.load(i))
                used.append(i)
            except ImageError:
                if not skip_bad:
                    raise
                skipped.append(source.names[i])
            tell("read", i + 1, len(source))
        return inputs[: len(used)], used, skipped

    def _align(self, inputs: UInt8Array, tell: Progress) -> tuple[Alignment, bool]:
        """Position test and alignment (supplement D); turns ``inputs`` in place where alignment is kept."""
        p = self.parameters
        mean = MeanImage()
        for image in inputs:
            mean.add(image)
        score = transpose_score(mean.mean)
        if p.align == "auto" and p.position != "never" and score <= p.transpose_threshold:
            alignment = align_images(list(inputs), threshold=p.transpose_threshold, score_before=score, progress=tell)
        else:
            none = np.zeros(len(inputs), dtype=np.int64)
            alignment = Alignment(score, None, p.transpose_threshold, False, none, None)
        if alignment.kept:
            for i, angle in enumerate(alignment.angles.tolist()):
                inputs[i] = rotate(inputs[i], angle)
        positions = p.position == "always" or (p.position == "auto" and alignment.positions_consistent)
        return alignment, positions

    def _fit_rows(
        self, rows: FloatArray, n_images: int, grid: tuple[int, int], report: FitReport, tell: Progress
    ) -> tuple[NominalRows, FloatArray, IndexArray]:
        """Association, filters and the threshold's scores over (N * P, D) descriptors, only read."""
        p = self.parameters
        patches = len(rows) // n_images
        report.counts["patches"] = len(rows)
        images = rows.reshape(n_images, patches, rows.shape[1])
        seeds = choose_seeds(n_images, p.assoc_depth, p.seed_selection, p.random_state)
        report.counts["seed_images"] = seeds.tolist()
        joined = np.empty((n_images, patches), dtype=np.int64)
        with report.stage("associate"):
            associator = Associator(seeds, images, pairs=p.assoc_pairs, backend=p.backend)
            for i in range(n_images):
                joined[i] = associator.associate(i, images[i])
                tell("associate", i + 1, n_images)
            del associator
        with report.stage("filter"):
            chosen = select_nominal(
                rows,
                joined,
                seeds,
                min_length=p.min_channel_length if p.span_filter else None,
                max_std=p.max_channel_std if p.spread_filter else None,
                backend=p.backend,
            )
        report.counts.update(chosen.counts)
        tell("filter", 1, 1)
        with report.stage("threshold"):
            sampled = sample_images(n_images, p.threshold_images, p.random_state)
            report.counts["threshold_images"] = len(sampled)
            bank = Bank(rows, chosen.rows // patches, index=chosen.rows)
            channel = chosen.channel_seed_image * patches + chosen.channel_seed_patch
            scorer = Scorer(bank, lambda: channel, p.score, p.distance, p.backend)
            scores = np.empty(len(sampled), dtype=np.float32)
            for k, i in enumerate(sampled.tolist()):
                scores[k] = self._loo_score(scorer, images[i], i, grid)
                tell("threshold", k + 1, len(sampled))
        return chosen, scores, sampled

    def _loo_score(self, scorer: Scorer, rows: FloatArray, image: int, grid: tuple[int, int]) -> float:
        values, _ = scorer.patch_scores(rows, leave_out=image)
        return image_score(self._map(values.reshape(grid)))

    def _map(self, patch_scores: FloatArray) -> FloatArray:
        return anomaly_map(patch_scores, self.parameters.image_size, self.parameters.smoothing_sigma)

    def _finish(
        self,
        patches: FloatArray,
        chosen: NominalRows,
        n_images: int,
        grid: tuple[int, int],
        scores: FloatArray,
        sampled: IndexArray,
        report: FitReport,
    ) -> None:
        per_image = grid[0] * grid[1]
        self.nominal_ = NominalModel(
            patches,
            chosen.rows // per_image,
            chosen.rows % per_image,
            chosen.channel_seed_image,
            chosen.channel_seed_patch,
        )
        self.grid_ = grid
        self.n_images_ = n_images
        self.threshold_scores_ = scores
        self.threshold_images_ = sampled
        self.threshold_ = robust_threshold(scores)
        self.report_ = report
        self._scorer: Scorer | None = None
        self._fitted = True

    # ---------------------------------------------------------------------------------------- predict

    def predict(self, images: Any, *, threshold: float | None = None, budget_ms: float | None = None) -> Prediction:
        """Scores one image or a batch (paper, section 3.4).

        With a ``threshold`` or a budget the search ends before every patch is proven (docs/serving.md); without
        either it is whole.

        Args:
            images: one image (path, uint8 (H, W, 3) or (H, W) array, PIL image, tensor (C, H, W)), or a batch
                (list of them, array (B, H, W, 3), folder, Dataset). An image's result is the same, to the
                bit, alone and in any batch.
            threshold: decide against this score instead of ``threshold_``, and stop as soon as the verdict is
                certain. It is the whole search's verdict, always.
            budget_ms: milliseconds that each image may take from the call on (in a batch, from when its turn
                comes), reading and backbone included. What is left for the search is spent on the patches that matter
                most; the score comes with certified bounds. Backbone and a first glance at the patches are
                always done, even where they alone exceed the budget, and a backend without
                `kernels.nearest_bounds` of its own searches at a glance. The first image of a process also
                loads the network and prepares the search: `prepare` does so beforehand.

        Returns:
            `Prediction`, of scalars and one map for one image, of arrays with a leading B for a batch.

        Raises:
            NotFittedError, ImageError, BackboneMismatchError (another backbone, or a model of
                `fit_descriptors`), NonFiniteError (the network's features). ParameterError: a threshold that
                is no finite number, a budget that is not above 0, or a budget with a ``score`` other than
                "nearest" (the others have no bounds; with a threshold they are searched whole).
        """
        begun = time.perf_counter()
        self._check_fitted()
        limits = self._limits(threshold, budget_ms)
        if self._from_descriptors:
            raise BackboneMismatchError(
                "predict: the model was fitted on descriptors of the caller's own backbone; give "
                "score_descriptors the descriptors of the image"
            )
        single = _is_single(images)
        source = None if single else open_images(images)
        count = 1 if source is None else len(source)
        geometry = self.geometry
        done: list[Prediction] = []
        step = self.parameters.batch_size if limits.budget is None else 1  # a budget is each image's own
        for start in range(0, count, step):
            begun = time.perf_counter() if start else begun
            numbers = range(start, min(start + step, count))
            inputs = np.empty((len(numbers), *self.parameters.image_size, 3), dtype=np.uint8)
            sizes, turns = [], []
            for k, i in enumerate(numbers):
                image = as_image(images, "images") if source is None else source.load(i)
                sizes.append((int(image.shape[0]), int(image.shape[1])))
                network_input, degrees = geometry.apply(image), 0
                if self._alignment is not None:
                    network_input, degrees = self._alignment.apply(network_input)
                inputs[k] = network_input
                turns.append(degrees)
            rows = self._described_rows(inputs)
            for k, i in enumerate(numbers):
                try:
                    done.append(self._predicted(rows[k], turns[k], sizes[k], limits, begun))
                except NonFiniteError as error:
                    raise _bad_features("the image" if source is None else source.names[i]) from error
        return done[0] if single else _stacked(done)

    def prepare(self) -> InReaCh:
        """Loads the network and prepares the search, which the first `predict` would do otherwise; returns self.

        Raises:
            NotFittedError; BackboneError, WeightsError, BackboneMismatchError: the network cannot be had.
        """
        self._check_fitted()
        if not self._from_descriptors:
            _ = self.backbone
        nominal = self.nominal_
        kernels.nearest_bounds(nominal.patches[:1], nominal.bank, backend=self.parameters.backend)
        return self

    def score_descriptors(
        self, x: Any, *, threshold: float | None = None, budget_ms: float | None = None
    ) -> Prediction:
        """Scores descriptors as `predict` scores images.

        Args:
            x: (P, D) for one image or (B, P, D), float32, of the grid and dimension of the fit (position
                channels included, where the fit has them).
            threshold, budget_ms: as in `predict`.

        Raises:
            NotFittedError, ParameterError, MixedSizesError, NonFiniteError.
        """
        begun = time.perf_counter()
        self._check_fitted()
        limits = self._limits(threshold, budget_ms)
        single = np.ndim(x) == 2
        array = check_descriptors(x[None] if isinstance(x, np.ndarray) and single else [x] if single else x)
        self._check_shape(array)
        done = []
        for i, rows in enumerate(array):
            done.append(self._predicted(rows, 0, None, limits, time.perf_counter() if i else begun))
        return done[0] if single else _stacked(done)

    def training_scores(self, images: Any = None, *, progress: Progress | None = None) -> FloatArray:
        """Scores each training image against the nominal patches of the *other* images (leave-one-image-out).

        Args:
            images: the training images in the order of the fit (after `fit_descriptors`: the (N, P, D)
                descriptors). None: those that `fit` was given, which are read again; a loaded model does not
                have them.
            progress: called as progress("score", done, total).

        Returns:
            float32 (N,), one image score a training image (those that ``skip_bad`` passed over have none).

        Raises:
            NotFittedError, ParameterError (other images than the fit's), ImageError.
        """
        self._check_fitted()
        tell = progress or _silent
        whole = self.nominal_.compression is None  # a compressed model's own scores are higher than the fit's
        if images is None and whole and len(self.threshold_images_) == self.n_images_:
            return np.array(self.threshold_scores_, dtype=np.float32)
        out = np.empty(self.n_images_, dtype=np.float32)
        if self._from_descriptors:
            given = images if images is not None or self._described is None else self._described()
            if given is None:
                raise ParameterError("images: give the descriptors that fit_descriptors was given; they are not kept")
            array = check_descriptors(given, "images")
            self._check_shape(array)
            if len(array) != self.n_images_:
                raise ParameterError(f"images: the fit had {self.n_images_} images, these are {len(array)}")
            for i, rows in enumerate(array):
                out[i] = self._loo_score(self._get_scorer(), rows, i, self.grid_)
                tell("score", i + 1, self.n_images_)
            return out
        source, used = self._training_source(images)
        geometry = self.geometry
        for i, number in enumerate(used):
            network_input = geometry.apply(source.load(number))
            if self._alignment is not None:
                network_input = rotate(network_input, int(self._alignment.angles[i]))
            rows = self._described_rows(np.array(network_input[None]))[0]
            out[i] = self._loo_score(self._get_scorer(), rows, i, self.grid_)
            tell("score", i + 1, self.n_images_)
        return out

    def _training_source(self, images: Any) -> tuple[ImageSource, list[int]]:
        if images is None:
            if self._training is None:
                raise ParameterError("images: a loaded model does not have its training images; give them")
            return self._training
        source = open_images(images)
        if len(source) == self.n_images_:
            return source, list(range(len(source)))
        place = {name: i for i, name in enumerate(source.names)}
        if not all(name in place for name in self.image_names_):
            raise ParameterError(
                f"images: the fit had {self.n_images_} images, these are {len(source)}; give the same ones"
            )
        return source, [place[name] for name in self.image_names_]

    def map_to_original(self, values: FloatArray, original_size: tuple[int, int]) -> FloatArray:
        """A map of the network's input, (H, W), in the frame of the picture as it was read.

        Args:
            values: `Prediction.anomaly_map` of one image.
            original_size: (height, width), `Prediction.original_size`.

        Returns:
            float32 of that size; NaN where the crop left the picture uninspected.
        """
        full: FloatArray = self.geometry.map_to_original(values, original_size)
        return full

    def _described_rows(self, inputs: UInt8Array) -> list[FloatArray]:
        """Descriptors of network inputs, with position channels where the fit has them: B times (P, D)."""
        channels = position_channels(self.grid_, self.parameters.position_weight) if self.positions_ else None
        return [append_positions(rows, channels) for rows in self._base_descriptors(inputs)]

    def _limits(self, threshold: float | None, budget_ms: float | None) -> Limits:
        limits = Limits.of(threshold, budget_ms)
        if limits.budget is not None and self.parameters.score != "nearest":
            raise ParameterError(
                f'budget_ms: score="{self.parameters.score}" has no bounds to stop at; leave the budget out, or fit '
                'with score="nearest"'
            )
        return limits

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

    def _get_scorer(self) -> Scorer:
        with self._lock:
            if self._scorer is None:
                p, nominal, patches = self.parameters, self.nominal_, self.grid_[0] * self.grid_[1]
                self._scorer = Scorer(
                    nominal.bank,
                    lambda: nominal.channel_seed_image * patches + nominal.channel_seed_patch,
                    p.score,
                    p.distance,
                    p.backend,
                )
            return self._scorer

    def _check_fitted(self) -> None:
        if not self._fitted:
            raise NotFittedError("InReaCh: not fitted yet; call fit, fit_descriptors or InReaCh.load first")

    def _check_shape(self, array: FloatArray) -> None:
        wanted = (self.grid_[0] * self.grid_[1], self.nominal_.patches.shape[1])
        if array.shape[1:] != wanted:
            raise MixedSizesError(f"x: the model was fitted on (P, D) = {wanted}, these are {array.shape[1:]}")

    # -------------------------------------------------------------------------------------- compress

    def compress(
        self, epsilon: float | None = None, *, to: int | float | None = None, progress: Progress | None = None
    ) -> InReaCh:
        """The same fit with fewer nominal patches, whose distances grow by at most epsilon and never shrink.

        `NominalModel.compress` has arguments, guarantee and proof. Image scores do not fall either, and grow from s to
        at most (sqrt(s) + epsilon)^2, of plain distances to s + epsilon. The threshold stays the fit's, so that
        every image that was anomalous still is; ``threshold_scores_`` and ``report_`` are the fit's too, the
        report with an entry "compression" (epsilon, kept, of). A compressed model cannot grow.

        Returns:
            A new fitted estimator; this one stays as it is.

        Raises:
            NotFittedError; ParameterError: as `NominalModel.compress`, or a ``score`` other than "nearest", of which
            the guarantee does not speak.
        """
        self._check_fitted()
        if self.parameters.score != "nearest":
            raise ParameterError(
                f'compress: the guarantee is about score="nearest", and this model has "{self.parameters.score}"'
            )
        nominal = self.nominal_.compress(epsilon, to=to, backend=self.parameters.backend, progress=progress)
        assert nominal.compression is not None
        other = InReaCh()
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_lock", "_pace")})
        other.nominal_ = nominal
        other._scorer = None
        other.report_ = FitReport({**self.report_.counts, "compression": nominal.compression.as_dict()})
        other.report_.seconds.update(self.report_.seconds)
        return other

    # --------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fitted model to one file (format: `model_file`); the same fit gives the same bytes.

        Raises:
            NotFittedError. SaveError: full disk, no permission; an older file of that name is left as it was.
        """
        self._check_fitted()
        backbone = None
        if not self._from_descriptors:
            fingerprint = self._fingerprint or self.backbone.fingerprint
            spec = self._spec or self.backbone.spec
            backbone = {"name": self.parameters.backbone, "fingerprint": fingerprint, "spec": spec}
        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self.nominal_, name) for name in _NOMINAL_ARRAYS}
        arrays["threshold_scores"] = self.threshold_scores_
        arrays["threshold_images"] = self.threshold_images_
        if self._alignment is not None:
            arrays.update({f"alignment.{k}": v for k, v in self._alignment.to_arrays().items()})
        meta = {
            "kind": "InReaCh",
            "parameters": self.parameters.as_dict(),
            "backbone": backbone,
            "grid": list(self.grid_),
            "threshold": self.threshold_,
            "n_images": self.n_images_,
            "image_names": self.image_names_,
            "positions": self.positions_,
            "transpose_score": None if np.isnan(self.transpose_score_) else self.transpose_score_,
            "alignment": None if self._alignment is None else self._alignment.to_json(),
            "report": self.report_.counts,  # not the seconds: they differ from run to run
        }
        if self.nominal_.compression is not None:
            meta["compression"] = self.nominal_.compression.as_dict()
        model_file.save_file(path, meta, arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | str | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        backend: str | None = None,
        verify: bool = True,
    ) -> InReaCh:
        """Reads a saved model; its patches stay on disk, memory-mapped.

        The file holds no program and no weights, but what the network is rebuilt from at the first `predict`: its
        name, levels and normalisation, the weights file's name as it was given and its sha256. A factory,
        FILE.py:FACTORY, is run from its recorded place: load such models only from people whom you trust.

        Args:
            path: the file.
            backbone: the network, where it cannot be rebuilt or lies elsewhere: a `Backbone`, or a name as in
                `Parameters`. Its fingerprint must be the model's, told here or, of a name, at the first `predict`.
            weights: the weights file, where it is neither where it was nor beside the model.
            device: torch device of the network, instead of the one it was fitted on.
            backend: kernel backend, instead of the one it was fitted with.
            verify: check the whole file's sha256.

        Raises:
            ModelFileError, ModelCorruptError, ModelVersionError, BackboneMismatchError; ParameterError: an
            argument is not as above.
        """
        if backbone is not None and not isinstance(backbone, str):
            backbone = _as_backbone(backbone)
        meta, arrays = model_file.load_file(path, verify=verify)
        try:
            if meta["kind"] != "InReaCh":
                raise ValueError(f"a model of kind {meta['kind']!r}")
            self = cls()
            self.parameters = Parameters.from_dict(meta["parameters"])
            compression = Compression.from_dict(meta["compression"]) if "compression" in meta else None
            self.nominal_ = NominalModel(*(arrays[name] for name in _NOMINAL_ARRAYS), compression=compression)
            self.threshold_scores_ = np.array(arrays["threshold_scores"])
            self.threshold_images_ = np.array(arrays["threshold_images"])
            self.threshold_ = float(meta["threshold"])
            self.grid_ = _check_grid(meta["grid"], int(np.prod(meta["grid"])))
            self.n_images_ = int(meta["n_images"])
            self.image_names_ = [str(name) for name in meta["image_names"]]
            self.positions_ = bool(meta["positions"])
            self.transpose_score_ = float("nan" if meta["transpose_score"] is None else meta["transpose_score"])
            self.report_ = FitReport(meta["report"])
            self._alignment = None
            if meta["alignment"] is not None:
                parts = {k.removeprefix("alignment."): v for k, v in arrays.items() if k.startswith("alignment.")}
                self._alignment = Alignment.from_parts(parts, meta["alignment"])
            self.rotations_ = None if self._alignment is None else self._alignment.angles.astype(np.float64)
            self._from_descriptors = meta["backbone"] is None
            if meta["backbone"] is not None:
                self._spec = dict(meta["backbone"]["spec"])
                self._fingerprint = str(meta["backbone"]["fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorruptError(f"{path}: lacks or garbles a part ({error}); fit and save it again") from error
        self._training = None
        self._described = None
        self._scorer = None
        self._fitted = True
        self._folder = Path(path).parent
        here = {name: value for name, value in (("device", device), ("backend", backend)) if value is not None}
        self.parameters = self.parameters.with_changes(**here)
        if self._spec is not None:
            if isinstance(backbone, str):
                plain = {"weights": "official", "weights_sha256": None, "seed": 0}
                self._spec = {**plain, **self._spec, "backbone": backbone, "rebuildable": True}
            elif backbone is not None:
                self._check_backbone(backbone)
                self._backbone = backbone
            if weights is not None:
                self._spec["weights"] = os.fspath(weights)
        return self

    def __repr__(self) -> str:
        state = f"{len(self.nominal_)} nominal patches" if self._fitted else "not fitted"
        return f"InReaCh(preset={self.parameters.preset!r}, backbone={self.parameters.backbone!r}, {state})"


def _as_backbone(value: Any) -> Backbone:
    if not (hasattr(value, "extract") and hasattr(value, "fingerprint")):
        raise ParameterError(f"backbone: expected a name or a Backbone, got {type(value).__name__}")
    backbone: Backbone = value
    return backbone


def _silent(stage: str, done: int, total: int) -> None:
    """The progress of a caller who asked for none."""


def _bad_features(name: str) -> NonFiniteError:
    return NonFiniteError(
        f"images: the backbone's features of {name} hold NaN or infinity; check its weights and normalisation"
    )


def _check_enough(count: int) -> None:
    if count < 2:
        raise TooFewImagesError(
            f"images: {count} usable image; InReaCh compares images with each other and needs at least 2 "
            "(and more than min_channel_length to form a channel)"
        )


def _check_grid(grid: Sequence[int], patches: int) -> tuple[int, int]:
    try:
        h, w = (int(n) for n in grid)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"grid: expected (h, w), got {grid!r}") from error
    if h < 1 or w < 1 or h * w != patches:
        raise ParameterError(f"grid: {h} x {w} is not the {patches} patches of an image")
    return h, w


def _is_single(images: Any) -> bool:
    """Whether ``predict``'s argument is one image and not a batch."""
    if isinstance(images, (str, os.PathLike)):
        return not os.path.isdir(images)
    if hasattr(images, "getbands"):
        return True
    if hasattr(images, "detach"):
        return int(images.ndim) <= 3
    if isinstance(images, np.ndarray):
        return images.ndim == 2 or (images.ndim == 3 and images.shape[2] <= 4)
    return False


def _stacked(done: list[Prediction]) -> Prediction:
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
