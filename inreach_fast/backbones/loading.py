"""`load_backbone`: a backbone by name."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..errors import BackboneError, InReachError, ParameterError, WeightsError
from ..parameters import INT8
from ..system.threads import before_torch
from .backbone import Backbone, cut_network
from .definition import IMAGENET, BackboneDefinition, Normalisation, as_normalisation
from .efficientnet_lite import EFFICIENTNET_LITE2, efficientnet_lite2_definition, efficientnet_lite2_weights
from .hooked_network import HookedNetwork
from .resnet import (
    WIDE_RESNET50_2,
    first_stages,
    resnet_hierarchies,
    wide_resnet50_2_definition,
    wide_resnet50_2_weights,
)
from .transformer import is_transformer
from .weights import file_sha256, load_state, random_state, read_state, reason

# The network without weights, and the file of its official ones.
_BUILT_IN: Mapping[str, tuple[Callable[[], BackboneDefinition], Callable[[], tuple[Path, str | None]]]] = {
    WIDE_RESNET50_2: (wide_resnet50_2_definition, wide_resnet50_2_weights),
    EFFICIENTNET_LITE2: (efficientnet_lite2_definition, efficientnet_lite2_weights),
}


def load_backbone(
    name: str = WIDE_RESNET50_2,
    *,
    weights: str | os.PathLike[str] = "official",
    weights_sha256: str | None = None,
    depth: int | str | Sequence[str] = 13,
    device: str | torch.device = "cpu",
    normalisation: Normalisation | str | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a backbone, cut after its last level.

    Args:
        name: "wide_resnet50_2", "efficientnet_lite2" (the [offline] extra), "timm:NAME", or "FILE.py:FACTORY".
        weights: "official" (the published ones; for a FACTORY, its own), "random" (from `seed`; for tests), or a file
            (.pth, .pt or .safetensors).
        weights_sha256: sha256 of a given file, or its beginning; None: the prefix in its name (as in
            wide_resnet50_2-95faca4d.pth), if any.
        depth: 1 to 13: number of levels from the shallowest (all if the network has fewer); "PC", PatchCore's choice
            (layer2.3 and layer3.5); "reference" (without layer3.0, with layer4.0); or a tuple of level names.
        device: any torch device.
        normalisation: None (the network's own), "imagenet", "reference", or a `Normalisation`.

    Raises:
        ParameterError: an argument that is out of range or unknown. WeightsError: the weights are missing, cannot be
            fetched, or have another sha256. BackboneError: the network cannot be built.
    """
    if not isinstance(name, str):
        raise ParameterError(f"backbone: expected a name or a Backbone (Backbone.from_module), got {name!r}")
    before_torch(torch.get_num_threads())
    wanted = os.fspath(weights)
    file, _, function = name.rpartition(":")
    is_factory = file.endswith(".py") and function.isidentifier()
    if is_factory:
        definition = _factory_definition(name, Path(file).expanduser().resolve(), function)
    elif name in _BUILT_IN:
        definition = _BUILT_IN[name][0]()
    elif name.startswith("timm:"):
        definition = _timm_definition(name.removeprefix("timm:"), pretrained=wanted == "official")
    else:
        known = ", ".join(repr(n) for n in _BUILT_IN)
        raise ParameterError(f"backbone: unknown {name!r}; give {known}, 'timm:NAME' or 'FILE.py:FACTORY'")
    levels = definition.choose_levels(depth)
    prepared = as_normalisation(normalisation, definition.normalisation)
    network = cut_network(definition, levels)
    target = network.body if isinstance(network, HookedNetwork) else network  # named as in files
    if wanted == "random":
        load_state(target, random_state(target, seed), "random")
    elif wanted != "official":
        load_state(target, read_state(wanted, weights_sha256), wanted)
    elif name in _BUILT_IN:
        path, digest = _BUILT_IN[name][1]()
        load_state(target, read_state(path, digest), str(path))
    spec = {
        "backbone": f"{os.path.abspath(file)}:{function}" if is_factory else name,
        "weights": wanted,  # as given: a model file must not contain paths of the machine
        "weights_sha256": None if wanted in ("official", "random") else file_sha256(wanted),
        "seed": seed,
        "rebuildable": True,
    }
    return Backbone(definition, levels, device=device, normalisation=prepared, spec=spec, network=network)


def _timm_definition(model_name: str, pretrained: bool) -> BackboneDefinition:
    """The timm model of that name (without the prefix), ``pretrained``: with timm's own weights.

    Levels: the residual blocks of layer1 to layer3 if the model has torchvision's stage names; the blocks of a vision
    transformer; else the modules of its `feature_info` whose grid is 1/4 to 1/16 of the input. `depth` may name others
    if their outputs are (B, C, h, w), or (B, tokens, C) of a transformer.
    """
    try:
        import timm
    except ImportError:
        raise BackboneError(f"backbone: timm:{model_name} needs timm; pip install 'inreach_fast[timm]'") from None
    if not timm.is_model(model_name):
        raise ParameterError(f"backbone: timm has no model {model_name!r}; timm.list_models() lists its models")
    name = "timm:" + model_name
    try:
        with torch.random.fork_rng(devices=[]):  # leaves the caller's generator alone
            model: Any = timm.create_model(model_name, pretrained=pretrained)
            if hasattr(model, "dynamic_img_size"):  # its positions are then resampled for other image sizes
                model = timm.create_model(model_name, pretrained=pretrained, dynamic_img_size=True)
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
    if not levels and is_transformer(model):
        levels, hierarchies = tuple(f"blocks.{i}" for i in range(len(model.blocks))), {}
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


def _factory_definition(name: str, path: Path, function: str) -> BackboneDefinition:
    """Executes FILE.py and calls its FACTORY. Raises BackboneError if that fails or returns something else."""
    if not path.is_file():
        raise BackboneError(f"backbone: there is no file {path}; check the path in {name!r}")
    module = ModuleType("inreach_fast_custom_" + hashlib.sha256(str(path).encode()).hexdigest()[:16])
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickling in the user's file look there
    try:
        # From the source: bytecode counts as current if the file was replaced by one of its length within a second.
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
        factory = getattr(module, function, None)
        if not callable(factory):
            raise BackboneError(f"backbone: {path} defines no function {function!r}; check {name!r}")
        definition = factory()
    except InReachError:
        raise
    except Exception as error:
        raise BackboneError(f"backbone: {name!r} failed with {type(error).__name__}: {error}") from error
    if not isinstance(definition, BackboneDefinition):
        raise BackboneError(
            f"backbone: {function}() of {name!r} returned a {type(definition).__name__}; it must return "
            "inreach_fast.backbones.BackboneDefinition(module, levels, normalisation, name)"
        )
    return definition


def backbone_from_spec(
    spec: Mapping[str, Any],
    *,
    device: str | torch.device = "cpu",
    weights: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Backbone:
    """Build the backbone of a saved model. The caller compares the fingerprints.

    A factory, FILE.py:FACTORY, is run from its recorded path only.

    Args:
        spec: `Backbone.spec`, as it comes out of JSON.
        device: any torch device.
        weights: a file to use instead of the recorded one, with the same sha256.
        folder: of the model: searched for the weights file's name if the file is not at its recorded path.

    Raises:
        BackboneError: the spec is malformed, or of a module that the caller gave; and the errors of `load_backbone`.
    """
    if not spec.get("rebuildable"):
        raise BackboneError(
            f"backbone: {spec.get('name', '?')!r} was given as a module and cannot be rebuilt; give the same one "
            "again, InReaCh.load(path, backbone=...)"
        )
    try:
        name, source, digest = spec["backbone"], spec["weights"], spec["weights_sha256"]
        levels, seed = tuple(spec["levels"]), int(spec["seed"])
        normalisation = Normalisation.from_json(spec["normalisation"])
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"backbone: its description is damaged ({error!r}); fit the model again") from error
    if weights is None:
        is_file = digest is not None and source not in ("official", "random")
        weights = _find_weights(source, digest, folder) if is_file else source
    fixed: dict[str, Any] = {"depth": levels, "normalisation": normalisation, "seed": seed}
    backbone = load_backbone(name, weights=weights, weights_sha256=digest, device=device, **fixed)
    return backbone.with_ranges(spec[INT8]) if INT8 in spec else backbone


def _find_weights(source: str, digest: str, folder: str | os.PathLike[str] | None) -> Path:
    """The recorded weights file, at its path or in ``folder``. Its sha256 is checked later."""
    recorded = Path(source).expanduser()
    places = [recorded] if folder is None else [recorded, Path(folder) / recorded.name]
    for place in places:
        if place.is_file():
            return place
    raise WeightsError(
        f"weights: those of the model are not at {' or '.join(map(str, places))}; give the file "
        f"(sha256 {digest[:16]}...) by InReaCh.load(path, weights=PATH) or --weights PATH"
    )
