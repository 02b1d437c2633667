"""`InReaCh`: the estimator."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..array_types import DoubleArray, FloatArray, IndexArray, UInt8Array
from ..errors import (
    BackboneMismatchError,
    DescriptorsNeededError,
    FeedbackError,
    FinalModelError,
    GrowthError,
    ModelCorruptError,
    NotFittedError,
    ParameterError,
)
from ..executors import make_executor
from ..fit.calibration import calibration_inputs
from ..fit.context import FitContext
from ..fit.growth import add_images, add_rows, forget_images, forget_rows, names_without, read_added, sizes_of
from ..fit.growth_state import GrowthState
from ..fit.judging import threshold_of
from ..fit.model_building import leave_one_out_score, scorer_without
from ..fit.pipeline import fit_images, fit_rows
from ..fit.plan import FitPlan, plan_fit, plan_growth
from ..fit.report import FitReport
from ..fit.result import FitResult
from ..images.alignment import rotate
from ..images.pixels import PixelRule
from ..images.preprocess import Geometry, geometry_of
from ..images.reading import as_image, is_single_image, plain
from ..images.roi import roi_text
from ..images.source import ImageSource, image_numbers, open_images, single_images
from ..method.descriptors import Describer, DescriptorSpace, check_descriptors, check_grid
from ..method.feedback import ACCEPT, REJECT, Feedback, FeedbackBanks
from ..method.nominal_model import NominalModel
from ..method.scoring import Scorer
from ..parameters import Parameters, real_number
from ..predict.bounded_search import Limits
from ..predict.explanation import TrainingEvidence
from ..predict.feedback import give, give_again
from ..predict.prediction import NetworkInput, Prediction, Predictor, stacked
from ..predict.thread_choice import ThreadChoice
from ..storage import model_file
from ..storage.spool import Spool
from ..storage.thumbnails import Thumbnails
from ..storage.workspace import Budget, Workspace
from ..system.memory import check_unchanged, machine_memory, parse_bytes
from ..system.progress import Progress, no_progress
from ..system.threads import check_threads, get_num_threads, thread_limit
from . import pickling
from .fitted_state import FittedState, Reference
from .network_holder import NetworkHolder, as_backbone
from .training_rows import checked_rows, every_row, referenced, references, training_rows

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..backbones import Backbone

_PRECISIONS = ("float32", "float16", "bfloat16")


class InReaCh:
    """Inter-Realization Channels (McIntosh and Branzan Albu, ICCV 2023): fits unsorted images, inspects new ones.

    Args:
        preset: "default", "channels", "paper" or "reference" (see `Parameters`).
        backbone: a name (see `Parameters`) or a `Backbone`.
        memory_limit: bytes that a fit may take beyond its seed images, one image at a time and at most 100 bytes for
            each patch that joins a channel, as a whole number or as in "2GB"; what exceeds it goes to files
            (docs/training.md). None: half of the machine's memory. Results do not depend on it, and it is not saved.
        executor: where a fit describes and associates images: "local", this process, or what
            `executors.make_executor` takes. Results do not depend on it, and it is not saved.
        precision: of the network's products in `predict` and `predict_stream`: "float32", or "float16" or "bfloat16",
            which are faster on a GPU and change the features (`inreach_fast.disagreement` measures how results
            differ). A fit always uses float32. It is not saved.
        parameters: any of `Parameters`, by keyword.

    Attributes (after `fit`, `fit_descriptors` or `load`):
        nominal_: `NominalModel`, the nominal patches and where each was seen.
        threshold_: float; `predict` calls a higher score anomalous. Chosen without labels, by ``threshold_rule``, from
            the leave-one-image-out scores of ``threshold_images`` training images. May be set, to a finite number of at
            least 0; adding and removing images chooses it anew.
        report_: `FitReport`: counts and seconds of each stage.
        seed_images_: int64 (S,), the training images whose patches found the channels, ascending.
        n_images_: int, training images used. image_names_: their names, list of str.
        originals_: int64 (N,), for each training image the first one that shows exactly the same: itself, or the image
            that it is a copy of. Copies count once: their patches are those of the first one.
        grid_: (h, w) patches of an image. positions_: bool, whether position channels are in use.
        transpose_score_: float, in squared 8-bit units (NaN after `fit_descriptors`).
        rotations_: None, or float64 (N,) degrees by which alignment rotated each training image.
        feedback_: tuple of `Feedback`, what was accepted and rejected, in its order.
        threshold_scores_: float32, the leave-one-image-out scores that the threshold was chosen from;
            threshold_images_: int64, their images.
        thumbnails_: `storage.thumbnails.Thumbnails`, small pictures and the sizes of the training images; None after
            `fit_descriptors`, or with ``thumbnails=False``.

    Results depend on the data, the parameters and ``random_state``, not on batch size or backend.

    Raises:
        ParameterError: an unknown parameter or a value that is not allowed; the message names it.
    """

    nominal_: NominalModel
    report_: FitReport
    seed_images_: IndexArray
    n_images_: int
    image_names_: list[str]
    originals_: IndexArray
    grid_: tuple[int, int]
    positions_: bool
    transpose_score_: float
    rotations_: DoubleArray | None
    threshold_scores_: FloatArray
    threshold_images_: IndexArray
    thumbnails_: Thumbnails | None
    feedback_: tuple[Feedback, ...]

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
        network = None if backbone is None or isinstance(backbone, str) else as_backbone(backbone)
        self._network = NetworkHolder(network)
        if backbone is not None:
            parameters["backbone"] = backbone if network is None else network.name
        if parameters.get("roi") is not None:
            parameters["roi"] = roi_text(parameters["roi"])
        self.parameters = Parameters.from_preset(preset, **parameters)
        self._state: FittedState | None = None
        self._scratch: Path | None = None
        self._spool: Workspace | None = None
        self._prepare_to_predict()

    def _prepare_to_predict(self) -> None:
        self._lock = threading.RLock()
        # Evaluation puts a describer with a cache in its place.
        self._describer = Describer(lambda: self.backbone, lambda: self.parameters)
        self._predictor: tuple[tuple[Any, ...], Predictor] | None = None
        self._threads: ThreadChoice | None = None

    if not TYPE_CHECKING:  # type checkers report misspelt attributes

        def __getattr__(self, name: str) -> Any:
            # NotFittedError is an AttributeError, after which Python asks here for a property too.
            if (name in InReaCh.__annotations__ or name == "threshold_") and self.__dict__.get("_state") is None:
                raise NotFittedError(f"InReaCh: {name} is there after fit, fit_descriptors or InReaCh.load")
            return object.__getattribute__(self, name)  # raises what a property raised, not that there is no such name

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles hold the bytes of the model's file (`pickling`): data, no program."""
        state, settings = self._state, pickling.settings_of(self)
        needed = state is not None and not state.from_descriptors
        network = self._network.described(self.parameters, self.fitted_runtime, needed=needed)
        pickling.check_network(network)
        if state is None:
            return pickling.unfitted, (type(self), self.parameters.as_dict(), network, settings)
        return pickling.from_bytes, (type(self), pickling.file_bytes(self._twin().save), settings)

    def __copy__(self) -> Self:
        return self._twin()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._twin()

    def _twin(self) -> Self:
        """A model that changes on its own; it shares the network and the arrays, which nobody writes to."""
        other = type(self)()
        other.__dict__.update(self.__dict__)
        other._network = self._network.copy()
        other._prepare_to_predict()
        other._spool = None
        return other

    @classmethod
    def _unfitted(cls, parameters: dict[str, Any], network: dict[str, Any] | None) -> Self:
        self = cls()
        self.parameters = Parameters.from_dict(parameters)
        if network is not None:
            self._network = NetworkHolder.from_json(network, Path(), None, None, self.parameters.backbone)
        return self

    def __repr__(self) -> str:
        state = "not fitted" if self._state is None else f"{len(self.nominal_)} nominal patches"
        return f"InReaCh(preset={self.parameters.preset!r}, backbone={self.parameters.backbone!r}, {state})"

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a fit may take; see the class."""
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, value: int | str | None) -> None:
        self._memory_limit = None if value is None else parse_bytes(value)

    @property
    def executor(self) -> Any:
        """Where a fit describes and associates images; see the class."""
        return self._executor

    @executor.setter
    def executor(self, value: Any) -> None:
        self._executor = make_executor(value)

    @property
    def precision(self) -> str:
        """Precision of the network's products in predictions; see the class."""
        return self._precision

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in _PRECISIONS:
            raise ParameterError(f"precision: expected 'float32', 'float16' or 'bfloat16', got {value!r}")
        self._precision = value

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the network's input."""
        return geometry_of(self.parameters)

    @property
    def pixel_rule(self) -> PixelRule:
        """How samples of an image become 8-bit pixels."""
        return PixelRule(self.parameters.bit_depth, self.parameters.max_pixels)

    def _open(self, images: Any) -> ImageSource:
        return open_images(images, rule=self.pixel_rule)

    @property
    def backbone(self) -> Backbone:
        """The network by the runtime in use, loaded on first use; errors as for `prepare`."""
        return self._network.get(self.parameters, self.fitted_runtime)

    @property
    def fitted_runtime(self) -> str | None:
        """What computed the network in the fit, `backbones.RUNTIMES`; None before a fit and for descriptors."""
        return None if self._state is None else self._state.runtime

    @property
    def backbone_runtime(self) -> str:
        """What computes the network: the parameter's value, where "auto" stands for the fit's. May be set.

        Predictions by another runtime than the fit's differ in their last digits and carry its name
        (`Prediction.runtime`); `inreach_fast.disagreement` measures how much they differ.
        """
        p = self.parameters.backbone_runtime
        return (self.fitted_runtime or p) if p == "auto" else p

    @backbone_runtime.setter
    def backbone_runtime(self, value: str) -> None:
        self.parameters = self.parameters.with_changes(backbone_runtime=value)

    @property
    def _other_runtime(self) -> str | None:
        """The runtime in use if it is not the fit's."""
        fitted, used = self.fitted_runtime, self.backbone_runtime
        return None if fitted in (None, used) else used

    # ---------------------------------------------------------------------------------------------------- fitting

    def plan(self, images: Any, *, seeds: Any = None, progress: Progress | None = None) -> FitPlan:
        """Estimates memory, disk and time of a fit by measuring a few images (with ``quantization``, in float32).

        Args:
            images, seeds: as for `fit`; broken images are skipped.
            progress: called as progress("plan", done, total).

        Returns:
            `FitPlan`; ``print(plan)`` describes it.

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError (no image can be read), NonFiniteError, ParameterError,
            MemoryLimitError (the fit would refuse the limit).
        """
        return plan_fit(self._context(self._workspace(), progress, seeds=seeds), self._open(images))

    def plan_partial_fit(self, images: Any, *, progress: Progress | None = None) -> FitPlan:
        """Estimates memory, disk and time of `partial_fit` by measuring a few of the new images; as `plan`.

        Raises:
            As `plan`; NotFittedError, FinalModelError, GrowthError (a model of descriptors), ModelChangedError.
        """
        current, _ = self._growable("plan_partial_fit", descriptors=False)
        return plan_growth(self._context(self._workspace(), progress), current.as_result(), self._open(images))

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
    ) -> Self:
        """Finds the nominal patches of unsorted training images (paper, section 3); returns self.

        Args:
            images: a folder; a list of images (paths, bytes of files, file objects, PIL images, arrays or tensors
                (H, W), (H, W, C) or (C, H, W)); an array (N, H, W, 3); a torch Dataset, whose items are images,
                (image, ...) or {"image": image}; or a DataLoader. Sizes may differ: all are resized. The module
                `images.pixels` says how samples become 8-bit RGB, the same for every form.
            seeds: the seed images, by number in ``images`` or by name; None: ``assoc_depth`` images, chosen by
                ``seed_selection``.
            skip_bad: skip images that cannot be read, and count them in ``report_["skipped"]``, instead of raising
                ImageError.
            spool: a folder that keeps the progress of the fit; created if missing, removed at the end. An interrupted
                fit is resumed from it and gives the same model, bit for bit. Without one, temporary files hold what
                exceeds ``memory_limit``.
            resume: resume the fit in ``spool``; start one if it is empty.
            keep_spool: keep the spool until `remove_spool`, for instance until the model is saved: `save` to the same
                disk then takes over the spool's data instead of copying them.
            progress: called as progress(stage, done, total).

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError, DegenerateDataError (all images identical), RegionError
            (an image without the proportions of ``roi``),
            NonFiniteError (the network's features), NoChannelsError; ParameterError (seeds), MemoryLimitError;
            BackboneError, WeightsError; ExecutorError and its subclasses (lost workers, lost cluster);
            SpoolError and its subclasses: another configuration, changed images, in use, altered, unfinished and not
            resumed, not writable. An earlier model then remains unchanged.
        """
        if resume and spool is None:
            raise ParameterError("resume: no spool to resume from; give spool=DIR")
        source = self._open(images)
        self._network.release(self.parameters)
        with self._calibrated(source, self.geometry, skip_bad):
            context = self._context(self._workspace(spool, resume), progress, seeds=seeds, skip_bad=skip_bad)
            return self._fit_images(context, source, keep_spool=keep_spool)

    @contextmanager
    def _calibrated(self, source: ImageSource, geometry: Geometry, skip_bad: bool = False) -> Iterator[None]:
        """For a fit: with ``quantization`` the network has the ranges of these images; if it fails, those before."""
        if self.parameters.quantization is None:
            yield
            return
        before = self._network.copy()
        try:
            self._network.quantize(self.parameters, calibration_inputs(source, geometry, self.parameters, skip_bad))
            yield
        except BaseException:
            self._network = before
            raise

    def fit_descriptors(
        self, x: Any, grid: Sequence[int], *, seeds: Any = None, progress: Progress | None = None
    ) -> Self:
        """Fits descriptors of the caller's own backbone, without position channels; returns self.

        Args:
            x: (N, P, D) float32 in C order (read in place, never changed), or anything that converts without loss.
            grid: (h, w) with h * w = P. Maps have the size of the parameter ``image_size``.
            seeds, progress: as for `fit`.

        Raises:
            ParameterError, MixedSizesError (ragged), NonFiniteError, TooFewImagesError, DegenerateDataError,
            NoChannelsError, MemoryLimitError, SpoolWriteError (temporary files).
        """
        report = FitReport()
        with report.stage("read"):
            array = check_descriptors(x)
        shape = check_grid(grid, array.shape[1])
        for name in ("roi", "tile"):
            if getattr(self.parameters, name) is not None:
                raise ParameterError(f"{name}: descriptors are taken as they are; leave {name} out, or fit images")
        state = self._fit_rows(array, shape, progress, seeds=seeds, report=report)
        return self._take(replace(state, references=references(x, len(array))))

    def remove_spool(self) -> None:
        """Removes the spool that `fit` kept because of ``keep_spool``, if there is one."""
        if self._spool is not None:
            self._spool.remove()
            self._spool = None

    def use_scratch(self, folder: str | os.PathLike[str] | None) -> None:
        """Sets the folder of temporary files, which hold what exceeds ``memory_limit``; None: the system's."""
        self._scratch = None if folder is None else Path(folder)

    def _fit_rows(
        self, x: FloatArray, grid: tuple[int, int], progress: Progress | None, **arguments: Any
    ) -> FittedState:
        with closing(self._workspace()) as workspace:
            return FittedState.of_fit(fit_rows(self._context(workspace, progress, **arguments), x, grid))

    def _fit_images(self, context: FitContext, source: ImageSource, *, keep_spool: bool = False) -> Self:
        workspace = context.workspace
        try:
            result = fit_images(context, source)
        except BaseException as error:
            workspace.give_up(error)
            raise
        if keep_spool and workspace.durable:
            self._spool = workspace
        else:
            workspace.remove()
        return self._taken(result)

    def _refit(
        self, names: list[str], load: Callable[[int], UInt8Array], sizes: IndexArray, progress: Progress | None
    ) -> Self:
        """Fits network inputs again, which need neither resizing nor cropping; ``sizes``: of the original images."""
        geometry, source = Geometry(None, None), ImageSource(names, load, sizes)
        before = self._fitted(), self._threshold
        with self._calibrated(source, geometry):
            context = self._context(self._workspace(), progress, geometry=geometry)
            self._fit_images(context, source)
        return self._give_again(*before)

    def _context(self, workspace: Workspace, progress: Progress | None, **arguments: Any) -> FitContext:
        """The estimator's settings with the ``arguments`` of a call, which override ``geometry``."""
        return FitContext(
            parameters=self.parameters,
            geometry=arguments.pop("geometry", self.geometry),
            describer=self._describer,
            executor=self._executor,
            workspace=workspace,
            progress=progress or no_progress,
            explicit_limit=self._memory_limit is not None,
            **arguments,
        )

    def _workspace(self, spool: str | os.PathLike[str] | None = None, resume: bool = False) -> Workspace:
        budget = Budget(machine_memory() // 2 if self._memory_limit is None else self._memory_limit)
        return Workspace(budget, self._scratch) if spool is None else Spool(spool, budget, resume=resume)

    def _take(self, state: FittedState, threshold: float | None = None) -> Self:
        """Makes ``state`` this model's."""
        for name in InReaCh.__annotations__.keys() - {"rotations_"}:
            setattr(self, name, getattr(state, name.removesuffix("_")))
        self._threshold = threshold_of(state.threshold_scores, self.parameters) if threshold is None else threshold
        self.rotations_ = None if state.alignment is None else state.alignment.angles.astype(np.float64)
        self._predictor = None
        self._state = state
        return self

    def _fitted(self) -> FittedState:
        """The state. Raises NotFittedError."""
        if self._state is None:
            raise NotFittedError("InReaCh: not fitted yet; call fit, fit_descriptors or InReaCh.load first")
        return self._state

    @property
    def threshold_(self) -> float:
        """The image score above which `predict` calls an image anomalous; see the class."""
        self._fitted()
        return self._threshold

    @threshold_.setter
    def threshold_(self, value: float) -> None:
        self._fitted()
        self._threshold = real_number("threshold_", value, zero=True)

    @property
    def from_descriptors(self) -> bool:
        """Whether the model was fitted by `fit_descriptors`, so that it scores descriptors and no images."""
        return self._fitted().from_descriptors

    # ---------------------------------------------------------------------------------------------------- growing

    @property
    def can_grow(self) -> bool:
        """Whether the model keeps what `partial_fit` and `forget` need, which includes the training images as the
        network sees them. A model that was compressed or saved with ``final=True`` does not.
        """
        state = self._state
        return state is not None and state.growth is not None and state.nominal is self.nominal_

    @property
    def growth_bytes(self) -> int:
        """Bytes of a saved model that only `partial_fit` and `forget` need, and ``final=True`` leaves out."""
        growth = self._state.growth if self._state is not None and self.can_grow else None
        return 0 if growth is None else sum(array.nbytes for array in growth.to_arrays().values())

    def partial_fit(
        self, images: Any, *, skip_bad: bool = False, refit: bool = False, progress: Progress | None = None
    ) -> Self:
        """Adds images to the fitted model, without reading the old ones again; returns self.

        The model is then, bit for bit, the one that ``fit`` makes of the old images followed by the new ones, with
        the same ``seeds`` (docs/training.md explains why; with channels and ``quantization``, by the fit's ranges).

        Args:
            images, skip_bad, progress: as for `fit`.
            refit: fit all images anew, with new seed images, from the network inputs that the model keeps.

        Raises:
            NotFittedError; FinalModelError (saved with ``final=True``); RefitNeededError (with these images the
            position test or the alignment changes its decision); GrowthError (a model of descriptors); and the errors
            of `fit`, MemoryLimitError included. The model then remains unchanged.
        """
        current, _ = self._growable("partial_fit", descriptors=False)
        refit |= self.parameters.association == "all"  # every patch changes with each image
        source = self._open(images)
        with closing(self._workspace()) as workspace:
            context = self._context(workspace, progress, skip_bad=skip_bad)
            if not refit:
                return self._grown(add_images(context, current.as_result(), source))
            inputs, names = read_added(context, current.as_result(), source)
            with closing(inputs):
                check_unchanged(self.nominal_.patches)
                return self._refit(names, inputs.__getitem__, inputs.sizes, progress)

    def partial_fit_descriptors(self, x: Any, *, progress: Progress | None = None) -> Self:
        """Adds images, given as descriptors, to a model of `fit_descriptors`; otherwise as `partial_fit`.

        Args:
            x: (n, P, D) float32, of the fit's grid and dimension. progress: as for `fit`.

        Raises:
            NotFittedError, FinalModelError, GrowthError (a model of images), DescriptorsNeededError; and the errors
            of `fit_descriptors`. The model then remains unchanged.
        """
        current, _ = self._growable("partial_fit_descriptors", descriptors=True)
        array = checked_rows(x, current)
        described = [*(current.references or [None] * current.n_images), *references(x, len(array))]
        if self.parameters.association == "all":
            state = self._fit_rows(np.concatenate([every_row(current), array]), current.grid, progress)
            return self._take(replace(state, references=described))
        with closing(self._workspace()) as workspace:
            context = self._context(workspace, progress)
            result = add_rows(context, current.as_result(), array, lambda i: referenced(described[i]))
        return self._grown(result, described)

    def forget(self, ids: Any, *, x: Any = None, refit: bool = False, progress: Progress | None = None) -> Self:
        """Removes training images, such as a defect that was found later, from the fitted model; returns self.

        The model is then, bit for bit, the one that ``fit`` makes of the other images with the same ``seeds`` (with
        channels and ``quantization``, by the ranges of the fit). Images behind the removed ones are renumbered.

        Args:
            ids: a number or name (`image_names_`), or several.
            x: for a model of `fit_descriptors`: the descriptors of all its images, (N, P, D) in their order; needed
                if the threshold is to be chosen from images whose descriptors are no longer available.
            refit: fit the other images anew, with new seed images, from the network inputs that the model keeps, or
                from ``x``. This is how a seed image is removed.
            progress: as for `fit`.

        Raises:
            NotFittedError; ParameterError (no such image); SeedImageError (a seed image, without ``refit``);
            FinalModelError (saved with ``final=True``); RefitNeededError (without these images the position test or
            the alignment changes its decision); DescriptorsNeededError; TooFewImagesError, DegenerateDataError,
            NoChannelsError (for the remaining images); MemoryLimitError. The model then remains unchanged.
        """
        current, growth = self._growable("forget")
        numbers = image_numbers(ids, self.image_names_, "ids")
        left = np.setdiff1d(np.arange(current.n_images), numbers)
        if x is not None and not current.from_descriptors:
            raise ParameterError("x: this is a model of images, which keeps what it needs; leave x out")
        array = None if x is None else checked_rows(x, current, every=True)
        every = self.parameters.association == "all"
        if every and current.from_descriptors and array is None:
            array = every_row(current)
        if (refit or every) and current.from_descriptors:
            if array is None:
                raise DescriptorsNeededError("x: a refit needs the descriptors of all images of the model; give them")
            return self.fit_descriptors(array[left], self.grid_, progress=progress)
        if refit or every:
            names, _ = names_without(current.image_names, self.report_["skipped_names"], numbers)

            def pixels(i: int) -> UInt8Array:
                assert growth.inputs is not None
                image = np.array(growth.inputs[left[i]])
                check_unchanged(growth.inputs)
                return image

            return self._refit(names, pixels, sizes_of(current.as_result())[left], progress)
        described = [current.references[i] if current.references else None for i in left.tolist()]

        def rows_of(image: int) -> FloatArray | None:
            return array[int(left[image])] if array is not None else referenced(described[image])

        with closing(self._workspace()) as workspace:
            context = self._context(workspace, progress)
            if current.from_descriptors:
                return self._grown(forget_rows(context, current.as_result(), numbers, rows_of), described)
            return self._grown(forget_images(context, current.as_result(), numbers))

    def _grown(self, result: FitResult, described: list[Reference | None] | None = None) -> Self:
        """Takes what was made of this model and of other images."""
        check_unchanged(self.nominal_.patches)
        before = self._fitted(), self._threshold
        return self._taken(result, described)._give_again(*before)

    def _taken(self, result: FitResult, described: list[Reference | None] | None = None) -> Self:
        state = FittedState.of_fit(result, described)
        if not state.from_descriptors:
            runtime = self._describer.runtime
            state = replace(state, runtime=runtime, runtime_version=self._network.version(runtime))
        return self._take(state)

    def _growable(self, call: str, *, descriptors: bool | None = None) -> tuple[FittedState, GrowthState]:
        """What growing needs, checked; ``descriptors``: the kind of model that ``call`` is for, None: either."""
        current = self._fitted()
        growth = current.growth if self.can_grow else None
        if descriptors is not None and descriptors != current.from_descriptors:
            kind, other = (
                ("descriptors", "partial_fit_descriptors") if current.from_descriptors else ("images", "partial_fit")
            )
            raise GrowthError(f"{call}: this is a model of {kind}; give them to {other}")
        if growth is None:
            raise FinalModelError(
                f"{call}: the model does not keep what growing needs (it was compressed, saved with final=True or by "
                "an older version, or its patches were replaced); fit again, or use the model saved without final=True"
            )
        check_unchanged(self.nominal_.patches)
        if self._other_runtime is not None and self.parameters.association != "all":
            raise GrowthError(
                f"{call}: the model was fitted with the runtime {self.fitted_runtime!r}, and this is "
                f'{self._other_runtime!r}; set backbone_runtime="auto", or fit again'
            )
        try:
            growth.check()
        except (ValueError, IndexError) as error:
            raise ModelCorruptError(f"{call}: {error}; fit and save the model again") from error
        return current, growth

    def compress(
        self, epsilon: float | None = None, *, to: int | float | None = None, progress: Progress | None = None
    ) -> Self:
        """The same fit with fewer nominal patches, whose distances grow by at most epsilon and never shrink.

        `NominalModel.compress` describes arguments, guarantee and proof. With ``score="nearest"`` an image's score s
        does not fall, and grows to at most (sqrt(s) + epsilon)^2 (of plain distances: s + epsilon). With
        ``score="reachability"`` it may also fall, to no less than max(0, sqrt(s) - epsilon)^2 (s - epsilon).

        The threshold remains the fit's. Every image that was anomalous therefore still is with "nearest"; with
        "reachability" the verdict of an image whose score is within these bounds of the threshold may change either
        way (with epsilon = 0 no score changes). ``threshold_scores_`` and ``report_`` remain the fit's as well, the
        report with an entry "compression" (epsilon, kept, of). A compressed model cannot grow.

        Returns:
            A new fitted estimator; this one remains unchanged.

        Raises:
            NotFittedError; ParameterError: as `NominalModel.compress`, or a ``score`` for which there is no guarantee:
            "mahalanobis" or "patchcore".
        """
        state = self._fitted()
        if self.parameters.score not in ("nearest", "reachability"):
            raise ParameterError(
                f'compress: score="{self.parameters.score}" has no guarantee; fit with score="nearest" or '
                '"reachability"'
            )
        nominal = self.nominal_.compress(epsilon, to=to, backend=kernels.backend_of(self.parameters), progress=progress)
        assert nominal.compression is not None
        report = FitReport({**self.report_.counts, "compression": nominal.compression.as_dict()})
        report.seconds.update(self.report_.seconds)
        return self._twin()._take(replace(state, nominal=nominal, report=report, growth=None), self.threshold_)

    # ---------------------------------------------------------------------------------------------------- feedback

    def accept(self, image: Any, region: Any = None) -> Feedback:
        """Makes the patches of a region nominal: it was a false alarm.

        They join the nominal patches with a confirmation distance of 0, exactly as if they had been there from the
        start (`method.feedback`). Every patch that the region touches is accepted. The threshold stays.

        Args:
            image: one image, as `predict` takes it.
            region: (x, y, width, height) in pixels of that image, or a mask of its size (an array (H, W), not 0 inside,
                or an image file); None: the whole image.

        Returns:
            `Feedback`; its ``number`` undoes it (`undo_feedback`), and ``feedback_`` lists all.

        Raises:
            NotFittedError; RegionError: the region does not lie within the image, or the model inspects none of it;
            ImageError; FeedbackError: a model of descriptors, a ``score`` that is no distance, or another runtime than
            the fit's.
        """
        return self._give(ACCEPT, image, region)

    def reject(self, image: Any, region: Any = None) -> Feedback:
        """Makes what is like a region anomalous: it was a missed defect.

        Of the region those patches count whose score is at least half of its greatest. A patch is raised if it is
        nearer to one of them than to every nominal patch; the region seen again exceeds ``threshold_``. Other patches
        keep their scores, to the bit, and the threshold stays. `method.feedback` has the rule.

        Args, returns, raises: as `accept`.
        """
        return self._give(REJECT, image, region)

    def undo_feedback(self, number: int) -> Feedback:
        """Takes one feedback back and returns it; the others stay as they are.

        Raises:
            NotFittedError. ParameterError: there is no feedback of this number.
        """
        state = self._fitted()
        found = [entry for entry in state.feedback if entry.number == number and not isinstance(number, bool)]
        if not found:
            numbers = ", ".join(str(entry.number) for entry in state.feedback) or "none"
            raise ParameterError(f"number: no feedback {number!r}; there is {numbers} (feedback_, inreach feedback)")
        left = tuple(entry for entry in state.feedback if entry is not found[0])
        self._take(replace(state, feedback=left), self._threshold)
        return found[0]

    def _give(self, kind: str, image: Any, region: Any) -> Feedback:
        state, score = self._fitted(), self.parameters.score
        if state.from_descriptors:
            raise FeedbackError(f"{kind}: the model was fitted on descriptors and sees no images; fit images instead")
        if score not in ("nearest", "reachability"):
            raise FeedbackError(
                f'{kind}: score="{score}" is no distance to nominal patches; fit with score="nearest" or "reachability"'
            )
        if self._other_runtime is not None:
            raise FeedbackError(
                f"{kind}: the model was fitted with the runtime {self.fitted_runtime!r}, and this is "
                f'{self._other_runtime!r}; set backbone_runtime="auto"'
            )
        number = 1 + max((entry.number for entry in state.feedback), default=0)
        return self._append(give(self._ready(images=True), kind, number, image, region))

    def _append(self, entry: Feedback) -> Feedback:
        state = self._fitted()
        self._take(replace(state, feedback=(*state.feedback, entry)), self._threshold)
        return entry

    def _give_again(self, before: FittedState, threshold: float) -> Self:
        """Gives the feedback of an earlier state to this one; if it cannot be, the earlier one is back."""
        try:
            for entry in before.feedback:
                self._append(give_again(self._ready(images=True), entry))
        except BaseException:
            self._take(before, threshold)
            raise
        return self

    # -------------------------------------------------------------------------------------------------- predicting

    def predict(self, images: Any, *, threshold: float | None = None, budget_ms: float | None = None) -> Prediction:
        """Scores one image or a batch (paper, section 3.4).

        With a ``threshold`` or a budget the search may end before every patch is proven (docs/serving.md); without
        either it is complete.

        Args:
            images: one image (path, bytes of a file, file object, PIL image, array or tensor (H, W), (H, W, C) or
                (C, H, W), or {"image": image}), or a batch (list of them, array (B, H, W, 3), folder, Dataset,
                DataLoader). An image's result is the same, to the bit, alone, in any batch and in any form.
            threshold: used for the verdict instead of ``threshold_``; the search stops as soon as the verdict is
                certain. The verdict is always that of the complete search.
            budget_ms: milliseconds that each image may take from the call on (in a batch, from the start of its
                turn), reading and backbone included. The score then comes with certified bounds. Backbone and a first
                search, of every ninth patch, are always done, even if they alone exceed the budget. The first image
                of a process also loads the network and prepares the search, unless `prepare` was called.

        Returns:
            `Prediction`, of scalars and one map for one image, of arrays with a leading B for a batch.

        Raises:
            NotFittedError, ImageError, RegionError (as `fit`), BackboneMismatchError (another backbone, or a model of
                `fit_descriptors`), NonFiniteError (the network's features), ModelChangedError (the loaded file was
                overwritten), ForkError (as `prepare`). ParameterError: a threshold that
                is not a finite number, a budget that is not above 0, or a budget with a ``score`` other than
                "nearest" (the others have no bounds; with a threshold they are searched completely).
        """
        begun = time.perf_counter()
        limits, decision = self._limits(threshold, budget_ms)
        predictor = self._ready(images=True)
        if is_single_image(images):
            return predictor.predict([("the image", images)], limits, decision, begun)[0]
        return stacked(predictor.predict(self._open(images), limits, decision, begun))

    def predict_stream(
        self, images: Iterable[Any], *, threshold: float | None = None, budget_ms: float | None = None, ahead: int = 2
    ) -> Iterator[Prediction]:
        """Scores images as they come, in their order; each result is `predict`'s, to the bit.

        The next images are read (decoded, resized) in a thread while this one is scored. With ``device="cuda"`` the
        copies, the network and the search of consecutive images overlap as well. Closing the iterator ends the reading.

        Args:
            images: an iterable of single images (as `predict` takes them), possibly endless; or a folder, array or
                Dataset, as `predict` takes them. It is iterated in that thread.
            threshold, budget_ms: as in `predict`; a budget counts from the start of the image's turn.
            ahead: images that may be read before their turn, at least 1.

        Raises:
            At once: NotFittedError, ParameterError, BackboneMismatchError, as `predict`. In an image's turn, after
            the results of all images before it: its ImageError or NonFiniteError.
        """
        limits, decision = self._limits(threshold, budget_ms)
        if isinstance(ahead, bool) or not isinstance(ahead, (int, np.integer)) or ahead < 1:
            raise ParameterError(f"ahead: expected a whole number of at least 1, got {ahead!r}")
        if is_single_image(images):
            raise ParameterError("images: one image is given; predict takes it, and predict_stream takes several")
        source: Iterable[tuple[str, Any]]
        if isinstance(images, (str, os.PathLike)) or hasattr(images, "__getitem__"):
            source = self._open(images)
        elif not hasattr(images, "__iter__"):
            raise ParameterError(f"images: expected an iterable of images, got {type(images).__name__}")
        else:
            source = ((f"image {i} of the stream", image) for i, image in enumerate(single_images(images)))
        return self._ready(images=True).stream(source, limits, decision, int(ahead))

    def score_descriptors(
        self, x: Any, *, threshold: float | None = None, budget_ms: float | None = None
    ) -> Prediction:
        """Scores descriptors as `predict` scores images.

        Args:
            x: (P, D) for one image or (B, P, D), float32, of the fit's grid and dimension (position channels
                included, if the fit has them).
            threshold, budget_ms: as in `predict`.

        Raises:
            NotFittedError, ParameterError, MixedSizesError, NonFiniteError.
        """
        begun = time.perf_counter()
        limits, decision = self._limits(threshold, budget_ms)
        x = plain(x)
        single = np.ndim(x) == 2
        array = checked_rows(x[None] if isinstance(x, np.ndarray) and single else [x] if single else x, self._fitted())
        predictor = self._ready()
        done = [
            predictor.score(rows, limits, decision, time.perf_counter() if i else begun) for i, rows in enumerate(array)
        ]
        return done[0] if single else stacked(done)

    def training_scores(self, images: Any = None, *, progress: Progress | None = None) -> FloatArray:
        """Scores each training image against the nominal patches of the *other* images (leave-one-image-out).

        Copies of an image have its score: they are left out together. What was accepted or rejected does not count.

        Args:
            images: the training images in the order of the fit (after `fit_descriptors`: the (N, P, D)
                descriptors). None: the network inputs that the model keeps (the descriptors, while the array that
                `fit_descriptors` was given exists); a model saved with ``final=True`` has none.
            progress: called as progress("score", done, total).

        Returns:
            float32 (N,), one image score for each training image (skipped images have none).

        Raises:
            NotFittedError, ParameterError (other images than the fit's), ImageError.
        """
        state, progress = self._fitted(), progress or no_progress
        # With fewer patches (compressed, say) the scores are not the fit's.
        whole = self.nominal_ is state.nominal and self.nominal_.compression is None
        first, place = state.arrangement.first, state.arrangement.place
        if images is None and whole and len(state.threshold_images) == len(first):
            scored = np.searchsorted(state.threshold_images, first[place])
            return np.array(state.threshold_scores[scored], dtype=np.float32)
        predictor = self._ready()
        rows_of = training_rows(
            state, images, self.pixel_rule, self.geometry, lambda x: predictor.describe(x, "float32")
        )
        out, scorer = np.empty(len(first), dtype=np.float32), predictor.without_feedback
        for i, number in enumerate(first.tolist()):
            rows = rows_of(number)
            out[i] = leave_one_out_score(scorer, self.nominal_, rows, number, self.grid_, self.parameters)
            progress("score", i + 1, len(first))
        return out[place]

    def training_map(self, number: int, image: UInt8Array) -> FloatArray:
        """The anomaly map of a training image against the nominal patches of the *other* images.

        Args:
            number, image: as for `training_prediction`.

        Returns:
            float32 (H, W) in the image's own frame; NaN where the crop left the image uninspected.

        Raises:
            NotFittedError, BackboneMismatchError.
        """
        found = self.training_prediction(number, image)
        return self.map_to_original(found.anomaly_map, found.original_size)

    def training_prediction(self, number: int, image: Any) -> Prediction:
        """The prediction of a training image against the nominal patches of the *other* images.

        `predict` would find each nominal patch of the image in the model itself, at distance 0.

        Args:
            number: the training image, counted from 0 as in ``image_names_``.
            image: the image, in any form that `predict` takes for one.

        Raises:
            NotFittedError, BackboneMismatchError, ParameterError (no such image), ImageError, DataError.
        """
        names = self.image_names_
        if not isinstance(number, (int, np.integer)) or not 0 <= number < len(names):
            raise ParameterError(f"number: expected a training image, 0 to {len(names) - 1}, got {number!r}")
        predictor, name = self._ready(images=True), names[number]
        pixels = as_image(image, name, self.pixel_rule)
        degrees = 0 if self.rotations_ is None else int(self.rotations_[number])
        one = NetworkInput(name, rotate(self.geometry.apply(pixels, name), degrees), degrees, pixels.shape[:2])
        (rows,) = predictor.describe(one.pixels[None], "float32")
        number = int(self.originals_[number])
        scorer = scorer_without(predictor.without_feedback, self.nominal_, number, rows, self.parameters)
        return predictor.scored(one, *scorer.patch_scores(rows, leave_out=number), self.threshold_)

    def prepare(self, threads: int | str | None = None) -> Self:
        """Loads the network, runs it once and prepares the search, as the first `predict` would; returns self.

        Args:
            threads: CPU threads of this model's predictions, for network and kernels alike: a number, or "auto", the
                number that is fastest on the machine as it is. It is measured now with an image of noise, and again,
                with the images that are predicted, when their latency has changed by 40 %. "auto" tries only numbers
                with which the features have the bits that they have now.
                None: as before, at first what `set_num_threads` and torch say.

        Raises:
            NotFittedError; BackboneError, WeightsError, BackboneMismatchError: the network cannot be loaded; ForkError:
            this process was forked after torch had worked with several threads; ParameterError: ``threads``.
        """
        if threads is not None:
            self._threads = self._thread_choice(threads)
        if not self._fitted().from_descriptors:
            # By one image, with the threads of predictions: a runtime opens the network for so many, and oneDNN lays
            # out its weights for them.
            black = np.zeros((1, *self.parameters.image_size, 3), np.uint8)
            with nullcontext() if self._threads is None else thread_limit(self._threads.number):
                self.backbone.extract(black, precision=self._precision)
        bank, backend = self._ready().scorer.bank, kernels.backend_of(self.parameters)
        kernels.nearest(self.nominal_.patches[:1], bank, backend=backend)
        if threads == "auto" and self._threads is not None:
            predictor = self._ready(images=True)
            noise = np.random.default_rng(0).integers(0, 256, (1, *self.parameters.input_size, 3), np.uint8)

            def work() -> FloatArray:
                (rows,) = predictor.describe(noise)
                kernels.nearest(rows, bank, backend=backend)
                return rows

            self._threads.measure(work)
        return self

    def _thread_choice(self, threads: int | str) -> ThreadChoice:
        if threads != "auto":
            return ThreadChoice(check_threads('threads ("auto" or a number)', threads), fixed=True)
        if self._fitted().from_descriptors:
            raise ParameterError(
                'threads: "auto" is measured with the network, and the model was fitted on descriptors; give a number'
            )
        return ThreadChoice(get_num_threads())

    def map_to_original(self, values: FloatArray, original_size: tuple[int, int]) -> FloatArray:
        """Brings a map of the network's input, (H, W), into the frame of the original picture.

        Args:
            values: `Prediction.anomaly_map` of one image.
            original_size: (height, width), `Prediction.original_size`; the result, float32, is NaN outside the crop.
        """
        return self.geometry.map_to_original(values, original_size)

    def _limits(self, threshold: Any, budget_ms: Any) -> tuple[Limits, float]:
        """Where searches may stop, and the threshold of the verdict."""
        self._fitted()
        if threshold is None and budget_ms is None:
            return Limits(), self.threshold_
        limits = Limits.of(threshold, budget_ms)
        if limits.budget is not None and self.parameters.score not in ("nearest", "reachability"):
            raise ParameterError(
                f'budget_ms: score="{self.parameters.score}" has no bounds to stop at; leave the budget out, or fit '
                'with score="nearest" or "reachability"'
            )
        return limits, self.threshold_ if limits.threshold is None else limits.threshold

    def _ready(self, *, images: bool = False) -> Predictor:
        """The predictor, kept until the model or its settings change; ``images``: with its network."""
        state, p, nominal = self._fitted(), self.parameters, self.nominal_
        check_unchanged(nominal.patches)
        if images and state.from_descriptors:
            raise BackboneMismatchError(
                "predict: the model was fitted on descriptors of the caller's own backbone; give "
                "score_descriptors the descriptors of the image"
            )
        threshold = self._threshold if state.feedback else None
        made_of = (state, p, nominal, self._network, self._describer, self._precision, self._threads, threshold)
        with self._lock:
            # Compared by identity: `id` of a deleted object may be another's.
            if self._predictor is None or any(a is not b for a, b in zip(self._predictor[0], made_of, strict=True)):
                self._predictor = None  # frees the old one's GPU memory first
                patches = state.grid[0] * state.grid[1]
                feedback, backend = FeedbackBanks.of(state.feedback, self._threshold), kernels.backend_of(p)
                excluded = None if feedback is None else feedback.excluded(nominal.bank, backend)
                channels = lambda: nominal.channel_seed_image * patches + nominal.channel_seed_patch  # noqa: E731
                scorer = Scorer(nominal.bank, channels, p.score, p.distance, backend)
                self._predictor = (
                    made_of,
                    Predictor(
                        nominal=nominal,
                        scorer=replace(scorer, excluded=excluded),
                        describer=self._describer,
                        precision=self._precision,
                        geometry=self.geometry,
                        alignment=state.alignment,
                        grid=state.grid,
                        space=DescriptorSpace.of(p, state.grid, state.projection, positions=state.positions),
                        parameters=p,
                        other_runtime=self._other_runtime,
                        feedback=feedback,
                        evidence=TrainingEvidence(
                            nominal=nominal,
                            scorer=scorer,
                            grid=state.grid,
                            geometry=self.geometry,
                            names=state.image_names,
                            angles=self.rotations_,
                            thumbnails=state.thumbnails,
                            scores=state.threshold_scores,
                        ),
                        threads=self._threads,
                    ),
                )
            predictor = self._predictor[1]
            if images:
                _ = predictor.gpu
        return predictor

    # -------------------------------------------------------------------------------------------- saving, loading

    def save(self, path: str | os.PathLike[str], *, final: bool = False, thumbnails: bool | None = None) -> None:
        """Writes the fitted model to one file (format: `storage.model_file`); the same fit gives the same bytes.

        Args:
            path: of the file.
            final: leave out what only `partial_fit` and `forget` need. A model saved without it contains the *training
                images* as the network sees them: save models for others with ``final=True``.
            thumbnails: whether to write the small pictures of the training images, if the model has them; None: unless
                it is ``final``. Explanations of a model without them name the images.

        Raises:
            NotFittedError. SaveError: full disk, no permission; an older file of that name remains unchanged.
        """
        state = self._fitted()
        if self.nominal_ is not state.nominal:
            state = replace(state, nominal=self.nominal_, growth=None)
        content, arrays = state.to_parts(final=final, thumbnails=not final if thumbnails is None else thumbnails)
        meta = {
            "kind": "InReaCh",
            "parameters": self.parameters.to_saved(),
            "backbone": None
            if state.from_descriptors
            else self._network.to_json(self.parameters, state.runtime) | state.runtime_record,
            "threshold": self.threshold_,
            **content,
        }
        holding = None if self._spool is None else self._spool.file_of(self.nominal_.patches)
        model_file.save_file(path, meta, arrays, holding=holding)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | str | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        backend: str | None = None,
        max_pixels: int | None = None,
        backbone_runtime: str | None = None,
        verify: bool = True,
    ) -> Self:
        """Reads a saved model; its patches stay on disk, memory-mapped.

        The file contains no program and no weights. The network is rebuilt at the first `predict` from its name,
        levels and normalisation, and the name and sha256 of its weights file. A factory, FILE.py:FACTORY, is run from
        its recorded path: load such models only from people whom you trust.

        Args:
            path: of the file.
            backbone: the network, if it cannot be rebuilt or has moved: a `Backbone`, or a name as in `Parameters`.
                Its fingerprint must be the model's; this is checked now or, for a name, at the first `predict`.
            weights: the weights file, if it is neither at its recorded path nor in the model's folder.
            device: torch device of the network, instead of the one it was fitted on.
            backend: kernel backend, instead of the one it was fitted with.
            max_pixels: pixels of the largest image that is read, instead of the fit's.
            backbone_runtime: what computes the network (`Parameters`), instead of what the fit used: scores differ.
            verify: check the whole file's sha256, which reads it once. Without it loading takes a moment however large
                the model is, and an altered file is not detected.

        Replace the file of a loaded model by renaming another one to its name, as `save` does: the loaded model keeps
        the old one. A file that is overwritten in place (``cp other.inreach live.inreach``) makes the model's calls
        raise ModelChangedError.

        Raises:
            ModelFileError, ModelCorruptError, ModelVersionError, BackboneMismatchError; ParameterError: a wrong
            argument.
        """
        if backbone is not None and not isinstance(backbone, str):
            backbone = as_backbone(backbone)
        meta, arrays = model_file.load_file(path, verify=verify)
        self = cls()
        try:
            if meta["kind"] != "InReaCh":
                raise ValueError(f"a model of kind {meta['kind']!r}")
            parameters = Parameters.from_dict(meta["parameters"])
            threshold = float(meta["threshold"])
            if not math.isfinite(threshold):
                raise ValueError(f"the threshold {threshold}")
            self._take(FittedState.from_parts(meta, arrays), threshold)
            if meta["backbone"] is not None:
                folder, name = Path(path).parent, parameters.backbone
                self._network = NetworkHolder.from_json(meta["backbone"], folder, backbone, weights, name)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorruptError(f"{path}: missing or malformed part ({error}); fit and save it again") from error
        changes = {"device": device, "backend": backend, "max_pixels": max_pixels, "backbone_runtime": backbone_runtime}
        self.parameters = parameters.with_changes(**{n: v for n, v in changes.items() if v is not None})
        check_unchanged(self.nominal_.patches)  # the small arrays were copied
        return self
