"""inreach_fast: InReaCh (Inter-Realization Channels, ICCV 2023) as an exact, compiled engine.

Fits unsorted training images; inspects new ones with anomaly scores, heat maps and verdicts.

    >>> from inreach_fast import InReaCh
    >>> model = InReaCh().fit("folder/of/images")
    >>> model.predict(image).score
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import kernels
from ._version import __version__
from .errors import *  # noqa: F403
from .kernels import get_gpu_memory_limit, set_gpu_memory_limit
from .system.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from .estimator import InReaCh
    from .method.nominal_model import NominalModel
    from .predict.disagreement import disagreement
    from .predict.prediction import Prediction
    from .serving import Inspector

# Imported at first use: torch takes seconds to import, and the kernels do not need it.
_LAZY = {
    "InReaCh": "estimator",
    "Inspector": "serving",
    "NominalModel": "method.nominal_model",
    "Prediction": "predict.prediction",
    "disagreement": "predict.disagreement",
}

__all__ = [
    "InReaCh",
    "Inspector",
    "NominalModel",
    "Prediction",
    "__version__",
    "disagreement",
    "get_gpu_memory_limit",
    "get_num_threads",
    "kernels",
    "set_gpu_memory_limit",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    if name == "precision":  # `precision.disagreement`, the name of earlier versions
        return import_module(".predict.disagreement", __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
