"""Which runtime computes a backbone where the user leaves it open (``backbone_runtime="auto"``)."""

from __future__ import annotations

import logging
import os
from typing import Final

from ..errors import ParameterError, RuntimeUnavailableError, SaveError
from ..parameters import UNFOLDED
from .backbone import Backbone
from .runtimes import RUNTIMES, TORCH, is_installed, version_of

VARIABLE: Final = "INREACH_BACKBONE_RUNTIME"
_log = logging.getLogger("inreach_fast")


def by_fastest_runtime(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    """The backbone by the fastest runtime that is installed and can run it, or by $INREACH_BACKBONE_RUNTIME.

    What cannot run it is logged with its reason, and the next one is taken; torch always can.

    Args:
        backbone: as it was loaded; one that `with_runtime` made is returned as it is.
        size: (height, width) of its inputs.

    Raises:
        ParameterError, RuntimeUnavailableError: the runtime that the environment names. RuntimeUnavailableError: one
        that `Backbone.quantized` made, without OpenVINO.
    """
    named = os.environ.get(VARIABLE)
    if named and named != "auto":
        try:
            return backbone.with_runtime(named, size)
        except ParameterError as error:
            raise ParameterError(f"{VARIABLE}: {error}") from None
    if backbone.runtime != UNFOLDED:
        return backbone
    if backbone.is_quantized:
        if backbone.device.type == "cpu" and is_installed("openvino"):
            return backbone.with_runtime("openvino", size)
        raise RuntimeUnavailableError(
            "quantization: int8 needs OpenVINO and the CPU; pip install 'inreach_fast[openvino]', leave quantization "
            'out, or choose backbone_runtime="torch", which emulates it and is slow'
        )
    exported = [name for name in RUNTIMES if name not in (TORCH, UNFOLDED)] if backbone.device.type == "cpu" else []
    for name in filter(is_installed, exported):
        try:
            made = backbone.with_runtime(name, size)
            made.level_shapes(*size)  # exports it
        except (RuntimeUnavailableError, SaveError) as error:
            _log.warning("%s; the next runtime is tried", error)
            continue
        _log.info("backbone_runtime: %s %s computes %s", name, version_of(name), backbone.name)
        return made
    return backbone.with_runtime(TORCH, size)
