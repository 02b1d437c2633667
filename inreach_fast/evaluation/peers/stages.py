"""The levels that the peers' papers use: the end of each stage of a residual network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...array_types import FloatArray, UInt8Array
from ...method.descriptors import Describer, all_finite, bad_features
from ...parameters import Parameters
from ..feature_cache import CachedDescriber
from .peer import PeerSettings

if TYPE_CHECKING:
    from ...backbones import Backbone


class Stages:
    """Some stages of a backbone: of all levels on one grid the last. Of a ResNet these are layer1, layer2 and layer3.

    It takes the backbone's place in a `Describer`.

    Args:
        backbone, image_size: the network, and (height, width) of its input.
        numbers: of the stages, from 0. Those that the network lacks are left out; its last one is taken if it has none.
    """

    def __init__(self, backbone: Backbone, image_size: tuple[int, int], numbers: Sequence[int]) -> None:
        shapes = backbone.level_shapes(*image_size)
        ends = [i for i in range(len(shapes)) if i + 1 == len(shapes) or shapes[i + 1][1:] != shapes[i][1:]]
        self._levels = [ends[n] for n in numbers if n < len(ends)] or ends[-1:]
        self._backbone = backbone
        self.shapes = [shapes[i] for i in self._levels]
        self.fingerprint = f"{backbone.fingerprint}|levels={self._levels}"
        self.runtime = backbone.runtime

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """As `Backbone.level_shapes`."""
        shapes = self._backbone.level_shapes(height, width)
        return [shapes[i] for i in self._levels]

    def extract(self, batch: UInt8Array, *, precision: str = "float32") -> list[Any]:
        """As `Backbone.extract`."""
        found = self._backbone.extract(batch, precision=precision)
        return [found[i] for i in self._levels]


class StageFeatures:
    """Features of an image at the end of a backbone's first three stages, unchanged; kept in the cache if there is one.

    Attributes:
        shapes: (C, h, w) of each stage.
    """

    def __init__(self, settings: PeerSettings) -> None:
        self._stages = Stages(settings.backbone(), settings.image_size, (0, 1, 2))
        self._cache = settings.cache
        self.shapes = self._stages.shapes

    def __call__(self, image: UInt8Array, name: str = "image") -> list[FloatArray]:
        """Of each stage float32 (h * w, C), for an image uint8 (H, W, 3).

        Raises:
            NonFiniteError: NaN or infinity in them; ``name`` is the image's in the message.
        """
        batch = image[None]
        if self._cache is None:
            flat = self._flat(batch)[0, 0]
        else:
            which = f"{self._stages.fingerprint}|as they are|runtime={self._stages.runtime}"
            flat = self._cache.described(batch, self._flat, which)[0, 0]
        if not all_finite(flat):
            raise bad_features(name)
        ends = np.cumsum([c * h * w for c, h, w in self.shapes])
        parts = np.split(flat, ends[:-1])
        return [part.reshape(h * w, c) for part, (c, h, w) in zip(parts, self.shapes, strict=True)]

    def _flat(self, batch: UInt8Array) -> FloatArray:
        """All values of each image one after another, patch by patch: float32 (B, 1, n)."""
        levels = [level.permute(0, 2, 3, 1).cpu().numpy() for level in self._stages.extract(batch)]
        return np.concatenate([level.reshape(len(batch), 1, -1) for level in levels], axis=2)


class StageDescriptors:
    """Our descriptors of a backbone's second and third stage, which are PatchCore's (section 3.1).

    Neighbourhoods of 3 x 3 (its p), 1024 values (its d), on the grid of the second stage.

    Attributes:
        grid: (h, w) of the patches. dim: values of a descriptor.
    """

    def __init__(self, settings: PeerSettings) -> None:
        stages: Any = Stages(settings.backbone(), settings.image_size, (1, 2))
        chosen = Parameters.from_preset("channels", image_size=settings.image_size, backend=settings.backend)
        describer = Describer(lambda: stages, lambda: chosen)
        self._describe = describer if settings.cache is None else CachedDescriber(describer, settings.cache)
        _, h, w = stages.shapes[0]
        self.grid, self.dim = (h, w), chosen.dim

    def __call__(self, image: UInt8Array, name: str = "image") -> FloatArray:
        """Descriptors, float32 (h * w, dim), of an image uint8 (H, W, 3); errors as those of `StageFeatures`."""
        rows: FloatArray = self._describe(image[None])[0]
        if not all_finite(rows):
            raise bad_features(name)
        return rows

    def of_all(self, images: Sequence[UInt8Array], progress: Any) -> FloatArray:
        """Those of several images, float32 (N, h * w, dim)."""
        rows = np.empty((len(images), self.grid[0] * self.grid[1], self.dim), dtype=np.float32)
        for number, image in enumerate(images):
            progress("describe", number, len(images))
            rows[number] = self(image, f"images[{number}]")
        progress("describe", len(images), len(images))
        return rows
