"""Blocks of vision transformers as levels: class and register tokens are dropped, tokens become a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone
from inreach_fast.errors import BackboneError


class Block(nn.Module):
    def forward(self, x: Any) -> Any:
        return x + 1


class PatchEmbedding(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.patch_size = (side, side)

    def forward(self, x: Any) -> Any:
        return nn.functional.avg_pool2d(x, self.patch_size).flatten(2).transpose(1, 2)


class Transformer(nn.Module):
    """Tokens are the mean colours of patches, after ``prefix`` tokens of their own."""

    def __init__(self, side: int = 8, prefix: int = 5) -> None:
        super().__init__()
        self.patch_embed, self.prefix = PatchEmbedding(side), prefix
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, x: Any) -> Any:
        tokens = self.patch_embed(x)
        first = torch.full((len(x), self.prefix, tokens.shape[2]), -99.0)
        return self.blocks(torch.cat([first, tokens], dim=1))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_are_the_patches_at_their_places(prefix: int) -> None:
    backbone = Backbone.from_module(Transformer(prefix=prefix), ["blocks.0", "blocks.1"])
    image = np.random.default_rng(0).integers(0, 255, (1, 16, 40, 3)).astype(np.uint8)
    first, second = backbone.extract(image)
    plain = torch.from_numpy(image[0] / 255).float().permute(2, 0, 1)[None]
    mean, std = (
        torch.tensor(v)[None, :, None, None] for v in (backbone.normalisation.mean, backbone.normalisation.std)
    )
    wanted = nn.functional.avg_pool2d((plain - mean) / std, 8)
    torch.testing.assert_close(first, wanted + 1, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second, wanted + 2, atol=1e-5, rtol=1e-5)


def test_a_model_of_a_transformer() -> None:
    images = list(np.random.default_rng(1).integers(0, 255, (6, 48, 32, 3)).astype(np.uint8))
    backbone = Backbone.from_module(Transformer(), ["blocks.0", "blocks.1"])
    model = InReaCh(backbone=backbone, image_size=(48, 32), dim=6).fit(images)
    assert model.grid_ == (6, 4)
    assert model.predict(images[0]).anomaly_map.shape == (48, 32)


def test_too_few_tokens_are_refused() -> None:
    module = Transformer(prefix=0)
    module.patch_embed.forward = lambda x: torch.zeros(len(x), 3, 4)  # type: ignore[method-assign]
    backbone = Backbone.from_module(module, ["blocks.0"])
    with pytest.raises(BackboneError, match=r"level 'blocks.0' has 3 tokens and the input 2 x 2 patches"):
        backbone.extract(np.zeros((1, 16, 16, 3), np.uint8))
