"""Number of threads of the compiled engine."""

from __future__ import annotations

from typing import Any

from .errors import ParameterError

_MAX_THREADS = 1024


def set_num_threads(n: int) -> None:
    """Threads that the kernels may use, the calling one counted; results do not depend on it.

    The start value is the environment's INREACH_NUM_THREADS, or else the processors this process may run on.
    The numba backend follows; torch has its own `torch.set_num_threads`.

    Raises:
        ParameterError: not a whole number from 1 to 1024.
    """
    count: Any = n
    if isinstance(count, bool) or not hasattr(count, "__index__") or not 1 <= int(count) <= _MAX_THREADS:
        raise ParameterError(f"set_num_threads: expected a whole number from 1 to {_MAX_THREADS}, got {n!r}")
    from . import _core

    _core.set_num_threads(int(count))


def get_num_threads() -> int:
    """Threads that the kernels may use.

    Raises:
        ParameterError: INREACH_NUM_THREADS is set to something that is no whole number from 1 to 1024.
    """
    from . import _core

    try:
        return int(_core.num_threads())
    except ValueError as error:
        raise ParameterError(str(error)) from error
