"""Runtimes: what computes a network. Each name stands for one arithmetic, and a model records that of its fit.

name             what computes
"torch"          torch, with BatchNorms folded into convolutions and activations fused where it can (`folding`)
"torch-unfolded" torch, layer by layer: what models were fitted with before they recorded a runtime
"openvino"       OpenVINO on the CPU, from the folded network
"onnxruntime"    ONNX Runtime on the CPU, from the folded network

A change of the arithmetic behind a name that was released, such as another kind of folding, needs a new name.
"""

from __future__ import annotations

from importlib import metadata, util
from typing import Any, Final

import torch
from torch import nn

from ..errors import ParameterError, RuntimeUnavailableError
from ..parameters import UNFOLDED
from .exported_network import ExportedNetwork, largest_difference
from .folding import folded
from .hooked_network import HookedNetwork
from .onnx_network import OnnxNetwork
from .openvino_network import OpenVinoNetwork
from .quantization import is_quantized

TORCH: Final = "torch"
_EXPORTED: Final[dict[str, type[ExportedNetwork]]] = {"openvino": OpenVinoNetwork, "onnxruntime": OnnxNetwork}
RUNTIMES: Final = (*_EXPORTED, TORCH, UNFOLDED)
"""The names, in the order in which `choosing` tries them."""

_PACKAGES: Final = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx")}
_TOLERANCE = 1e-4  # of the features of an unknown network that is folded, relative to a level's greatest


def is_installed(name: str) -> bool:
    """Whether the packages of the runtime ``name`` are installed."""
    return all(util.find_spec(package) is not None for package in _PACKAGES.get(name, ()))


def version_of(name: str) -> str:
    """The version of the package that computes the runtime ``name``; "" if it is not installed."""
    if name not in _EXPORTED:
        return str(torch.__version__)
    try:
        return metadata.version(_PACKAGES[name][0])
    except metadata.PackageNotFoundError:
        return ""


def network_by(
    name: str, network: nn.Module, fingerprint: str, device: torch.device, title: str, size: tuple[int, int]
) -> nn.Module | ExportedNetwork:
    """The network by the runtime ``name``; ``network`` itself remains unchanged.

    Args:
        network: from the normalised input to a list of levels. fingerprint, title: `Backbone.fingerprint` and name.
        size: (height, width) of inputs, for the check of a network that is not one of our own.

    Raises:
        ParameterError: an unknown name. RuntimeUnavailableError: the runtime is not installed, or not for ``device``.
    """
    if name not in RUNTIMES:
        known = ", ".join(map(repr, RUNTIMES))
        raise ParameterError(f'backbone_runtime: expected "auto" or one of {known}, got {name!r}')
    if name == UNFOLDED:
        return network
    if name == TORCH:
        return _folded(network, size)
    if device.type != "cpu":
        raise RuntimeUnavailableError(
            f'backbone_runtime: {name} computes on the CPU, not on {device}; choose backbone_runtime="torch", or '
            'device="cpu"'
        )
    if is_quantized(network) and name != "openvino":
        raise RuntimeUnavailableError(
            f'quantization: int8 is computed by OpenVINO, and not by {name}; choose backbone_runtime="openvino"'
        )
    return _EXPORTED[name](_folded(network, size, plain=True), fingerprint, title)


def _folded(network: nn.Module, size: tuple[int, int], *, plain: bool = False) -> nn.Module:
    """The folded network; the network itself where nothing can be folded."""
    found = folded(network, plain=plain)
    if found is None or (isinstance(network, HookedNetwork) and not agree(found, network, size)):
        return network
    return found


def agree(found: nn.Module, network: nn.Module, size: tuple[int, int]) -> bool:
    """Whether two networks have nearly the same levels for noise of an input's size."""
    parameter: Any = next(network.parameters())
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(parameter.device)
    try:
        with torch.inference_mode():
            x = x.contiguous(memory_format=torch.channels_last)
            return largest_difference(found(x), network(x)) <= _TOLERANCE
    except Exception:  # for example a sum of two shapes
        return False
