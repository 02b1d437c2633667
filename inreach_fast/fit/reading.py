"""The training images: read as the network's inputs, tested for consistent positions, and aligned."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import ImageError
from ..images.alignment import Alignment, align_images, rotate
from ..images.preprocess import geometry_of
from ..images.source import ImageSource
from ..method.arrangement import Arrangement
from ..method.descriptors import DescriptorSpace
from ..method.near_copies import near_copies
from ..method.projection import Projection
from ..parameters import Parameters
from ..storage.inputs import InputStore
from ..storage.thumbnails import Thumbnails
from ..system.progress import Progress
from .context import FitContext


@dataclass(frozen=True, eq=False, kw_only=True)
class FitData:
    """What a fit knows of its images besides their patches.

    Attributes:
        names: one for each image. digests: uint8 (N, 32), sha256 of each network input (or of its descriptors).
        arrangement: the images' places; everything else is numbered by them, unless it says otherwise.
        positions: whether position channels are used.
        alignment: what the position test and the rotation search found; None for descriptors.
        projection: to principal components, once it is known.
        inputs: the network inputs by number of the image, not rotated; None for descriptors.
        sizes: int64 (N, 2), (height, width) of each image as it was given; None for descriptors.
        kept_images, kept_rest: see `GrowthState`; empty for images.
    """

    names: list[str]
    digests: UInt8Array
    arrangement: Arrangement
    positions: bool = False
    alignment: Alignment | None = None
    inputs: InputStore | UInt8Array | None = None
    sizes: IndexArray | None = None
    projection: Projection | None = None
    kept_images: IndexArray = field(default_factory=lambda: np.empty(0, np.int64))
    kept_rest: FloatArray | None = None

    @property
    def contents(self) -> UInt8Array:
        """The digest at each place, (M, 32)."""
        return self.digests[self.arrangement.first]

    def name(self, place: int) -> str:
        """The name of the first image at a place."""
        return self.names[int(self.arrangement.first[place])]

    def pixels(self, place: int) -> UInt8Array:
        """The network input at a place, rotated if the images are aligned."""
        assert self.inputs is not None
        assert self.alignment is not None
        image = self.inputs[int(self.arrangement.first[place])]
        return rotate(image, int(self.alignment.angles[place])) if self.alignment.kept else image

    def near_copies(self, places: IndexArray) -> list[tuple[str, str]]:
        """(name, name of the near copy) of those of the images at the places that have one; none for descriptors."""
        if self.inputs is None:
            return []
        images = PlacedInputs(self.inputs, self.arrangement)
        found = near_copies(images, (images[place] for place in places.tolist()), places)
        return [(self.name(a), self.name(b)) for a, b in zip(places.tolist(), found.tolist(), strict=True) if b >= 0]

    def space(self, grid: tuple[int, int], p: Parameters) -> DescriptorSpace:
        """What becomes of the describer's rows."""
        return DescriptorSpace.of(p, grid, self.projection, positions=self.positions)

    def finished(self) -> FitData:
        """The same with its inputs in one array: the store is no longer used."""
        return replace(self, inputs=self.inputs.finish()) if isinstance(self.inputs, InputStore) else self

    def thumbnails(self, p: Parameters) -> Thumbnails | None:
        """Small pictures of the images, where the parameters ask for them; call `finished` before."""
        if not p.thumbnails or self.sizes is None or not isinstance(self.inputs, np.ndarray):
            return None
        return Thumbnails.of_inputs(self.inputs, self.sizes, geometry_of(p))


@dataclass(frozen=True, eq=False)
class PlacedInputs(Collection[UInt8Array]):
    """Network inputs, (H, W, 3), in the order of an arrangement, each content once."""

    inputs: InputStore | UInt8Array
    arrangement: Arrangement

    def __len__(self) -> int:
        return len(self.arrangement)

    def __getitem__(self, place: int) -> UInt8Array:
        return self.inputs[int(self.arrangement.first[place])]

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self[place] for place in range(len(self)))

    def __contains__(self, image: object) -> bool:
        return any(image is mine for mine in self)


def read_images(context: FitContext, source: ImageSource, inputs: InputStore) -> tuple[list[int], list[str]]:
    """Appends the images' network inputs.

    Returns:
        The numbers of the images that could be read, and the names of those that could not be (``skip_bad``).

    Raises:
        ImageError: an image cannot be read. RegionError: the region of interest does not fit it. SpoolWriteError.
    """
    used: list[int] = []
    skipped: list[str] = []
    with context.report.stage("read"):
        for i in range(len(source)):
            try:
                loaded = source.load(i)
                image = context.geometry.apply(loaded, source.names[i])
            except ImageError:
                if not context.skip_bad:
                    raise
                skipped.append(source.names[i])
            else:
                height, width = loaded.shape[:2] if source.sizes is None else source.sizes[i].tolist()
                inputs.append(image, (height, width))
                used.append(i)
            context.progress("read", i + 1, len(source))
    return used, skipped


def decide_positions(
    inputs: Collection[UInt8Array],
    p: Parameters,
    progress: Progress,
    known: IndexArray | None = None,
    reference: UInt8Array | None = None,
) -> tuple[Alignment, bool]:
    """Position test and alignment (supplement D): what was found, and whether positions are used.

    ``known`` (angles that an earlier search found) and ``reference`` are those of `align_images`.
    """
    search = p.align == "auto" and p.position != "never"
    alignment = align_images(
        inputs, threshold=p.transpose_threshold, search=search, reference=reference, known=known, progress=progress
    )
    return alignment, p.position == "always" or (p.position == "auto" and alignment.positions_consistent)
