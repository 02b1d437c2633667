"""Fits: of images, of descriptors, and what one will take beforehand (paper, sections 3.1 to 3.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError
from ..executors import make_executor
from ..fit.nominate import Progress, silent
from ..fit.pipeline import StoredImages, fit_images, fit_rows
from ..fit.plan import FitPlan, plan_fit
from ..fit.report import FitReport
from ..images.source import ImageSource, open_images
from ..memory import machine_memory, parse_bytes
from ..method.descriptors import check_descriptors, check_grid
from ..storage.spool import Spool
from ..storage.workspace import Budget, Workspace
from .descriptor_references import references
from .network import WithNetwork

if TYPE_CHECKING:
    from typing_extensions import Self


class Fitting(WithNetwork):
    """The part of `InReaCh` that fits."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a fit may take beyond its seed images and one image at a time; None: half of the machine's."""
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

    def plan(self, images: Any, *, seeds: Any = None, progress: Progress | None = None) -> FitPlan:
        """Says how much memory, disk and time a fit will take, from a measurement of a few images.

        Args:
            images, seeds: as `fit` will be given them; broken images are passed over.
            progress: called as progress("plan", done, total).

        Returns:
            `FitPlan`; ``print(plan)`` says it in words.

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError (none can be read), NonFiniteError, ParameterError,
            MemoryLimitError (the fit would refuse the limit).
        """
        return plan_fit(
            open_images(images),
            self.parameters,
            self.geometry,
            self._describer,
            self._workspace().budget.limit,
            seeds=seeds,
            explicit_limit=self._memory_limit is not None,
            tell=progress or silent,
        )

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
            keep_spool: leave the spool until `remove_spool`: until the model has been saved, say. `save` on the same
                disk then takes over what lies there, instead of copying it.
            progress: called as progress(stage, done, total).

        Returns:
            self.

        Raises:
            EmptyFolderError, TooFewImagesError, ImageError, DegenerateDataError (all images identical),
            NonFiniteError (the network's features), NoChannelsError; ParameterError (seeds), MemoryLimitError;
            BackboneError, WeightsError; ExecutorError in its kinds (workers or a cluster that were lost);
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
    ) -> Self:
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
        shape = check_grid(grid, array.shape[1])
        with closing(self._workspace()) as workspace:
            fitted = fit_rows(
                array,
                shape,
                self.parameters,
                workspace,
                report,
                seeds=seeds,
                explicit_limit=self._memory_limit is not None,
                tell=progress or silent,
            )
        self._take(fitted)
        self._from_descriptors = True
        self._described = references(x, len(array))
        return self

    def use_scratch(self, folder: str | os.PathLike[str] | None) -> None:
        """Where temporary files go that outgrow ``memory_limit``; None: the system's place for such files."""
        self._scratch = None if folder is None else Path(folder)

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
                self._describer,
                workspace,
                self._executor,
                seeds=seeds,
                skip_bad=skip_bad,
                explicit_limit=self._memory_limit is not None,
                tell=progress or silent,
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

    def _workspace(self, spool: str | os.PathLike[str] | None = None, resume: bool = False) -> Workspace:
        budget = Budget(machine_memory() // 2 if self._memory_limit is None else self._memory_limit)
        return Workspace(budget, self._scratch) if spool is None else Spool(spool, budget, resume=resume)
