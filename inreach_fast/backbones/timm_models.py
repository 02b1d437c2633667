"""Any model of timm, as "timm:NAME"."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import BackboneError, ParameterError, WeightsError
from .cut_resnet import resnet_block_names, resnet_hierarchies
from .definition import IMAGENET, BackboneDefinition, Normalisation

TIMM_PREFIX = "timm:"


def timm_definition(model_name: str, pretrained: bool) -> BackboneDefinition:
    """A timm model.

    Levels: the residual blocks of layer1 to layer3 where the model has torchvision's stage names, else the
    modules of its `feature_info` whose grid is 1/4 to 1/16 of the input. Others can be named one by one
    (`depth` as a tuple of module names) if their outputs are (B, C, h, w).

    Args:
        model_name: timm's name, without the prefix.
        weights: "official" (timm's own pretrained weights, from its cache or download), "random", or a file's
        path.

    Raises:
        BackboneError: timm is not installed. ParameterError: timm has no such model, or it lists no features.
        WeightsError: the weights are not to be had.
    """
    try:
        import timm
    except ImportError:
        raise BackboneError(f"{TIMM_PREFIX}{model_name} needs timm: pip install 'inreach_fast[timm]'.") from None
    if not timm.is_model(model_name):
        raise ParameterError(f"backbone: timm has no model {model_name!r}; timm.list_models() shows those it has.")
    name = TIMM_PREFIX + model_name
    try:
        with torch.random.fork_rng(devices=[]):  # the caller's generator is left alone
            model: Any = timm.create_model(model_name, pretrained=pretrained)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not pretrained:
            raise BackboneError(f"{name}: timm cannot build it ({reason}).") from error
        raise WeightsError(
            f"the pretrained weights of {name} are neither in timm's cache nor to be downloaded "
            f"({reason}): give --weights PATH (weights=PATH)."
        ) from error
    levels = tuple(n for n in resnet_block_names(model) if not n.startswith("layer4."))
    hierarchies = resnet_hierarchies(model)
    if not levels:
        modules = dict(model.named_modules())
        infos = list(getattr(model, "feature_info", None) or [])
        levels = tuple(i["module"] for i in infos if i["reduction"] in (4, 8, 16) and i["module"] in modules)
        hierarchies = {}
    if not levels:
        raise ParameterError(f"backbone: {name} lists no feature modules; give depth as a tuple of module names.")
    cfg = getattr(model, "pretrained_cfg", None) or {}
    mean, std = cfg.get("mean", IMAGENET.mean), cfg.get("std", IMAGENET.std)
    return BackboneDefinition(model, levels, Normalisation(tuple(mean), tuple(std)), name, hierarchies)
