"""Which backends this machine can use, and the one that a name stands for."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, TypeVar

from ..errors import BackendError, GpuError, GpuLostError
from ..parameters import Parameters
from .backend import Backend
from .bank import set_indexer
from .gpu.backends import gpu_backend
from .gpu.devices.opening import is_gpu_name
from .gpu.devices.probe import gpu_count, has_gpu

_T = TypeVar("_T")

_log = logging.getLogger("inreach_fast")


def _native() -> Backend:
    from .cpu.native import NativeBackend

    return NativeBackend()


def _numba() -> Backend:
    from .cpu.numba import NumbaBackend

    return NumbaBackend()


def _torch() -> Backend:
    from .cpu.torch import TorchBackend

    return TorchBackend()


class _Known(NamedTuple):
    """A backend by the module that it needs; ``make`` only for the CPU's, GPUs have numbers (`gpu_backend`)."""

    needs: str
    make: Callable[[], Backend] | None = None


# Fastest first: "auto" takes the first one of the CPU that is usable.
_known = {
    "native": _Known("inreach_fast._core", _native),
    "numba": _Known("numba", _numba),
    "torch": _Known("torch", _torch),
    "cuda": _Known("inreach_fast._cuda"),
    "cupy": _Known("cupy"),
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
        plain = chosen.partition(":")[0]
        known = _known.get(plain) if plain == chosen or is_gpu_name(chosen) else None
        if known is None or not _found(known.needs):
            reason = f"needs {known.needs}, which is not installed" if known else "is not a backend"
            usable = ", ".join(available_backends()) or "none"
            raise BackendError(f"backend: {name!r} {reason}; usable here: {usable} (or 'auto')")
        if known.make is None:
            gpu_count()  # raises what keeps the GPUs from being used
            return gpu_backend(chosen)
        if name == "auto":
            self[name] = self[chosen]
        else:
            self[name] = known.make()
        return self[name]


backends = _Backends()


@contextmanager
def registered(backend: Backend, needs: str = "numpy") -> Iterator[None]:
    """Lets callers name another backend while the context lasts."""
    _known[backend.name] = _Known(needs, lambda: backend)
    try:
        yield
    finally:
        del _known[backend.name]
        backends.pop(backend.name, None)


def _usable(name: str) -> bool:
    return _found(_known[name].needs) and (not is_gpu_name(name) or has_gpu())


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
    return tuple(name for name in _known if _usable(name))


def auto_backend() -> str:
    """The name behind "auto" for arrays in the CPU's memory."""
    return next((name for name in _known if not is_gpu_name(name) and _usable(name)), "auto")


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
    for name in filter(is_gpu_name, _known):
        if not _found(_known[name].needs):
            reasons.append(f"{name} needs {_known[name].needs}")
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
