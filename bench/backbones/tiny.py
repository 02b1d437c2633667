"""A network of two convolutions with seeded weights, for benches that need one and not its features.

``--backbone bench/backbones/tiny.py:build``: a saved model finds it again by this file's path.
"""

from __future__ import annotations

import torch
from torch import nn

from inreach_fast.backbones import IMAGENET, BackboneDefinition


def build() -> BackboneDefinition:
    """The factory: levels of 8x8 and 4x4 for an input of 32x32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential()
        module.add_module("a", nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU()))
        module.add_module("b", nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU()))
    return BackboneDefinition(module, ("a", "b"), IMAGENET, "tiny")
