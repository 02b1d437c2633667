"""Networks of two convolutions, for tests that need one and not its features; and BatchNorms that do something."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import torch

        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).relu())


class Normed(nn.Module):
    """Two convolutions with BatchNorms; ``first`` and ``second`` are its levels, for an input of 32x32 8x8 and 4x4."""

    def __init__(self) -> None:
        super().__init__()
        import torch

        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        fill_norms(self)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))


def normed_backbone() -> Backbone:
    return Backbone.from_module(Normed(), ["first", "second"], name="normed")


def fill_norms(module: Any, seed: int = 0) -> Any:
    """Gives every BatchNorm of the module statistics and weights of its own; returns the module."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, least in (
                (norm.weight, 0.5),
                (norm.bias, -0.5),
                (norm.running_mean, -0.5),
                (norm.running_var, 0.5),
            ):
                values.data = least + torch.rand(len(values), generator=generator)
    return module


def small_images() -> list[np.ndarray]:
    """Eight noisy copies of one image."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (40, 40, 3))
    return [np.clip(base + rng.integers(-9, 9, base.shape), 0, 255).astype(np.uint8) for _ in range(8)]


def small_model(backbone: Backbone | None = None, **parameters: Any) -> InReaCh:
    """A model of `small_images`, by `Small`."""
    backbone = backbone or Backbone.from_module(Small(), ["first", "second"])
    return unfitted(backbone, **parameters).fit(small_images())


def unfitted(backbone: Backbone, **parameters: Any) -> InReaCh:
    """The estimator of `small_model`."""
    return InReaCh("channels", backbone=backbone, image_size=32, dim=16, assoc_depth=3, **parameters)
