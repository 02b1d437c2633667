"""A network of two convolutions, for tests that need one and not its features."""

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


def small_model() -> InReaCh:
    """A model of eight noisy copies of one image, by `Small`."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (40, 40, 3))
    images = [np.clip(base + rng.integers(-9, 9, base.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    backbone = Backbone.from_module(Small(), ["first", "second"])
    return InReaCh("channels", backbone=backbone, image_size=32, dim=16, assoc_depth=3).fit(images)
