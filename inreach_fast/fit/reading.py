"""The training images: read as the network's inputs, tested for consistent positions, and aligned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import ImageError
from ..images.alignment import Alignment, align_images, rotate
from ..images.source import ImageSource
from ..method.descriptors import DescriptorSpace, position_channels
from ..method.projection import Projection
from ..parameters import Parameters
from ..progress import Progress
from ..storage.inputs import InputStore
from .context import FitContext


@dataclass(frozen=True, eq=False, kw_only=True)
class FitData:
    """What a fit knows of its images besides their patches.

    Attributes:
        names: one for each image. digests: uint8 (N, 32), sha256 of each network input (or of its descriptors).
        positions: whether position channels are used.
        alignment: what the position test and the rotation search found; None for descriptors.
        inputs: the network inputs, not rotated; None for descriptors.
        projection: to principal components, once it is known.
        kept_images, kept_rest: see `GrowthState`; empty for images.
    """

    names: list[str]
    digests: UInt8Array
    positions: bool = False
    alignment: Alignment | None = None
    inputs: InputStore | UInt8Array | None = None
    projection: Projection | None = None
    kept_images: IndexArray = field(default_factory=lambda: np.empty(0, np.int64))
    kept_rest: FloatArray | None = None

    def pixels(self, number: int) -> UInt8Array:
        """The network input of an image, rotated if the images are aligned."""
        assert self.inputs is not None
        assert self.alignment is not None
        image = self.inputs[number]
        return rotate(image, int(self.alignment.angles[number])) if self.alignment.kept else image

    def space(self, grid: tuple[int, int], p: Parameters) -> DescriptorSpace:
        """What becomes of the describer's rows."""
        channels = position_channels(grid, p.position_weight) if self.positions else None
        return DescriptorSpace(self.projection, channels)

    def finished(self) -> FitData:
        """The same with its inputs in one array: the store is no longer used."""
        return replace(self, inputs=self.inputs.finish()) if isinstance(self.inputs, InputStore) else self


def read_images(context: FitContext, source: ImageSource, inputs: InputStore) -> tuple[list[int], list[str]]:
    """Appends the images' network inputs.

    Returns:
        The numbers of the images that could be read, and the names of those that could not be (``skip_bad``).

    Raises:
        ImageError: an image cannot be read. SpoolWriteError.
    """
    used: list[int] = []
    skipped: list[str] = []
    with context.report.stage("read"):
        for i in range(len(source)):
            try:
                image = context.geometry.apply(source.load(i))
            except ImageError:
                if not context.skip_bad:
                    raise
                skipped.append(source.names[i])
            else:
                inputs.append(image)
                used.append(i)
            context.progress("read", i + 1, len(source))
    return used, skipped


def decide_positions(
    inputs: Collection[UInt8Array], p: Parameters, progress: Progress, known: IndexArray | None = None
) -> tuple[Alignment, bool]:
    """Position test and alignment (supplement D): what was found, and whether positions are used.

    ``known`` are angles that an earlier search found, as in `align_images`.
    """
    search = p.align == "auto" and p.position != "never"
    alignment = align_images(inputs, threshold=p.transpose_threshold, search=search, known=known, progress=progress)
    return alignment, p.position == "always" or (p.position == "auto" and alignment.positions_consistent)
