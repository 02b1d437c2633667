"""Small models to fit in a moment: a network of two layers, and pictures of one pattern under noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone

Pixels = NDArray[np.uint8]


def tiny_backbone(seed: int = 0) -> Backbone:
    """Two levels of 8x8 and 4x4 for an input of 32x32."""
    torch.manual_seed(seed)
    first = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.ReLU())
    second = torch.nn.Sequential(torch.nn.Conv2d(16, 24, 3, stride=2, padding=1), torch.nn.ReLU())
    module = torch.nn.Sequential()
    module.add_module("a", first)
    module.add_module("b", second)
    return Backbone.from_module(module, levels=["a", "b"], name="tiny")


def pictures(count: int = 10, size: tuple[int, int] = (40, 36), seed: int = 0) -> list[Pixels]:
    """One pattern, under noise of another strength in each picture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    pattern = 128 + 50 * np.sin(x / 5) + 50 * np.cos(y / 7) + y
    images = []
    for _ in range(count):
        noise = random.normal(0, random.uniform(2, 20), (*size, 3))
        images.append(np.clip(pattern[:, :, None] + noise, 0, 255).astype(np.uint8))
    return images


def estimator(**changes: Any) -> InReaCh:
    """A small estimator, not fitted."""
    parameters: dict[str, Any] = {
        "preset": "channels",
        "backbone": tiny_backbone(),
        "image_size": 32,
        "dim": 24,
        "assoc_depth": 2,
        "smoothing_sigma": 1.0,
        **changes,
    }
    return InReaCh(**parameters)


def saved(model: InReaCh, folder: Path, **options: Any) -> bytes:
    """The bytes of the model's file."""
    model.save(folder / "saved", **options)
    return (folder / "saved").read_bytes()
