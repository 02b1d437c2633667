"""Images added to a fitted model and taken out again; `growth` says why that gives a fit's own bits."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from ..array_types import FloatArray
from ..errors import DescriptorsNeededError, FinalModelError, GrowthError, ModelCorruptError, ParameterError
from ..fit.growth import (
    ManyInputs,
    Setting,
    add_images,
    add_rows,
    forget_images,
    forget_rows,
    names_without,
    read_added,
)
from ..fit.growth_state import GrowthState
from ..fit.nominate import Progress, silent
from ..fit.pipeline import StoredImages
from ..images.ids import image_numbers
from ..images.source import open_images
from ..method.descriptors import check_descriptors
from ..storage.workspace import Workspace
from .descriptor_references import referenced, references
from .fitting import Fitting

if TYPE_CHECKING:
    from typing_extensions import Self


class Growing(Fitting):
    """The part of `InReaCh` that grows and shrinks a model."""

    @property
    def can_grow(self) -> bool:
        """Whether `partial_fit` and `forget` have what they need, training images as the network sees them among it:
        not in a model that was compressed, or saved with ``final=True``."""
        return self._fitted and self._growth_state() is not None

    def partial_fit(
        self, images: Any, *, skip_bad: bool = False, refit: bool = False, progress: Progress | None = None
    ) -> Self:
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
            raises, MemoryLimitError among it. The model is then as it was.
        """
        state = self._growing("partial_fit", descriptors=False)
        source = open_images(images)
        with closing(self._workspace()) as workspace:
            setting = self._setting(workspace, progress)
            if refit:
                added, names, _ = read_added(self._current(state), source, setting, skip_bad=skip_bad)
                inputs = ManyInputs([(state.inputs, range(self.n_images_)), (added, range(len(added)))])
                with closing(added):
                    self._fit_source(StoredImages(inputs, names), progress=progress)
            else:
                self._take(add_images(self._current(state), source, setting, skip_bad=skip_bad))
        return self

    def partial_fit_descriptors(self, x: Any, *, progress: Progress | None = None) -> Self:
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
        described = [*(self._described or [None] * self.n_images_), *references(x, len(array))]
        with closing(self._workspace()) as workspace:
            setting = self._setting(workspace, progress)
            self._take(add_rows(self._current(state), array, setting, lambda i: referenced(described[i])))
        self._described = described
        return self

    def forget(self, ids: Any, *, x: Any = None, refit: bool = False, progress: Progress | None = None) -> Self:
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
            NoChannelsError (of what would be left); MemoryLimitError. The model is then as it was.
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
                return array[int(left[image])] if array is not None else referenced(described[image])

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

    def _setting(self, workspace: Workspace, progress: Progress | None) -> Setting:
        return Setting(
            self.parameters,
            self.geometry,
            self._describer,
            workspace,
            self._executor,
            progress or silent,
            explicit_limit=self._memory_limit is not None,
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
