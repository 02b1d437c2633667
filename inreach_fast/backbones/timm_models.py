"""Any model of timm, as "timm:NAME"."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import BackboneError, ParameterError, WeightsError
from .definition import IMAGENET, BackboneDefinition, Normalisation
from .resnet import first_stages, resnet_hierarchies
from .weights import reason

TIMM_PREFIX = "timm:"


def timm_definition(model_name: str, pretrained: bool) -> BackboneDefinition:
    """The timm model of that name (without the prefix), ``pretrained``: with timm's own weights.

    Levels: the residual blocks of layer1 to layer3 if the model has torchvision's stage names, else the modules of its
    `feature_info` whose grid is 1/4 to 1/16 of the input. `depth` may name others if their outputs are (B, C, h, w).
    """
    try:
        import timm
    except ImportError:
        raise BackboneError(
            f"backbone: {TIMM_PREFIX}{model_name} needs timm; pip install 'inreach_fast[timm]'"
        ) from None
    if not timm.is_model(model_name):
        raise ParameterError(f"backbone: timm has no model {model_name!r}; timm.list_models() lists its models")
    name = TIMM_PREFIX + model_name
    try:
        with torch.random.fork_rng(devices=[]):  # leaves the caller's generator alone
            model: Any = timm.create_model(model_name, pretrained=pretrained)
    except Exception as error:
        if not pretrained:
            raise BackboneError(
                f"backbone: timm cannot build {name} ({reason(error)}); choose another model"
            ) from error
        raise WeightsError(
            f"weights: those of {name} are not in timm's cache and could not be downloaded ({reason(error)}); "
            "give --weights PATH (weights=PATH)"
        ) from error
    levels, hierarchies = first_stages(model), resnet_hierarchies(model)
    if not levels:
        modules = dict(model.named_modules())
        infos = list(getattr(model, "feature_info", None) or [])
        levels = tuple(i["module"] for i in infos if i["reduction"] in (4, 8, 16) and i["module"] in modules)
        hierarchies = {}
    if not levels:
        raise ParameterError(f"backbone: {name} lists no feature modules; give depth as a tuple of module names")
    cfg = getattr(model, "pretrained_cfg", None) or {}
    mean, std = cfg.get("mean", IMAGENET.mean), cfg.get("std", IMAGENET.std)
    return BackboneDefinition(model, levels, Normalisation(tuple(mean), tuple(std)), name, hierarchies)
