"""Vision transformers: from the tokens of a block to a map of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import BackboneError


def is_transformer(module: nn.Module) -> bool:
    """Whether ``module`` is built as timm's vision transformers are: a patch embedding, then blocks of tokens."""
    return hasattr(getattr(module, "patch_embed", None), "patch_size") and hasattr(module, "blocks")


def tokens_as_map(module: nn.Module, tokens: torch.Tensor, size: tuple[int, int], level: str) -> torch.Tensor:
    """The patch tokens of a block as (B, C, h, w); class and register tokens, which come first, are dropped.

    Args:
        module: the transformer. tokens: (B, tokens, C). size: (height, width) of its input. level: for errors.

    Raises:
        BackboneError: there are fewer tokens than patches.
    """
    patch: Any = module.patch_embed.patch_size  # type: ignore[union-attr]
    sides = (patch, patch) if isinstance(patch, int) else tuple(patch)
    h, w = size[0] // int(sides[0]), size[1] // int(sides[1])
    first = tokens.shape[1] - h * w
    if first < 0 or h * w == 0:
        raise BackboneError(
            f"backbone: level {level!r} has {tokens.shape[1]} tokens and the input {h} x {w} patches; give an "
            f"image_size that is a multiple of {sides[0]} x {sides[1]}"
        )
    return tokens[:, first:].transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], h, w)
