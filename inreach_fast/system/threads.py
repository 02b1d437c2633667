"""Number of threads of the kernels, one number for kernels and torch, and torch's threads after a fork."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..errors import ForkError, ParameterError

try:
    from .. import _core
except ImportError:
    _core = None  # type: ignore[assignment]

_MAX_THREADS = 1024
_VARIABLE = "INREACH_NUM_THREADS"
_started_in: dict[str, int] = {}  # library -> the process in which it has started threads
_kept = 0  # without the compiled extension: the number, 0 until it is asked for or set


def set_num_threads(n: int) -> None:
    """Sets how many threads the kernels may use, the calling one included; results do not depend on it.

    The start value is the environment variable INREACH_NUM_THREADS, or else the number of processors that this process
    may run on. The numba backend uses the same number; torch has its own `torch.set_num_threads`.

    Raises:
        ParameterError: not a whole number from 1 to 1024.
    """
    global _kept
    _kept = check_threads("set_num_threads", n)
    if _core is not None:
        _core.set_num_threads(_kept)


def check_threads(name: str, n: Any) -> int:
    """``n`` as a number of threads; ParameterError, which begins with ``name``, if it is none."""
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 1 <= int(n) <= _MAX_THREADS:
        raise ParameterError(f"{name}: expected a whole number from 1 to {_MAX_THREADS}, got {n!r}")
    return int(n)


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


@contextmanager
def thread_limit(n: int) -> Iterator[None]:
    """Within it, what this thread calls uses at most ``n`` threads, in the kernels and in torch (if it is imported)."""
    torch = sys.modules.get("torch")
    of_torch = None if torch is None else torch.get_num_threads()
    of_kernels = None if _core is None else _core.limit_threads(n)
    try:
        if of_torch not in (None, n):
            torch.set_num_threads(n)  # type: ignore[union-attr]
        yield
    finally:
        if of_kernels is not None:
            _core.limit_threads(of_kernels)
        if of_torch not in (None, n):
            torch.set_num_threads(of_torch)  # type: ignore[union-attr]


def started_elsewhere(library: str) -> int:
    """To be called before ``library`` works with threads: the process that this one was forked from after it had
    started them there, so that it would wait for threads that are missing here; else 0.
    """
    here = os.getpid()
    process = _started_in.setdefault(library, here)
    return 0 if process == here else process


@cache
def torch_team() -> int:
    """Address of the function by which the OpenMP library that torch computes with runs work on its threads
    (`GOMP_parallel`), for kernels between operations of torch; 0 if it has none. torch must be imported.

    After an operation OpenMP's threads look for more work for milliseconds; other threads would have to share the
    processors with them.
    """
    name = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib"}.get(sys.platform)
    file = getattr(sys.modules["torch"], "__file__", None)
    if name is None or file is None:
        return 0
    try:
        function = ctypes.CDLL(os.path.join(os.path.dirname(file), "lib", name)).GOMP_parallel
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def before_torch(threads: int) -> None:
    """To be called before torch works on the CPU with ``threads`` threads.

    A forked process has the forking thread alone. OpenMP, which torch uses, does not notice and waits for the others.

    Raises:
        ForkError: this process was forked from one in which torch had worked with several threads.
    """
    if threads >= 2 and (process := started_elsewhere("torch")):
        raise ForkError(
            f"torch: this process was forked after torch had worked with several threads in process {process}, "
            'and would wait for them for ever; start processes with multiprocessing.get_context("spawn"), or call '
            "torch.set_num_threads(1) before the fork or here"
        )
