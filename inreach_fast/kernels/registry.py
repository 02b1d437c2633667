"""Which backends this machine can use, and the one that a name stands for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from ..errors import BackendError, GpuError, GpuLostError
from ..parameters import Parameters
from .backend import Backend
from .bank import set_indexer
from .gpu.backends import gpu_backend
from .gpu.devices.opening import is_gpu_name
from .gpu.devices.probe import gpu_count, has_gpu

_T = TypeVar("_T")

_log = logging.getLogger("inreach_fast")


# What each backend needs. Fastest first: "auto" takes the first one of the CPU that is usable.
_NEEDS = {
    "native": "inreach_fast._core",
    "numba": "numba",
    "torch": "torch",
    "cuda": "inreach_fast._cuda",
    "cupy": "cupy",
}


class _Backends(dict[str, Backend]):
    """Backends by the names that callers give, "auto" among them. Those of the CPU are made once."""

    def __missing__(self, name: str) -> Backend:
        """The backend behind a name of which none was made yet, or of GPUs ("cuda", "cupy:1", "cuda:0,1", "cuda:all").

        Raises:
            BackendError: unknown name, or not usable here; the message names those that are. GpuUnavailableError:
            there is no GPU, or no driver for it.
        """
        chosen = auto_backend() if name == "auto" else name
        on_gpu = is_gpu_name(chosen)
        needed = _NEEDS.get(chosen.partition(":")[0] if on_gpu else chosen)
        if needed is None or not _found(needed):
            reason = f"needs {needed}, which is not installed" if needed else "is not a backend"
            usable = ", ".join(available_backends()) or "none"
            raise BackendError(f"backend: {name!r} {reason}; usable here: {usable} (or 'auto')")
        if on_gpu:
            gpu_count()  # raises what keeps the GPUs from being used
            return gpu_backend(chosen)
        if name != "auto":
            self[name] = getattr(import_module(f"{__package__}.cpu.{name}"), f"{name.title()}Backend")()
        return self.setdefault(name, self[chosen])


backends = _Backends()


def _usable(name: str) -> bool:
    return _found(_NEEDS[name]) and (not is_gpu_name(name) or has_gpu())


@cache
def _found(needed: str) -> bool:
    try:
        return find_spec(needed) is not None
    except ModuleNotFoundError:
        return False


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this machine can use; all give the same bits.

    Those of the CPU come first, fastest first; "cuda" and "cupy" where there is a GPU (asked of its driver).
    """
    return tuple(filter(_usable, _NEEDS))


def auto_backend() -> str:
    """The name behind "auto" for arrays in the CPU's memory."""
    return next((name for name in _NEEDS if not is_gpu_name(name) and _usable(name)), "auto")


def cpu_backend(name: str) -> Backend:
    """The named backend, or the CPU's fastest where the name means GPUs."""
    return backends["auto" if is_gpu_name(name) else name]


def backend_for(backend: str, device: str) -> str:
    """The name behind "auto" where the network runs on ``device``, a torch device; any other name unchanged.

    On a CUDA device that is the GPU's own backend. Where none can be used, the kernels run on the CPU, with
    the same bits, and one line of the log "inreach_fast" says so.
    """
    kind, _, number = device.partition(":")
    if backend != "auto" or kind != "cuda":
        return backend

    def opened(name: str) -> str:
        wanted = f"{name}:{number}" if number else name
        gpu_backend(wanted)
        return wanted

    return on_first_gpu_backend(opened, f"device {device!r}") or "auto"


def backend_of(parameters: Parameters) -> str:
    """The backend of a model's parameters: see `backend_for`."""
    return backend_for(parameters.backend, parameters.device)


def on_first_gpu_backend(use: Callable[[str], _T], where: str) -> _T | None:
    """What ``use`` returns for the name of the first GPU backend that can be used.

    None if there is none: the kernels then run on the CPU, with the same bits, and one line of the log
    "inreach_fast" gives the reasons.

    Raises:
        GpuLostError: the GPU has failed; a network could not use it either.
    """
    reasons = []
    for name in filter(is_gpu_name, _NEEDS):
        if not _found(_NEEDS[name]):
            reasons.append(f"{name} needs {_NEEDS[name]}")
            continue
        try:
            return use(name)
        except GpuLostError:
            raise
        except GpuError as error:
            reasons.append(f"{name}: {error}")
    warn_once(f"no kernels for {where}, searching on the CPU instead: {'; '.join(reasons)}")
    return None


@cache
def warn_once(line: str) -> None:
    """One warning in the log "inreach_fast", once a process."""
    _log.warning("%s", line)


set_indexer(lambda: backends[auto_backend()])
