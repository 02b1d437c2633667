"""`InReaCh`: the estimator, and the one object that most users meet."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import kernels, model_file
from .alignment import Alignment, rotate, rotate_map_back
from .compression import Compression
from .descriptors import append_positions, check_descriptors, describe_images, position_channels
from .errors import (
    BackboneMismatchError,
    DescriptorsNeededError,
    FinalModelError,
    GrowthError,
    MixedSizesError,
    ModelCorruptError,
    NonFiniteError,
    NotFittedError,
    ParameterError,
)
from .executors import make_executor
from .fit_pipeline import Network, StoredImages, fit_images, fit_rows
from .fit_report import FitReport
from .fitted import Fitted, leave_one_out_score
from .growth import (
    ManyInputs,
    Setting,
    add_images,
    add_rows,
    forget_images,
    forget_rows,
    names_without,
    read_added,
)
from .growth_state import GrowthState
from .image_association import bad_features
from .image_ids import image_numbers
from .image_source import ImageSource, as_image, open_images
from .memory import machine_memory, parse_bytes
from .nominal_model import NominalModel
from .parameters import Parameters
from .plan import FitPlan, plan_fit
from .prediction import Prediction
from .preprocess import Geometry
from .scoring import Scorer, anomaly_map
from .spool import Spool
from .stream import Ready, in_stream, named_features
from .threshold import robust_threshold
from .verdict import Limits, Pace, bounded_scores, whole_scores
from .workspace import Budget, Workspace

if TYPE_CHECKING:
    from .backbones import Backbone
    from .card_slots import CardSlots
    from .gpu_inference import CardScores

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
Reference = tuple["weakref.ref[Any]", int]

_NOMINAL_ARRAYS = ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")


class InReaCh:
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
        self._on_card: tuple[Any, CardSlots | None] | None = None
        self._scratch: Path | None = None  # where temporary files go; None: the system's place
        self._spool: Spool | None = None  # of a fit that is to be saved before its spool is removed
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

    def _base_descriptors(self, batch: UInt8Array, precision: str = "float32") -> FloatArray:
        """Network inputs, uint8 (B, H, W, 3), to descriptors without positions, float32 (B, P, dim)."""
        p = self.parameters
        rows, _ = describe_images(
            batch,
            self.backbone,
            dim=p.dim,
            neighbourhood=p.neighbourhood,
            backend=p.kernel_backend,
            precision=precision,
        )
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

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a fit may take beyond its seed images and one image at a time; None: half of the machine's."""
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, value: int | str | None) -> None:
        self._memory_limit = None if value is None else parse_bytes(value)

    @property
    def precision(self) -> str:
        """What the network's products are computed in by `predict` and `predict_stream`: "float32", or "float16" or
        "bfloat16", which are faster on a card and change the features. A fit is always float32. How far a half
        disagrees on one's own images tells `precision.disagreement`.
        """
        return self._precision

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in ("float32", "float16", "bfloat16"):
            raise ParameterError(f"precision: expected 'float32', 'float16' or 'bfloat16', got {value!r}")
        self._precision = value

    @property
    def executor(self) -> Any:
        """Where a fit describes and associates images; see the class."""
        return self._executor

    @executor.setter
    def executor(self, value: Any) -> None:
        self._executor = make_executor(value)

    # -------------------------------------------------------------------------------------------- fit

    def plan(self, images: Any, *, seeds: Any = None, progress: Progress | None = None) -> FitPlan:
        """Says how much memory, disk and time a fit will take, from a measurement of a few images.

        Args:
            images, seeds: as `fit` will be given them; broken images are passed over.
            progress: called as progress("plan", done, total).

        Returns:
            `FitPlan`; ``print(plan)`` says it in words.

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError (none can be read), NonFiniteError, ParameterError.
        """
        budget = self._workspace().budget
        tell = progress or _silent
        source = open_images(images)
        return plan_fit(source, self.parameters, self.geometry, self._network(), budget.limit, seeds=seeds, tell=tell)

    def fit(
        self,
        images: Any,
        *,
        seeds: Any = None,
        skip_bad: bool = False,
        spool: str | os.PathLike[str] | None = None,
        resume: bool = False,
        keep_spool: bool = False,
        progress: Progress | None = None,
    ) -> InReaCh:
        """Finds the nominal patches of unsorted training images (paper, section 3).

        Args:
            images: a folder; a list of paths or of images (uint8 (H, W, 3) or (H, W), PIL images, tensors
                (C, H, W)); an array (N, H, W, 3); or a torch Dataset. Sizes may differ: all are resized.
            seeds: the seed images, by number among ``images`` or by name; None: ``assoc_depth`` of them, as
                ``seed_selection`` says.
            skip_bad: pass over images that cannot be read, and count them in ``report_["skipped"]``, instead
                of raising ImageError.
            spool: a folder for what the fit has done so far, made where it is not there and removed at the end. A
                fit that was killed goes on from it, and gives the same model, bit for bit. Without one, what
                outgrows ``memory_limit`` goes to temporary files.
            resume: go on from what lies in ``spool`` (where nothing does, begin).
            keep_spool: leave the spool until `remove_spool`: until the model has been saved, say.
            progress: called as progress(stage, done, total).

        Returns:
            self.

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError, DegenerateDataError (all images identical),
            NonFiniteError (the network's features), NoChannelsError; ParameterError (seeds), MemoryLimitError;
            SpoolError in its kinds: another configuration, changed images, in use, altered, unfinished and not
            resumed, not to be written. The model, if there was one, is then as it was.
        """
        if resume and spool is None:
            raise ParameterError("resume: there is nothing to go on from without spool=DIR")
        source = open_images(images)
        self._fit_source(
            source,
            seeds=seeds,
            skip_bad=skip_bad,
            spool=spool,
            resume=resume,
            keep_spool=keep_spool,
            progress=progress,
        )
        return self

    def remove_spool(self) -> None:
        """Removes the spool that `fit` left because of ``keep_spool``; nothing happens where there is none."""
        if self._spool is not None:
            self._spool.remove()
            self._spool = None

    def fit_descriptors(
        self, x: Any, grid: Sequence[int], *, seeds: Any = None, progress: Progress | None = None
    ) -> InReaCh:
        """Fits descriptors of the caller's own backbone, taken as they are: nothing is appended.

        Args:
            x: (N, P, D) float32 in C order (read in place, never altered), or what converts without loss.
            grid: (h, w) with h * w = P. Maps have the size of the parameter ``image_size``.
            seeds: the seed images, by number; None: ``assoc_depth`` of them, as ``seed_selection`` says.
            progress: called as progress(stage, done, total).

        Returns:
            self.

        Raises:
            ParameterError, MixedSizesError (ragged), NonFiniteError, TooFewImagesError, DegenerateDataError,
            NoChannelsError, MemoryLimitError, SpoolWriteError (temporary files).
        """
        report = FitReport()
        with report.stage("read"):
            array = check_descriptors(x)
        shape = _check_grid(grid, array.shape[1])
        with closing(self._workspace()) as workspace:
            fitted = fit_rows(
                array,
                shape,
                self.parameters,
                workspace,
                report,
                seeds=seeds,
                explicit_limit=self._memory_limit is not None,
                tell=progress or _silent,
            )
        self._take(fitted)
        self._from_descriptors = True
        self._described: list[Reference | None] | None = _references(x, len(array))
        return self

    def _fit_source(
        self,
        source: ImageSource | StoredImages,
        *,
        seeds: Any = None,
        skip_bad: bool = False,
        spool: str | os.PathLike[str] | None = None,
        resume: bool = False,
        keep_spool: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if self._spec is not None and self._backbone is None and not isinstance(source, StoredImages):
            self._spec = self._fingerprint = None  # a loaded model fitted anew: its old backbone binds no more
        workspace = self._workspace(spool, resume)
        try:
            fitted = fit_images(
                source,
                self.parameters,
                self.geometry,
                self._network(),
                workspace,
                self._executor,
                seeds=seeds,
                skip_bad=skip_bad,
                explicit_limit=self._memory_limit is not None,
                tell=progress or _silent,
            )
        except BaseException as error:
            workspace.give_up(error)
            raise
        if not isinstance(workspace, Spool):
            workspace.close()
        elif keep_spool:
            self._spool = workspace
        else:
            workspace.remove()
        self._take(fitted)
        self._from_descriptors = False
        self._described = None

    def use_scratch(self, folder: str | os.PathLike[str] | None) -> None:
        """Where temporary files go that outgrow ``memory_limit``; None: the system's place for such files."""
        self._scratch = None if folder is None else Path(folder)

    def _workspace(self, spool: str | os.PathLike[str] | None = None, resume: bool = False) -> Workspace:
        budget = Budget(machine_memory() // 2 if self._memory_limit is None else self._memory_limit)
        return Workspace(budget, self._scratch) if spool is None else Spool(spool, budget, resume=resume)

    def _network(self) -> Network:
        direct = "_base_descriptors" not in self.__dict__  # evaluation's cache puts itself there
        return Network(lambda: self.backbone, self._base_descriptors, self._grid, direct)

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
        self._alignment: Alignment | None = alignment if alignment is not None and alignment.kept else None
        self.rotations_ = None if self._alignment is None else self._alignment.angles.astype(np.float64)
        self.threshold_scores_ = fitted.threshold_scores
        self.threshold_images_ = fitted.threshold_images
        self.threshold_ = robust_threshold(fitted.threshold_scores)
        self.report_ = fitted.report
        self._growth: GrowthState | None = fitted.growth
        self._grown_nominal: NominalModel | None = fitted.nominal
        self._scorer: Scorer | None = None
        self._fitted = True

    # ------------------------------------------------------------------------------- growing and shrinking

    def partial_fit(
        self, images: Any, *, skip_bad: bool = False, refit: bool = False, progress: Progress | None = None
    ) -> InReaCh:
        """Adds images to the fitted model, without reading the old ones again.

        The model is then, bit for bit, the one that ``fit`` makes of the old images and the new ones behind them with
        the same ``seeds`` (docs/training.md says why).

        Args:
            images, skip_bad, progress: as for `fit`.
            refit: fit all images anew instead, with seed images chosen anew: from the network inputs that the model
                keeps.

        Returns:
            self.

        Raises:
            NotFittedError; FinalModelError (saved with ``final=True``); RefitNeededError (with these images the
            position test or the alignment decides otherwise); GrowthError (a model of descriptors); and what `fit`
            raises. The model is then as it was.
        """
        state = self._growing("partial_fit", descriptors=False)
        source = open_images(images)
        with closing(self._workspace()) as workspace:
            setting = self._setting(workspace, progress)
            if refit:
                added, names, _ = read_added(self._current(state), source, setting, skip_bad=skip_bad)
                inputs = ManyInputs([(state.inputs, range(self.n_images_)), (added, range(len(added)))])
                self._fit_source(StoredImages(inputs, names), progress=progress)
            else:
                self._take(add_images(self._current(state), source, setting, skip_bad=skip_bad))
        return self

    def partial_fit_descriptors(self, x: Any, *, progress: Progress | None = None) -> InReaCh:
        """Adds images, given as descriptors, to a model of `fit_descriptors`; otherwise as `partial_fit`.

        Args:
            x: (n, P, D) float32, of the fit's grid and dimension. progress: as for `fit`.

        Raises:
            NotFittedError, FinalModelError, GrowthError (a model of images), DescriptorsNeededError; and what
            `fit_descriptors` raises. The model is then as it was.
        """
        state = self._growing("partial_fit_descriptors", descriptors=True)
        array = check_descriptors(x)
        self._check_shape(array)
        described = [*(self._described or [None] * self.n_images_), *_references(x, len(array))]
        with closing(self._workspace()) as workspace:
            setting = self._setting(workspace, progress)
            self._take(add_rows(self._current(state), array, setting, lambda i: _referenced(described[i])))
        self._described = described
        return self

    def forget(self, ids: Any, *, x: Any = None, refit: bool = False, progress: Progress | None = None) -> InReaCh:
        """Takes training images out of the fitted model: a defect, say, that was found in training later.

        The model is then, bit for bit, the one that ``fit`` makes of the other images with the same ``seeds``. Images
        behind those that went are numbered anew.

        Args:
            ids: a number or name (`image_names_`), or several.
            x: of a model of `fit_descriptors`: the descriptors of all its images, (N, P, D) in their order; needed
                where the threshold is to be chosen from images whose descriptors are no longer at hand.
            refit: fit the other images anew, with seed images chosen anew: from the network inputs that the model
                keeps, or from ``x``. It is the way to forget a seed image.
            progress: as for `fit`.

        Returns:
            self.

        Raises:
            NotFittedError; ParameterError (no such image); SeedImageError (a seed image, without ``refit``);
            FinalModelError (saved with ``final=True``); RefitNeededError (without these images the position test or
            the alignment decides otherwise); DescriptorsNeededError; TooFewImagesError, DegenerateDataError,
            NoChannelsError (of what would be left). The model is then as it was.
        """
        state = self._growing("forget", descriptors=None)
        numbers = image_numbers(ids, self.image_names_, "ids")
        left = np.setdiff1d(np.arange(self.n_images_), numbers)
        array = None if x is None else self._all_descriptors(x)
        with closing(self._workspace()) as workspace:
            setting = self._setting(workspace, progress)
            if not self._from_descriptors:
                if refit:
                    names, _ = names_without(self.image_names_, self.report_["skipped_names"], numbers)
                    inputs = ManyInputs([(state.inputs, left.tolist())])
                    self._fit_source(StoredImages(inputs, names), progress=progress)
                else:
                    self._take(forget_images(self._current(state), numbers, setting))
                return self
            if refit:
                if array is None:
                    raise DescriptorsNeededError("x: a refit needs the descriptors of all images of the model")
                return self.fit_descriptors(array[left], self.grid_, progress=progress)
            before = self._described or [None] * self.n_images_
            described = [before[i] for i in left.tolist()]

            def at_hand(image: int) -> FloatArray | None:
                return array[int(left[image])] if array is not None else _referenced(described[image])

            self._take(forget_rows(self._current(state), numbers, setting, at_hand))
        self._described = described
        return self

    def _growing(self, call: str, *, descriptors: bool | None) -> GrowthState:
        """What growing needs, looked at before it is trusted."""
        self._check_fitted()
        if descriptors is not None and descriptors != self._from_descriptors:
            fitted, other = (
                ("descriptors", "partial_fit_descriptors") if self._from_descriptors else ("images", "partial_fit")
            )
            raise GrowthError(f"{call}: this is a model of {fitted}; give them to {other}")
        state = self._growth_state()
        if state is None:
            raise FinalModelError(
                f"{call}: the model does not keep what growing needs (it was compressed, saved with final=True or by "
                "an older version, or its patches were replaced); fit again, or use the model saved without final=True"
            )
        try:
            state.check()
        except (ValueError, IndexError) as error:
            raise ModelCorruptError(f"{call}: {error}; fit and save the model again") from error
        return state

    def _growth_state(self) -> GrowthState | None:
        """What growing needs, as long as it is of the patches that the model has."""
        return self._growth if self.nominal_ is self._grown_nominal else None

    def _setting(self, workspace: Workspace, progress: Progress | None) -> Setting:
        return Setting(self.parameters, self.geometry, self._network(), workspace, self._executor, progress or _silent)

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

    def _all_descriptors(self, x: Any) -> FloatArray:
        """The descriptors of all images of a model of descriptors, checked."""
        if not self._from_descriptors:
            raise ParameterError("x: this is a model of images, which keeps what it needs; leave x out")
        array = check_descriptors(x)
        self._check_shape(array)
        if len(array) != self.n_images_:
            raise ParameterError(f"x: the model has {self.n_images_} images, these are {len(array)}")
        return array

    def _loo_score(self, scorer: Scorer, rows: FloatArray, image: int) -> float:
        return leave_one_out_score(scorer, rows, image, self.grid_, self.parameters)

    def _map(self, patch_scores: FloatArray) -> FloatArray:
        return anomaly_map(patch_scores, self.parameters.image_size, self.parameters.smoothing_sigma)

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
                most; the score comes with certified bounds. Backbone and a first glance, which searches every ninth
                patch, are always done, even where they alone exceed the budget. The first image of a process
                also loads the network and prepares the search: `prepare` does so beforehand.

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
        self._check_has_network()
        single = _is_single(images)
        source = None if single else open_images(images)
        count = 1 if source is None else len(source)
        card = self._card()
        done: list[Prediction] = []
        step = self.parameters.batch_size if limits.budget is None else 1  # a budget is each image's own
        for start in range(0, count, step):
            begun = time.perf_counter() if start else begun
            numbers = range(start, min(start + step, count))
            inputs = np.empty((len(numbers), *self.parameters.image_size, 3), dtype=np.uint8)
            sizes, turns = [], []
            for k, i in enumerate(numbers):
                ready = self._ready(as_image(images, "images") if source is None else source.load(i))
                sizes.append(ready.size)
                inputs[k] = ready.network_input
                turns.append(ready.degrees)
            on_card = None if card is None else card.scores(inputs)
            rows = self._described_rows(inputs, self._precision) if on_card is None else []
            for k, i in enumerate(numbers):
                try:
                    if on_card is None:
                        done.append(self._predicted(rows[k], turns[k], sizes[k], limits, begun))
                    else:
                        done.append(self._predicted_on_card(next(on_card), turns[k], sizes[k], limits))
                except NonFiniteError as error:
                    raise bad_features("the image" if source is None else source.names[i]) from error
        return done[0] if single else _stacked(done)

    def predict_stream(
        self, images: Iterable[Any], *, threshold: float | None = None, budget_ms: float | None = None, ahead: int = 2
    ) -> Iterator[Prediction]:
        """Scores images as they come, in their order; each result is `predict`'s, to the bit.

        The next images are read (decoded, resized) in a thread while this one is scored. With ``device="cuda"`` the
        copies, the network and the search of neighbouring images overlap as well.

        Args:
            images: an iterable of single images (as `predict` takes them), endless if need be; or a folder, array or
                Dataset, as `predict` takes them. It is asked for the next image in that thread.
            threshold, budget_ms: as in `predict`; a budget counts from when the image's turn comes.
            ahead: images that may be read before their turn, at least 1.

        Returns:
            An iterator of `Prediction` for single images. Closing it ends the reading.

        Raises:
            At once: NotFittedError, ParameterError, BackboneMismatchError, as `predict`. In an image's turn: its
            ImageError or NonFiniteError, after all before it have come.
        """
        self._check_fitted()
        limits = self._limits(threshold, budget_ms)
        self._check_has_network()
        if isinstance(ahead, bool) or not isinstance(ahead, (int, np.integer)) or ahead < 1:
            raise ParameterError(f"ahead: expected a whole number of at least 1, got {ahead!r}")
        if _is_single(images):
            raise ParameterError("images: one image is given; predict takes it, and predict_stream takes several")
        card = self._card()
        source: Iterable[tuple[str, Any]]
        if isinstance(images, (str, os.PathLike)) or hasattr(images, "__getitem__"):
            opened = open_images(images)
            source = ((opened.names[i], opened.load(i)) for i in range(len(opened)))
        else:
            source = ((f"image {i} of the stream", image) for i, image in enumerate(images))

        def read(item: tuple[str, Any]) -> tuple[str, Ready]:
            name, image = item
            return name, self._ready(as_image(image, name))

        def start(item: tuple[str, Ready]) -> tuple[str, Ready, Any]:
            name, ready = item
            if card is not None:
                return name, ready, card.start(ready.network_input)
            begun = time.perf_counter()
            (rows,) = self._described_rows(np.array(ready.network_input[None]), self._precision)
            with named_features(name):
                return name, ready, self._predicted(rows, ready.degrees, ready.size, limits, begun)

        def collect(item: tuple[str, Ready, Any]) -> Prediction:
            name, ready, started = item
            if card is None:
                scored: Prediction = started
                return scored
            with named_features(name):
                return self._predicted_on_card(card.collect(started), ready.degrees, ready.size, limits)

        in_flight = 0 if card is None else card.in_flight
        return in_stream(source, read, start, collect, ahead=int(ahead), in_flight=in_flight)

    def prepare(self) -> InReaCh:
        """Loads the network and prepares the search, which the first `predict` would do otherwise; returns self.

        Raises:
            NotFittedError; BackboneError, WeightsError, BackboneMismatchError: the network cannot be had.
        """
        self._check_fitted()
        if not self._from_descriptors:
            _ = self.backbone
        nominal = self.nominal_
        kernels.nearest(nominal.patches[:1], nominal.bank, backend=self.parameters.kernel_backend)
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
                descriptors). None: the network inputs that the model keeps (the descriptors, as long as the array
                that `fit_descriptors` was given is there); a model saved with ``final=True`` has none.
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
        rows_of = self._training_rows(images)
        for i in range(self.n_images_):
            out[i] = self._loo_score(self._get_scorer(), rows_of(i), i)
            tell("score", i + 1, self.n_images_)
        return out

    def _training_rows(self, images: Any) -> Callable[[int], FloatArray]:
        """The descriptors of training image i, from what the caller gives or from what is at hand."""
        if self._from_descriptors:
            if images is not None:
                array = check_descriptors(images, "images")
                self._check_shape(array)
                if len(array) != self.n_images_:
                    raise ParameterError(f"images: the fit had {self.n_images_} images, these are {len(array)}")
                return lambda i: array[i]
            references = self._described or [None]

            def referenced(i: int) -> FloatArray:
                rows = _referenced(references[i])
                if rows is None:
                    raise ParameterError(
                        "images: give the descriptors that fit_descriptors was given; they are not kept"
                    )
                return rows

            referenced(0)
            return referenced
        read = self._training_inputs(images)
        alignment = self._alignment

        def described(i: int) -> FloatArray:
            network_input = read(i)
            if alignment is not None:
                network_input = rotate(network_input, int(alignment.angles[i]))
            return self._described_rows(np.array(network_input[None]))[0]

        return described

    def _training_inputs(self, images: Any) -> Callable[[int], UInt8Array]:
        """The network input of training image i."""
        state = self._growth
        if images is None:
            if state is None or state.inputs is None:
                raise ParameterError("images: a model saved with final=True keeps no training images; give them")
            inputs = state.inputs
            return lambda i: np.array(inputs[i])
        source = open_images(images)
        if len(source) == self.n_images_:
            used = list(range(self.n_images_))
        else:
            place = {name: i for i, name in enumerate(source.names)}
            if not all(name in place for name in self.image_names_):
                raise ParameterError(
                    f"images: the fit had {self.n_images_} images, these are {len(source)}; give the same ones"
                )
            used = [place[name] for name in self.image_names_]
        return lambda i: self.geometry.apply(source.load(used[i]))

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

    def _described_rows(self, inputs: UInt8Array, precision: str = "float32") -> list[FloatArray]:
        """Descriptors of network inputs, with position channels where the fit has them: B times (P, D)."""
        channels = position_channels(self.grid_, self.parameters.position_weight) if self.positions_ else None
        # What wraps `_base_descriptors` (evaluation's cache) knows of float32 alone.
        described = self._base_descriptors(inputs, *([] if precision == "float32" else [precision]))
        return [append_positions(rows, channels) for rows in described]

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

    def _card(self) -> CardSlots | None:
        """The way through the card, where network and kernels are there and the score is the plain one."""
        p = self.parameters
        if p.device.partition(":")[0] != "cuda" or p.score != "nearest" or p.distance != "squared_l2":
            return None
        backend = p.kernel_backend
        if not kernels.is_card_name(backend):
            return None
        with self._lock:
            backbone, nominal = self.backbone, self.nominal_
            key = (id(nominal), id(backbone), self._precision)
            if self._on_card is None or self._on_card[0] != key:
                from .card_slots import open_slots
                from .gpu_inference import Setting

                channels = position_channels(self.grid_, p.position_weight) if self.positions_ else None
                setting = Setting(
                    nominal.bank, self.grid_, p.image_size, p.dim, p.neighbourhood, p.smoothing_sigma, channels
                )
                self._on_card = None  # gives the old one's memory back first
                self._on_card = (key, open_slots(setting, backbone, backend, self._precision))
            return self._on_card[1]

    def _predicted_on_card(
        self, found: CardScores, degrees: int, size: tuple[int, int] | None, limits: Limits
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

    def _get_scorer(self) -> Scorer:
        with self._lock:
            if self._scorer is None:
                p, nominal, patches = self.parameters, self.nominal_, self.grid_[0] * self.grid_[1]
                self._scorer = Scorer(
                    nominal.bank,
                    lambda: nominal.channel_seed_image * patches + nominal.channel_seed_patch,
                    p.score,
                    p.distance,
                    p.kernel_backend,
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
        nominal = self.nominal_.compress(epsilon, to=to, backend=self.parameters.kernel_backend, progress=progress)
        assert nominal.compression is not None
        other = InReaCh()
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_lock", "_pace")})
        other.nominal_ = nominal
        other._scorer = other._growth = other._spool = None
        other.report_ = FitReport({**self.report_.counts, "compression": nominal.compression.as_dict()})
        other.report_.seconds.update(self.report_.seconds)
        return other

    # --------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str], *, final: bool = False) -> None:
        """Writes the fitted model to one file (format: `model_file`); the same fit gives the same bytes.

        Args:
            path: where to.
            final: leave out what only `partial_fit` and `forget` need. A model saved without it holds the *training
                images* as the network sees them: save the model that you hand out with ``final=True``.

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
        arrays["seed_images"] = self.seed_images_
        if self.nominal_.index_arrays is None:
            self.nominal_.build_index(None, 0)
        arrays.update({f"index.{name}": array for name, array in sorted((self.nominal_.index_arrays or {}).items())})
        state = None if final else self._growth_state()
        if state is not None:
            arrays.update({f"growth.{name}": array for name, array in state.to_arrays().items()})
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
            verify: check the whole file's sha256: reads it once, at the disk's speed. Without it loading takes a moment
                however large the model is, and what an altered file makes of a search is not told.

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
            self.nominal_ = NominalModel(
                **{name: arrays[name] for name in _NOMINAL_ARRAYS},
                index_arrays=_parts(arrays, "index.") or None,
                compression=compression,
            )
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
                self._alignment = Alignment.from_parts(_parts(arrays, "alignment."), meta["alignment"])
            self.rotations_ = None if self._alignment is None else self._alignment.angles.astype(np.float64)
            seeds = arrays["seed_images"] if "seed_images" in arrays else self.report_["seed_images"]
            self.seed_images_ = np.array(seeds, dtype=np.int64)
            growth = _parts(arrays, "growth.")
            patches = self.grid_[0] * self.grid_[1]
            self._growth = (
                GrowthState.from_arrays(growth, self.seed_images_, patches, len(self.nominal_)) if growth else None
            )
            self._grown_nominal = self.nominal_
            self._from_descriptors = meta["backbone"] is None
            if meta["backbone"] is not None:
                self._spec = dict(meta["backbone"]["spec"])
                self._fingerprint = str(meta["backbone"]["fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorruptError(f"{path}: lacks or garbles a part ({error}); fit and save it again") from error
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


def _parts(arrays: dict[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _references(x: Any, count: int) -> list[Reference | None]:
    """Where the descriptors of each image are, as long as the caller keeps them."""
    return [(weakref.ref(x), i) for i in range(count)] if isinstance(x, np.ndarray) else [None] * count


def _referenced(reference: Reference | None) -> FloatArray | None:
    """An image's descriptors, where they are still there."""
    array = None if reference is None else reference[0]()
    return None if array is None or reference is None else np.ascontiguousarray(array[reference[1]], np.float32)


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
