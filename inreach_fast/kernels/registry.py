"""Which backends this machine can use, and the one behind ``backend="auto"``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from functools import cache
from typing import Protocol

from ..errors import BackendError
from .bank import Bank
from .results import IndexArray, MutualNearest, Nearest

# Fastest first: "auto" takes the first that is usable. name -> (module beside this file, what it needs).
_BACKENDS = {
    "native": ("native", "inreach_fast._core"),
    "numba": ("numba_backend", "numba"),
    "torch": ("torch_backend", "torch"),
}


class SearchBackend(Protocol):
    """What a backend module offers (describe and filter_channels are looked up there as well).

    Arguments arrive checked: finite float32 rows of one length, int64 groups, k >= 1.
    """

    def nearest(self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None) -> Nearest:
        """Results of shape (m, k)."""

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        """Both directions."""


@cache
def _usable(name: str) -> bool:
    needed = _BACKENDS[name][1]
    try:
        return importlib.util.find_spec(needed) is not None
    except ModuleNotFoundError:
        return False


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this machine can use, fastest first; all give the same bits."""
    return tuple(name for name in _BACKENDS if _usable(name))


def backend_module(name: str) -> SearchBackend:
    """The module behind a backend's name.

    Raises:
        BackendError: unknown name, or not usable here; the message names those that are.
    """
    usable = available_backends()
    if name == "auto" and usable:
        name = usable[0]
    if name not in usable:
        known = name in _BACKENDS
        reason = f"needs {_BACKENDS[name][1]}, which is not installed" if known else "is not a backend"
        raise BackendError(f"backend: {name!r} {reason}; usable here: {', '.join(usable) or 'none'} (or 'auto')")
    module: SearchBackend = importlib.import_module(f".{_BACKENDS[name][0]}", __package__)
    return module


def takes_hints(module: SearchBackend) -> bool:
    """Whether the backend's ``nearest`` has an argument ``hint``: guesses that can save it time."""
    return "hint" in inspect.signature(module.nearest).parameters
