"""A convolution with what follows it: BatchNorm folded into its weights, a sum and a ReLU done as it is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..kernels.convolution import Convolution3x3, winograd_tile
from ..system.threads import torch_team
from .efficientnet_lite import SamePaddingConv2d, same_padding

# None in a torch that was built without oneDNN.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_REORDER: Any = getattr(torch.ops.mkldnn, "_reorder_convolution_weight", None)
# name of an activation -> oneDNN's name and numbers
_ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    "": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}


def _autocast() -> bool:
    """Whether torch computes in half precision on the CPU."""
    try:
        return bool(torch.is_autocast_enabled("cpu"))
    except TypeError:  # before torch 2.4
        return bool(torch.is_autocast_cpu_enabled())


def is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether ``norm`` is a BatchNorm with fixed statistics, and ``conv`` a convolution that it folds into."""
    return (
        type(conv) in (nn.Conv2d, SamePaddingConv2d)
        and type(norm) is nn.BatchNorm2d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and norm.running_mean is not None
        and norm.running_var is not None
        and conv.weight.dtype == norm.running_mean.dtype == torch.float32
    )


def folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, float32, of the convolution that does what ``norm(conv(x))`` does.

    Computed in float64 on the CPU, and rounded once: the same bits on every machine.
    """

    def exact(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values.detach().cpu().to(torch.float64)

    weight, bias, mean, variance = (
        exact(conv.weight),
        exact(conv.bias),
        exact(norm.running_mean),
        exact(norm.running_var),
    )
    assert weight is not None
    assert mean is not None
    assert variance is not None
    scale = 1.0 / torch.sqrt(variance + norm.eps)
    gain, shift = exact(norm.weight), exact(norm.bias)
    if gain is not None:
        scale = scale * gain
    offset = -mean if bias is None else bias - mean
    offset = offset * scale
    if shift is not None:
        offset = offset + shift
    return (weight * scale[:, None, None, None]).to(torch.float32), offset.to(torch.float32)


def winograd_share(network: nn.Module, x: torch.Tensor) -> float:
    """Share of a network's multiplications in convolutions that Winograd's algorithm does, for the input ``x``."""
    counts = [0.0, 0.0]  # direct, by Winograd's algorithm

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        by_tiles = isinstance(module, FusedConvolution) and bool(module.tile(*inputs))
        counts[by_tiles] += float(module.weight[0].numel()) * output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, (nn.Conv2d, FusedConvolution))]
    try:
        with torch.inference_mode():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return counts[1] / sum(counts) if any(counts) else 0.0


class FusedConvolution(nn.Module):
    """``activation(norm(conv(x)) + other)``, with or without ``other``.

    On a CPU in float32 it is done in one pass: 3x3 convolutions with stride 1 by Winograd's algorithm where that is
    faster (`kernels.convolution`), others by oneDNN, with weights in the layout that it wants for the number of
    threads. Anywhere else, and where ``plain`` is set (for an export), torch's own operations do it.

    Attributes:
        activation: "", "relu" or "relu6". plain: see above. winograd: whether Winograd's algorithm may be used.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        weight, bias = (values.to(conv.weight.device) for values in folded_weights(conv, norm))
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.activation, self.plain, self.winograd = "", False, True
        # Number of threads -> the weights in oneDNN's layout. With the layout of another number, oneDNN would lay them
        # out again in each call, which takes as long as the convolutions.
        self._laid_out: dict[int, torch.Tensor] = {}
        self._stride, self._dilation, self._groups = list(conv.stride), list(conv.dilation), conv.groups
        self._kernel, self._same = conv.kernel_size, isinstance(conv, SamePaddingConv2d)
        self._padding = [int(n) for n in conv.padding]
        # Side of a tile -> the convolution by such tiles.
        self._by_tile: dict[int, Convolution3x3] = {}

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        padding = self._padding
        if self._same:
            x, padding = same_padding(x, self._kernel, self._stride)
        if _ONEDNN is None or self.plain or x.device.type != "cpu" or x.dtype != torch.float32 or _autocast():
            return self._by_torch(x, other, padding, self.weight)
        tile = self._tile(x, other, padding) if self.winograd else 0
        if tile:
            return self._by_winograd(x, other, padding, tile)
        threads = torch.get_num_threads()
        weight = self._laid_out.get(threads)
        if weight is None:
            # Another thread may do the same at the same time; both get the same.
            sizes = padding, self._stride, self._dilation, self._groups, list(x.shape)
            weight = self.weight if _REORDER is None else _REORDER(self.weight, *sizes)
            self._laid_out[threads] = weight
        name, numbers = _ACTIVATIONS[self.activation]
        sizes_now = weight, self.bias, padding, self._stride, self._dilation, self._groups
        y: torch.Tensor
        if other is None:
            y = _ONEDNN(x, *sizes_now, name, numbers, "")
        else:
            # After a sum oneDNN has no activation but ReLU.
            y = _ONEDNN.binary(x, other, *sizes_now, "add", 1.0, "relu" if name == "relu" else None, [], None)
            if self.activation == "relu6":
                y = functional.relu6(y, inplace=True)
        return y

    def tile(self, x: torch.Tensor, other: torch.Tensor | None = None) -> int:
        """Side of the tiles with which `forward` computes by Winograd's algorithm; 0 where it does not."""
        padding = self._padding
        if self._same:
            x, padding = same_padding(x, self._kernel, self._stride)
        return self._tile(x, other, padding) if self.winograd and not self.plain else 0

    def _tile(self, x: torch.Tensor, other: torch.Tensor | None, padding: list[int]) -> int:
        """Side of the tiles by which to compute; 0 where Winograd's algorithm cannot or should not."""
        sizes = self._kernel, self._stride, self._dilation, self._groups
        if sizes != ((3, 3), [1, 1], [1, 1], 1) or x.dim() != 4 or x.requires_grad:
            return 0
        outputs, inputs = self.weight.shape[:2]
        height, width = (size + 2 * pad - 2 for size, pad in zip(x.shape[2:], padding, strict=True))
        if min(height, width) < 1 or x.shape[1] != inputs:
            return 0
        if other is not None and other.shape != (len(x), outputs, height, width):
            return 0
        return winograd_tile(height, width, inputs, outputs)

    def _by_winograd(self, x: torch.Tensor, other: torch.Tensor | None, padding: list[int], tile: int) -> torch.Tensor:
        convolution = self._by_tile.get(tile)
        if convolution is None:
            weight = self.weight.contiguous(memory_format=torch.contiguous_format)
            convolution = self._by_tile[tile] = Convolution3x3(weight.numpy(), self.bias.numpy(), tile=tile)
        y = convolution(
            x.permute(0, 2, 3, 1).numpy(),
            padding=padding,
            other=None if other is None else other.permute(0, 2, 3, 1).numpy(),
            activation=self.activation,
            threads=torch.get_num_threads(),
            team=torch_team(),
        )
        return torch.from_numpy(y).permute(0, 3, 1, 2)

    def by_torch(self, x: torch.Tensor, other: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """The same by torch's own operations, with another ``weight``."""
        padding = self._padding
        if self._same:
            x, padding = same_padding(x, self._kernel, self._stride)
        return self._by_torch(x, other, padding, weight)

    def _by_torch(
        self, x: torch.Tensor, other: torch.Tensor | None, padding: list[int], weight: torch.Tensor
    ) -> torch.Tensor:
        y = functional.conv2d(x, weight, self.bias, self._stride, padding, self._dilation, self._groups)
        if other is not None:
            y = y + other
        if self.activation == "relu":
            return functional.relu(y, inplace=True)
        return functional.relu6(y, inplace=True) if self.activation == "relu6" else y

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_laid_out": {}, "_by_tile": {}}  # layouts are this process's own
