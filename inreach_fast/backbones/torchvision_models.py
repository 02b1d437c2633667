"""WideResNet50-2 of torchvision (IMAGENET1K_V1), the paper's backbone."""

from __future__ import annotations

import torch
from torchvision.models import wide_resnet50_2
from torchvision.models.resnet import Wide_ResNet50_2_Weights

from .cut_resnet import resnet_block_names, resnet_hierarchies
from .definition import IMAGENET, BackboneDefinition
from .weights import hub_file, load_state, random_state, read_state

WIDE_RESNET50_2 = "wide_resnet50_2"


def wide_resnet50_2_definition(weights: str, seed: int, sha256: str | None) -> BackboneDefinition:
    """WideResNet50-2 with 13 levels: layer1.{0,1,2}, layer2.{0,1,2,3}, layer3.{0,...,5}, each after its last
    ReLU.

    Args:
        weights: "official" (torch.hub's cache, else the download), "random" (from `seed`) or a file's path.
        sha256: what a given file's digest must begin with; None: as its name says.

    Raises:
        WeightsError: the weights are not to be had, damaged, or another network's.
    """
    with torch.device("meta"):  # no time spent on initial values that are replaced at once
        model = wide_resnet50_2(weights=None)
        del model.fc
    if weights == "random":
        load_state(model, random_state(model, seed), "random")
    else:
        path = weights
        if weights == "official":
            path = str(hub_file(Wide_ResNet50_2_Weights.IMAGENET1K_V1.url, WIDE_RESNET50_2))
        state = read_state(path, sha256)
        if not any(key.startswith("layer4.") for key in state):
            del model.layer4  # a file that was cut after layer3 serves as well
        load_state(model, state, path)
    blocks = resnet_block_names(model)
    return BackboneDefinition(
        module=model,
        levels=tuple(name for name in blocks if not name.startswith("layer4.")),
        normalisation=IMAGENET,
        name=WIDE_RESNET50_2,
        hierarchies=resnet_hierarchies(model),
        known_levels=blocks,
    )
