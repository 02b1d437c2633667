"""A network with its BatchNorms folded into the convolutions before them, and ReLUs and sums done with these.

The network is traced (torch.fx) with proxies in place of tensors; what branches on values cannot be traced and stays
as it is. The order of what is left does not change, so that operations in place keep their meaning.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from .fused_convolution import FusedConvolution, is_foldable
from .hooked_network import HookedNetwork

_SUMS = (operator.add, operator.iadd, torch.add)
# function -> its activation, if it has no arguments but the tensor (and ``inplace``)
_ACTIVATION_OF: dict[Any, str] = {
    torch.relu: "relu",
    torch.relu_: "relu",
    functional.relu: "relu",
    functional.relu6: "relu6",
}


def folded(network: nn.Module, *, plain: bool = False) -> nn.Module | None:
    """The network with folded BatchNorms, or None if there is none to fold or it cannot be traced.

    Nothing of ``network`` is changed; what has no BatchNorm is shared with it.

    Args:
        network: from the normalised (B, 3, H, W) input to a list of levels, in evaluation mode.
        plain: with torch's usual operations alone, for an export to another runtime.
    """
    if not any(type(module) is nn.BatchNorm2d for module in network.modules()):
        return None
    try:
        traced = _traced(network)
    except Exception:  # tracing runs the network's own code
        return None
    if not _fold(traced):
        return None
    for activation in (_take_activations, _take_sums, _take_activations):
        activation(traced)
    if isinstance(network, HookedNetwork):
        _keep_levels_intact(traced)
    for module in _convolutions(traced):
        module.plain = plain
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced.eval().requires_grad_(False)


class _LevelTracer(fx.Tracer):
    """Notes the outputs of the modules ``levels``."""

    def __init__(self, levels: Sequence[str] = ()) -> None:
        super().__init__()
        self.levels, self.found = levels, dict[str, Any]()

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d) or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(module, forward, args, kwargs)
        name = self.path_of_module(module)
        if name in self.levels and len(self.found) < len(self.levels):  # as with hooks, the last of several calls
            self.found[name] = output
        return output


def _traced(network: nn.Module) -> fx.GraphModule:
    """The network as a graph that ends in a list of its levels, and computes nothing after the last."""
    if not isinstance(network, HookedNetwork):
        return fx.GraphModule(network, _LevelTracer().trace(network))
    tracer = _LevelTracer(network.levels)
    graph = tracer.trace(network.body)
    ends = [tracer.found[level].node for level in network.levels]
    for node in reversed(graph.nodes):
        if node in ends:
            break
        graph.erase_node(node)
    graph.output(ends)
    return fx.GraphModule(network.body, graph)


def _module(traced: fx.GraphModule, node: Any) -> nn.Module | None:
    """The module that ``node`` calls, if it calls one."""
    return traced.get_submodule(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None


def _convolutions(traced: fx.GraphModule) -> list[FusedConvolution]:
    return [module for module in traced.modules() if isinstance(module, FusedConvolution)]


def _open(traced: fx.GraphModule, node: Any) -> FusedConvolution | None:
    """The fused convolution of ``node`` if its output is used once and it has no activation yet."""
    module = _module(traced, node)
    if isinstance(module, FusedConvolution) and len(node.users) == 1 and not module.activation:
        return module
    return None


def _fold(traced: fx.GraphModule) -> int:
    """Puts a fused convolution in the place of each convolution and its BatchNorm; returns how many."""
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    count = 0
    for norm in list(traced.graph.nodes):
        conv = norm.args[0] if norm.op == "call_module" and norm.args else None
        first, second = _module(traced, conv), _module(traced, norm)
        if first is None or second is None or not is_foldable(first, second):
            continue
        assert isinstance(conv, fx.Node)
        if len(conv.users) != 1 or len(conv.args) != 1 or conv.kwargs or calls.count(conv.target) != 1:
            continue
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.BatchNorm2d)
        name = f"fused_{count}"
        traced.add_submodule(name, FusedConvolution(first, second))
        conv.target = name
        norm.replace_all_uses_with(conv)
        traced.graph.erase_node(norm)
        count += 1
    return count


def _activation(traced: fx.GraphModule, node: fx.Node) -> str:
    module = _module(traced, node)
    if type(module) in (nn.ReLU, nn.ReLU6):
        return "relu6" if type(module) is nn.ReLU6 else "relu"
    if len(node.args) == 1 and not set(node.kwargs) - {"inplace"}:
        if node.op == "call_function":
            return _ACTIVATION_OF.get(node.target, "")
        if node.op == "call_method" and node.target in ("relu", "relu_"):
            return "relu"
    return ""


def _take_activations(traced: fx.GraphModule) -> None:
    """Moves each activation that alone uses a fused convolution into it."""
    for node in list(traced.graph.nodes):
        activation = _activation(traced, node)
        fused = _open(traced, node.args[0]) if activation and node.args else None
        if fused is not None:
            fused.activation = activation
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _take_sums(traced: fx.GraphModule) -> None:
    """Moves each sum into the fused convolution that is computed last for it and that it alone uses."""
    place = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in list(traced.graph.nodes):
        is_sum = (node.op == "call_function" and node.target in _SUMS) or (
            node.op == "call_method" and node.target == "add_"
        )
        if not is_sum or len(node.args) != 2 or node.kwargs or not all(isinstance(x, fx.Node) for x in node.args):
            continue
        other, last = sorted(node.args, key=lambda x: place[x])
        if other is last or _open(traced, last) is None or len(last.args) != 1:
            continue
        last.args = (last.args[0], other)
        node.replace_all_uses_with(last)
        traced.graph.erase_node(node)


def _keep_levels_intact(traced: fx.GraphModule) -> None:
    """Copies each level that what follows might write to: an unknown network may work in place on it."""
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    ends = []
    for level in output.args[0]:
        if all(user is output or _only_reads(traced, user) for user in level.users):
            ends.append(level)
            continue
        with traced.graph.inserting_after(level):
            ends.append(traced.graph.call_method("clone", (level,)))
    output.args = (ends,)


def _only_reads(traced: fx.GraphModule, node: fx.Node) -> bool:
    module = _module(traced, node)
    return isinstance(module, (nn.Conv2d, FusedConvolution)) or node.target in (operator.add, torch.add)
