"""`FitContext`: what every step of a fit needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..array_types import IndexArray, UInt8Array
from ..executors import Executor
from ..images.preprocess import Geometry
from ..method.arrangement import Arrangement, choose_seeds
from ..method.association import given_seeds
from ..method.descriptors import Describer
from ..parameters import Parameters
from ..storage.workspace import Workspace
from ..system.progress import Progress, no_progress
from .report import FitReport


@dataclass(frozen=True, eq=False, kw_only=True)
class FitContext:
    """The estimator's settings and the arguments of one call.

    Attributes:
        parameters, geometry, describer, executor: the estimator's.
        workspace: where the data are kept; a `Spool` that holds a fit is continued.
        seeds, skip_bad, progress: as in `InReaCh.fit`.
        explicit_limit: whether the caller has set the memory limit: it is then checked before anything is done.
        report: filled by the fit.
    """

    parameters: Parameters
    geometry: Geometry
    describer: Describer
    executor: Executor
    workspace: Workspace
    seeds: Any = None
    skip_bad: bool = False
    progress: Progress = no_progress
    explicit_limit: bool = False
    report: FitReport = field(default_factory=FitReport)

    def seed_count(self, n_images: int) -> int:
        """How many of so many images will be seed images."""
        if self.parameters.association == "all":
            return 0
        return min(self.parameters.assoc_depth if self.seeds is None else np.size(self.seeds), n_images)

    def seed_images(
        self, names: Sequence[str], used: Sequence[int], arrangement: Arrangement, digests: UInt8Array
    ) -> IndexArray:
        """The places of the seed images, ascending, int64: chosen by the parameters, or the caller's.

        Args:
            names: of all images given. used: the numbers of those that could be read; the arrangement and the
                digests are theirs.
        """
        p = self.parameters
        if self.seeds is None:
            return choose_seeds(arrangement, digests, p.assoc_depth, p.seed_selection, p.random_state)
        return np.unique(arrangement.place[given_seeds(self.seeds, names, used)])
