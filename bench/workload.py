"""Data of the benches: real images if they are present, else textures; and their descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import ROOT

UInt8 = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]

DATA_VARIABLE = "INREACH_BENCH_DATA"
SCRATCH_VARIABLE = "INREACH_BENCH_SCRATCH"
_SIDE = 256


def data_folder() -> Path:
    """The folder of classes in MVTec AD's layout; it may be absent."""
    return Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data")


def scratch_folder() -> Path:
    """The folder for large or slowly built files (banks, graphs, models); bench/results/tmp by default."""
    return Path(os.environ.get(SCRATCH_VARIABLE) or ROOT / "bench" / "results" / "tmp")


class Workload:
    """Images, a backbone and descriptors, each made on first use.

    Args:
        backbone: a name for `load_backbone`, or "auto": the Caffe ResNet-50 of bench/backbones if its weights are
            present, else the offline EfficientNet-Lite2.
        weights: for a named backbone.
        mvtec_class: a class of `data_folder`; textures if it is absent.
        image_size: side of the network's input in pixels.
    """

    def __init__(
        self, backbone: str = "auto", weights: str = "official", mvtec_class: str = "bottle", image_size: int = 224
    ) -> None:
        self._backbone_name, self._weights, self._class = backbone, weights, mvtec_class
        self.image_size = image_size
        self._rows: list[Rows] = []

    @cached_property
    def backbone(self) -> Any:
        """A `Backbone` with the default preset's levels."""
        from inreach_fast.backbones import load_backbone

        from .backbones.resnet50_caffe import weights_file

        if self._backbone_name != "auto":
            return load_backbone(self._backbone_name, weights=self._weights)
        if weights_file().is_file():
            return load_backbone(f"{ROOT / 'bench' / 'backbones' / 'resnet50_caffe.py'}:build")
        return load_backbone("efficientnet_lite2")

    @property
    def source(self) -> str:
        """A description of the images."""
        return f"MVTec {self._class}" if self._files("train/good") else "scikit-image textures"

    @property
    def features(self) -> str:
        """A description of the descriptors."""
        return f"{self.backbone.name} of {self.source}"

    def training_images(self, count: int) -> list[UInt8]:
        """``count`` unlabelled images, uint8 (H, W, 3) RGB; repeated if there are fewer."""
        return self._images("train/good", count, seed=0)

    def test_images(self, count: int) -> list[UInt8]:
        """Images that are not training images, good and defective."""
        return self._images("test", count, seed=1)

    def descriptors(self, count: int) -> Rows:
        """(count, P, 1024) float32 of the first training images."""
        self._rows += [self.describe(image) for image in self.training_images(count)[len(self._rows) :]]
        return np.stack(self._rows[:count])

    def drop_descriptors(self) -> None:
        """Free the memory of the descriptors."""
        self._rows = []

    def describe(self, image: UInt8) -> Rows:
        """(P, 1024) float32 of one image."""
        return describe(image, self.backbone, self.image_size)

    def _files(self, folder: str) -> list[Path]:
        return sorted((data_folder() / self._class / folder).rglob("*.png"))

    def _images(self, folder: str, count: int, seed: int) -> list[UInt8]:
        from inreach_fast.images.reading import read_image

        files = self._files(folder)
        if not files:
            return list(texture_images(count, seed))
        if folder == "test":
            files = [files[i] for i in np.random.default_rng(seed).permutation(len(files))]
        return [read_image(files[i % len(files)]) for i in range(count)]


def describe(image: UInt8, backbone: Any, image_size: int) -> Rows:
    """(P, 1024) float32 of one image, by a backbone on any device."""
    from inreach_fast.method.descriptors import Describer
    from inreach_fast.parameters import Parameters

    parameters = Parameters(dim=1024, neighbourhood=3)
    return Describer(lambda: backbone, lambda: parameters)(resize(image, image_size)[None])[0]


def texture_images(count: int, seed: int) -> Iterator[UInt8]:
    """Random crops of scikit-image's brick texture, uint8 (256, 256, 3)."""
    from skimage import data

    picture = np.asarray(data.brick())
    random = np.random.default_rng(seed)
    for _ in range(count):
        top, left = random.integers(0, [picture.shape[0] - _SIDE, picture.shape[1] - _SIDE])
        crop = picture[top : top + _SIDE, left : left + _SIDE]
        yield np.ascontiguousarray(np.repeat(crop[..., None], 3, axis=2), dtype=np.uint8)


def resize(image: UInt8, side: int) -> UInt8:
    """The network's input, uint8 (side, side, 3), by Pillow's bilinear filter."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def random_rows(count: int, dim: int, seed: int) -> Rows:
    """Isotropic normal rows, which no search can prune."""
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
