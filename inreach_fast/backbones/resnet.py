"""torchvision's residual networks, cut after the last level; and WideResNet50-2, the paper's backbone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from .definition import IMAGENET, BackboneDefinition, CutNetwork
from .weights import hub_file

WIDE_RESNET50_2 = "wide_resnet50_2"

_STAGES = ("layer1", "layer2", "layer3", "layer4")


def resnet_block_names(model: nn.Module) -> tuple[str, ...]:
    """ "layer1.0", "layer1.1", ...: the residual blocks of a network with torchvision's stage names."""
    stages = [(name, getattr(model, name, None)) for name in _STAGES]
    return tuple(f"{name}.{i}" for name, stage in stages if isinstance(stage, nn.Sequential) for i in range(len(stage)))


def first_stages(model: nn.Module) -> tuple[str, ...]:
    """The residual blocks of layer1 to layer3."""
    return tuple(name for name in resnet_block_names(model) if not name.startswith("layer4."))


def resnet_hierarchies(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The named hierarchies of ALGORITHM section 3, as far as the ResNet has their stages.

    "PC": the last blocks of layer2 and layer3 (layer2.3 and layer3.5 in WideResNet50-2). "reference": the
    blocks of layer1 to layer3 without layer3.0, and layer4.0.
    """
    names = resnet_block_names(model)
    by_stage = {stage: [n for n in names if n.startswith(stage + ".")] for stage in _STAGES}
    found: dict[str, tuple[str, ...]] = {}
    if by_stage["layer2"] and by_stage["layer3"]:
        found["PC"] = (by_stage["layer2"][-1], by_stage["layer3"][-1])
    if by_stage["layer4"]:
        found["reference"] = (*(name for name in first_stages(model) if name != "layer3.0"), "layer4.0")
    return found


def cut_resnet(model: nn.Module, levels: Sequence[str]) -> CutNetwork | None:
    """The network up to the last level; None if it is none of torchvision's, or not all levels are its blocks.

    The in-place ReLUs of a block write to tensors of that block alone. The output of a block is only read by the next
    one (its convolutions, and the sum ``out += identity``, which writes to `out`), so that levels stay intact.
    """
    resnet = sys.modules.get("torchvision.models.resnet")  # takes seconds to import; its networks have imported it
    if resnet is None or not isinstance(model, resnet.ResNet) or model._forward_hooks or model._forward_pre_hooks:
        return None
    own_forward = type(model).forward is resnet.ResNet.forward
    own_forward &= type(model)._forward_impl is resnet.ResNet._forward_impl
    names = resnet_block_names(model)
    usual = all(type(model.get_submodule(name)) in (resnet.BasicBlock, resnet.Bottleneck) for name in names)
    if not own_forward or not usual or not set(levels) <= set(names):
        return None
    return CutNetwork(model, ("conv1", "bn1", "relu", "maxpool"), names, levels)


def wide_resnet50_2_definition() -> BackboneDefinition:
    """WideResNet50-2 with 13 levels: layer1.{0,1,2}, layer2.{0,1,2,3}, layer3.{0,...,5}, each after its last ReLU.

    The module is on the meta device: weights are loaded after it is cut.
    """
    from torchvision.models import wide_resnet50_2

    with torch.device("meta"):
        model = wide_resnet50_2(weights=None)
    blocks, hierarchies = resnet_block_names(model), resnet_hierarchies(model)
    return BackboneDefinition(model, first_stages(model), IMAGENET, WIDE_RESNET50_2, hierarchies, blocks)


def wide_resnet50_2_weights() -> tuple[Path, None]:
    """The official weight file (IMAGENET1K_V1), from torch.hub's cache or downloaded; its name contains its sha256."""
    from torchvision.models.resnet import Wide_ResNet50_2_Weights

    return hub_file(Wide_ResNet50_2_Weights.IMAGENET1K_V1.url, WIDE_RESNET50_2), None
