"""WideResNet50-2 of torchvision (IMAGENET1K_V1), the paper's backbone."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.models import wide_resnet50_2
from torchvision.models.resnet import Wide_ResNet50_2_Weights

from .cut_resnet import resnet_block_names, resnet_hierarchies
from .definition import IMAGENET, BackboneDefinition
from .weights import hub_file

WIDE_RESNET50_2 = "wide_resnet50_2"


def wide_resnet50_2_definition() -> BackboneDefinition:
    """WideResNet50-2 with 13 levels: layer1.{0,1,2}, layer2.{0,1,2,3}, layer3.{0,...,5}, each after its last ReLU.

    The module is on the meta device: the weights are put in after it is cut.
    """
    with torch.device("meta"):
        model = wide_resnet50_2(weights=None)
    blocks = resnet_block_names(model)
    return BackboneDefinition(
        module=model,
        levels=tuple(name for name in blocks if not name.startswith("layer4.")),
        normalisation=IMAGENET,
        name=WIDE_RESNET50_2,
        hierarchies=resnet_hierarchies(model),
        known_levels=blocks,
    )


def wide_resnet50_2_weights() -> tuple[Path, None]:
    """The official weights' file (IMAGENET1K_V1), from torch.hub's cache or the download; its sha256 is in its name.

    Raises:
        WeightsError: it is in neither.
    """
    return hub_file(Wide_ResNet50_2_Weights.IMAGENET1K_V1.url, WIDE_RESNET50_2), None
