"""Number of threads of the kernels."""

from __future__ import annotations

import os
from typing import Any

from .errors import ParameterError

try:
    from . import _core
except ImportError:
    _core = None  # type: ignore[assignment]

_MAX_THREADS = 1024
_VARIABLE = "INREACH_NUM_THREADS"
_kept = 0  # without the compiled extension: the number, 0 until it is asked for or set


def set_num_threads(n: int) -> None:
    """Sets how many threads the kernels may use, the calling one included; results do not depend on it.

    The start value is the environment variable INREACH_NUM_THREADS, or else the number of processors that this process
    may run on. The numba backend uses the same number; torch has its own `torch.set_num_threads`.

    Raises:
        ParameterError: not a whole number from 1 to 1024.
    """
    global _kept
    count: Any = n
    if isinstance(count, bool) or not hasattr(count, "__index__") or not 1 <= int(count) <= _MAX_THREADS:
        raise ParameterError(f"set_num_threads: expected a whole number from 1 to {_MAX_THREADS}, got {n!r}")
    _kept = int(count)
    if _core is not None:
        _core.set_num_threads(_kept)


def get_num_threads() -> int:
    """Number of threads that the kernels may use.

    Raises:
        ParameterError: INREACH_NUM_THREADS is set to something other than a whole number from 1 to 1024.
    """
    global _kept
    if _core is not None:
        try:
            return int(_core.num_threads())
        except ValueError as error:
            raise ParameterError(str(error)) from error
    text = os.environ.get(_VARIABLE, "")
    if _kept == 0 and not text:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        _kept = min(processors, _MAX_THREADS)
    elif _kept == 0:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_THREADS):
            raise ParameterError(f"{_VARIABLE}: expected a whole number from 1 to {_MAX_THREADS}, got {text!r}")
        _kept = int(text)
    return _kept
