"""`Peer`: what a method has to offer to be evaluated beside InReaCh, on the same images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy.ndimage import gaussian_filter

from ...array_types import FloatArray, UInt8Array
from ...errors import DataError, MixedSizesError, NotFittedError, ParameterError
from ...images.preprocess import Geometry
from ...system.progress import Progress, no_progress
from ..feature_cache import FeatureCache

if TYPE_CHECKING:
    from ...backbones import Backbone

_T = TypeVar("_T")


@dataclass(frozen=True)
class PeerSettings:
    """What every peer is made from; each takes what it needs.

    Attributes:
        image_size: (height, width) of the images that it fits and scores, and of its maps.
        backbone: returns the network, which is loaded at the first call; for methods with descriptors.
        seed: of everything that the method draws. Equal seeds and images give equal scores on one machine.
        threads: of torch while a network is trained; None: as they are.
        training_steps: updates of the weights where a network is trained, at least 1; None: as many as in the paper.
        folder: where a peer may keep what a later run takes up again (checkpoints). It may not exist yet, and other
            peers, images and settings use the same one: a file's name has to depend on all that it was made of. None:
            nothing is kept.
        cache: of descriptors, or None.
        backend: of the kernels, "auto" for the fastest.
    """

    image_size: tuple[int, int]
    backbone: Callable[[], Backbone]
    seed: int = 0
    threads: int | None = None
    training_steps: int | None = None
    folder: Path | None = None
    cache: FeatureCache | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        steps = self.training_steps
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise ParameterError(f"training_steps: expected a whole number of at least 1, got {steps!r}")


class Peer(ABC):
    """A method of anomaly detection, as it was published; made by ``Peer(settings)``, fitted once.

    Parameters of the paper are class attributes or keyword arguments of the constructor, with the paper's values.
    """

    def __init__(self, settings: PeerSettings) -> None:
        self.settings = settings

    @abstractmethod
    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        """Learns from images, uint8 (H, W, 3) RGB of ``image_size`` each, at least one; `check_images` checks them.

        ``progress`` is called as progress(stage, done, total).
        """

    @abstractmethod
    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        """The score of an image, uint8 (H, W, 3), and its map, float32 (H, W): greater is more anomalous, both finite.

        The method's own upsampling and smoothing are in the map, and its own rule for images in the score.

        Raises:
            NotFittedError: before `fit`. DataError, MixedSizesError: as `check_image`.
        """

    def parameters(self) -> dict[str, Any]:
        """The parameters in use by name, JSON types, for the result's record."""
        return {}


def fitted(state: _T | None, peer: Peer) -> _T:
    """What `fit` made of a peer; NotFittedError if that is None."""
    if state is None:
        raise NotFittedError(f"{type(peer).__name__}: is not fitted; call fit first")
    return state


def check_images(images: Sequence[UInt8Array], settings: PeerSettings) -> None:
    """Raises DataError if there are no images, or one is not uint8 (H, W, 3); MixedSizesError if its size is another.

    The message names the first wrong image by its number.
    """
    if not len(images):
        raise DataError("images: there is none; give at least one")
    for number, image in enumerate(images):
        check_image(image, settings, f"images[{number}]")


def check_image(image: UInt8Array, settings: PeerSettings, name: str = "image") -> None:
    """`check_images` for one image, which ``name`` names."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"{name}: expected uint8 (H, W, 3), got {got}; convert it to 8-bit RGB")
    if image.shape[:2] != settings.image_size:
        raise MixedSizesError(
            f"{name}: has {image.shape[0]} x {image.shape[1]} pixels, and not image_size "
            f"{settings.image_size[0]} x {settings.image_size[1]}; resize it"
        )


def upsampled(scores: FloatArray, size: tuple[int, int], sigma: float = 4.0) -> FloatArray:
    """Patch scores (h, w) as a map, float32 (H, W): bilinear between the patches' centres, then a Gaussian filter.

    PatchCore, PaDiM and SPADE all smooth with a sigma of 4 pixels.
    """
    bilinear = Geometry(resize=(scores.shape[0], scores.shape[1])).map_to_original(scores, size)
    return np.asarray(gaussian_filter(bilinear, sigma), dtype=np.float32)
