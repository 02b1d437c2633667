"""The networks of PatchSVDD: an encoder of patches of 32 x 32, one of 64 x 64 on top of it, and the classifiers.

Layers are those of the paper (section 3.3) and, where it is silent, of the authors' program: eight 3 x 3 convolutions,
the first with stride 2 and none padded, leaky ReLUs of slope 0.1, and tanh at the end.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

LARGE: Final = 64
SMALL: Final = 32
STEP: Final = 2
"""Pixels from one patch to the next in `SmallEncoder`'s output."""
_SLOPE: Final = 0.1
_HIDDEN: Final = 128
_WIDTHS: Final = (1, 2, 4, 4, 2, 1, 1)  # of all convolutions but the last, in units of the first one's


class SmallEncoder(nn.Module):
    """Images (B, 3, H, W) to embeddings (B, D, h, w) of all patches of 32 x 32 that begin at even pixels."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        sizes = [3, *(width * factor for factor in _WIDTHS), dim]
        self.layers = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=STEP if i == 0 else 1) for i in range(len(sizes) - 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *first, last = self.layers
        for layer in first:
            x = functional.leaky_relu(layer(x), _SLOPE)
        return torch.tanh(last(x))


class Encoder(nn.Module):
    """Both encoders; the larger one sees four embeddings of the smaller one."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.small = SmallEncoder(dim, width)
        self.join = nn.Conv2d(dim, _HIDDEN, 2)
        self.last = nn.Conv2d(_HIDDEN, dim, 1)

    def small_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) of patches (B, 3, 32, 32)."""
        embeddings: torch.Tensor = self.small(patches)[:, :, 0, 0]
        return embeddings

    def large_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) of patches (B, 3, 64, 64)."""
        quarters = torch.cat([patches[:, :, y : y + SMALL, x : x + SMALL] for y in (0, SMALL) for x in (0, SMALL)])
        cells = self.small_patches(quarters).view(4, len(patches), -1).permute(1, 2, 0)
        return self._finish(self.join(cells.reshape(len(patches), -1, 2, 2)))[:, :, 0, 0]

    def grids(self, image: torch.Tensor, small_stride: int, large_stride: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of an image's patches (3, H, W) at both sizes, (h, w, D) each; strides in pixels, even.

        Values are those of `small_patches` and `large_patches` within rounding, at a small part of their work: patches
        that overlap share their convolutions.
        """
        height, width = image.shape[1:]
        # A patch's last row and column are read by no convolution, so that one more patch would fit into odd sizes.
        every = self.small(image[None, :, : height // STEP * STEP, : width // STEP * STEP])
        step = small_stride // STEP
        small = every[0, :, ::step, ::step]
        joined = functional.conv2d(
            every, self.join.weight, self.join.bias, stride=large_stride // STEP, dilation=SMALL // STEP
        )
        return small.permute(1, 2, 0), self._finish(joined)[0].permute(1, 2, 0)

    def _finish(self, joined: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.last(functional.leaky_relu(joined, _SLOPE)))


class PositionClassifier(nn.Module):
    """Which neighbour of the first patch the second one is, from the difference of their embeddings (B, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, _HIDDEN), nn.LeakyReLU(_SLOPE),
            nn.Linear(_HIDDEN, _HIDDEN), nn.LeakyReLU(_SLOPE),
            nn.Linear(_HIDDEN, 8),
        )  # fmt: skip

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(first - second)
        return logits


class PatchNetworks(nn.Module):
    """All that PatchSVDD trains: the encoder and a classifier of positions for each size of patches."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.encoder = Encoder(dim, width)
        self.positions = nn.ModuleDict({str(size): PositionClassifier(dim) for size in (SMALL, LARGE)})
