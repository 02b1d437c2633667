"""Which backends this machine can use, and the one behind ``backend="auto"``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

from ..array_types import IndexArray
from ..errors import BackendError, GpuError, GpuLostError
from .bank import Bank
from .gpu.devices.opening import is_gpu_name
from .gpu.devices.probe import gpu_count, has_gpu
from .results import MutualNearest, Nearest

# Fastest first: "auto" takes the first that is usable. name -> (module beside this file, what it needs); GPUs, which
# names can number, are no modules (gpu_backends.py).
_BACKENDS = {
    "native": ("cpu.native.search", "inreach_fast._core"),
    "numba": ("cpu.numba.search", "numba"),
    "torch": ("cpu.torch.search", "torch"),
    "cuda": ("", "inreach_fast._cuda"),
    "cupy": ("", "cupy"),
}
_log = logging.getLogger("inreach_fast")


class SearchBackend(Protocol):
    """What a backend module offers (describe and filter_channels are looked up there as well).

    Arguments arrive checked: finite float32 rows of one length, int64 groups, k >= 1.
    """

    def nearest(self, queries: Bank, bank: Bank, k: int, query_group: IndexArray | None) -> Nearest:
        """Results of shape (m, k)."""

    def mutual_nearest(self, a: Bank, b: Bank) -> MutualNearest:
        """Both directions."""


def _usable(name: str) -> bool:
    return _found(_BACKENDS[name][1]) and (not is_gpu_name(name) or has_gpu())


@cache
def _found(needed: str) -> bool:
    try:
        return importlib.util.find_spec(needed) is not None
    except ModuleNotFoundError:
        return False


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this machine can use; all give the same bits.

    Those of the CPU come first, fastest first; "cuda" and "cupy" where there is a GPU (asked of its driver).
    """
    return tuple(name for name in _BACKENDS if _usable(name))


def chosen_backend(backend: str) -> str:
    """The name behind "auto", for arrays in the CPU's memory; any other as it is."""
    if backend == "auto":
        for name in _BACKENDS:
            if not is_gpu_name(name) and _usable(name):
                return name
    return backend


def backend_for(backend: str, device: str) -> str:
    """The name behind "auto" where the network runs on ``device``, a torch device; any other as it is.

    On a CUDA device that is the GPU's own backend. Where none can be used, the answer comes from the CPU, the
    same to the bit, and one line of the log "inreach_fast" says so.
    """
    kind, _, number = device.partition(":")
    if backend != "auto" or kind != "cuda":
        return backend
    reasons: list[str] = []
    for name in gpu_kinds(reasons):
        try:
            wanted = f"{name}:{number}" if number else name
            _gpu_backend(wanted)
            return wanted
        except GpuLostError:
            raise  # the network cannot use it either
        except GpuError as error:
            reasons.append(f"{name}: {error}")
    tell_once(f"no kernels for device {device!r}, searching on the CPU instead: {'; '.join(reasons)}")
    return "auto"


def gpu_kinds(reasons: list[str]) -> Iterator[str]:
    """The installed backends for GPUs, in order; why another is not goes to ``reasons``."""
    for name in (n for n in _BACKENDS if is_gpu_name(n)):
        if _found(_BACKENDS[name][1]):
            yield name
        else:
            reasons.append(f"{name} needs {_BACKENDS[name][1]}")


@cache
def tell_once(line: str) -> None:
    """One warning in the log "inreach_fast", once a process."""
    _log.warning("%s", line)


def _gpu_backend(name: str) -> SearchBackend:
    from .gpu.backends import gpu_backend

    return gpu_backend(name)


def backend_module(name: str) -> SearchBackend:
    """The module behind a backend's name; of GPUs ("cuda", "cupy:1", "cuda:0,1", "cuda:all") an object like one.

    Raises:
        BackendError: unknown name, or not usable here; the message names those that are. GpuUnavailableError: there
        is no GPU, or no driver for it.
    """
    name = chosen_backend(name)
    plain = name.partition(":")[0]
    if plain not in _BACKENDS or (plain != name and not is_gpu_name(name)) or not _found(_BACKENDS[plain][1]):
        known = plain in _BACKENDS and (plain == name or is_gpu_name(name))
        reason = f"needs {_BACKENDS[plain][1]}, which is not installed" if known else "is not a backend"
        usable = ", ".join(available_backends()) or "none"
        raise BackendError(f"backend: {name!r} {reason}; usable here: {usable} (or 'auto')")
    if is_gpu_name(name):
        gpu_count()  # raises what keeps the GPUs from being used
        return _gpu_backend(name)
    module: SearchBackend = importlib.import_module(f".{_BACKENDS[name][0]}", __package__)
    return module


def operation_module(name: str, modules: dict[str, str]) -> Any:
    """Where a backend keeps an operation that has a module of its own: ``modules`` gives it by backend."""
    found = backend_module(name)  # raises where it is unknown or not usable
    name = chosen_backend(name)
    return importlib.import_module(f".{modules[name]}", __package__) if name in modules else found


def takes_hints(module: SearchBackend) -> bool:
    """Whether the backend's ``nearest`` has an argument ``hint``: guesses that can save it time."""
    return "hint" in inspect.signature(module.nearest).parameters
