"""A network whose convolutions multiply 8-bit integers, with ranges that were found on images (no labels).

Each convolution's input is rounded to one of 256 values between the least and the greatest that it had on the images
(zero among them), each filter's weights to one of 255 between plus and minus their greatest. Sums, biases and
activations remain float32. What this module makes computes that in float32, which takes longer than without the
rounding: it is the reference of a runtime that has 8-bit products (OpenVINO), and what such a runtime is given.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import nn

from ..errors import BackboneError, NonFiniteError, ParameterError
from .folding import folded
from .fused_convolution import FusedConvolution

Ranges = dict[str, tuple[float, float]]
_LEVELS, _GREATEST_WEIGHT = 255, 127
_LEAST_STEP: Final = 1e-30  # of what is always zero


class QuantizedConvolution(nn.Module):
    """A `FusedConvolution` by 8-bit values; ``low``, ``high``: the range of its input."""

    weight: torch.Tensor
    weight_step: torch.Tensor
    weight_zero: torch.Tensor

    def __init__(self, fused: FusedConvolution, low: float, high: float) -> None:
        super().__init__()
        self.fused = copy.copy(fused)
        self.fused._laid_out, self.fused.plain = {}, True
        self.step = max((high - low) / _LEVELS, _LEAST_STEP)
        self.zero = round(-low / self.step)
        greatest = fused.weight.abs().amax(dim=(1, 2, 3))
        self.register_buffer("weight_step", (greatest / _GREATEST_WEIGHT).clamp_min(_LEAST_STEP))
        self.register_buffer("weight_zero", torch.zeros(len(greatest), dtype=torch.int32))

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        rounded = torch.fake_quantize_per_tensor_affine(x, self.step, self.zero, 0, _LEVELS)
        weight = torch.fake_quantize_per_channel_affine(
            self.fused.weight, self.weight_step, self.weight_zero, 0, -_GREATEST_WEIGHT, _GREATEST_WEIGHT
        )
        return self.fused.by_torch(rounded, other, weight)


def is_quantized(network: Any) -> bool:
    """Whether a network was made by `quantized`."""
    return isinstance(network, nn.Module) and any(isinstance(m, QuantizedConvolution) for m in network.modules())


def folded_to_quantize(network: nn.Module, name: str) -> nn.Module:
    """The network with folded BatchNorms. Raises ParameterError if it has none, or already multiplies integers."""
    if is_quantized(network):
        raise ParameterError(f"quantization: {name} multiplies 8-bit integers already; give the network without it")
    found = folded(network, plain=True)
    if found is None:
        raise ParameterError(
            f"quantization: {name} has no convolutions with BatchNorm, which int8 is for; leave quantization out"
        )
    return found


def input_ranges(network: nn.Module, inputs: Iterable[torch.Tensor]) -> Ranges:
    """The range of each fused convolution's input, zero included, by the convolution's name.

    Args:
        network: from `folded_to_quantize`. inputs: normalised (1, 3, H, W).

    Raises:
        NonFiniteError: an input of a convolution is not finite.
    """
    ranges: Ranges = {}

    def note(name: str, x: torch.Tensor) -> None:
        if not torch.isfinite(x).all():
            raise NonFiniteError(f"quantization: the input of {name} holds NaN or infinity; check the weights")
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = min(low, float(x.min())), max(high, float(x.max()))

    hooks = [
        module.register_forward_pre_hook(lambda _module, inputs, name=name: note(name, inputs[0]))
        for name, module in network.named_modules()
        if isinstance(module, FusedConvolution)
    ]
    try:
        with torch.inference_mode():
            for x in inputs:
                network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def quantized(network: nn.Module, ranges: Mapping[str, tuple[float, float]]) -> nn.Module:
    """A network from `folded_to_quantize` with 8-bit products; BackboneError if the ranges are not its own."""
    convolutions = {name: m for name, m in network.named_modules() if isinstance(m, FusedConvolution)}
    if convolutions.keys() != ranges.keys():
        raise BackboneError("backbone: its int8 ranges are another network's; fit the model again")
    for name, module in convolutions.items():
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, QuantizedConvolution(module, *ranges[name]))
    return network.eval().requires_grad_(False)


def ranges_from_json(value: Any) -> Ranges:
    """Ranges as they come out of a saved model; BackboneError if they cannot be some."""
    try:
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BackboneError(f"backbone: its int8 ranges are damaged ({error!r}); fit the model again") from error
    if not all(-1e38 < low <= 0.0 <= high < 1e38 for low, high in ranges.values()):
        raise BackboneError("backbone: its int8 ranges are not finite; fit the model again")
    return ranges
