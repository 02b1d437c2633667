"""Where the images of a fit are processed: in this process, in several on this machine, or on a Ray cluster.

An executor takes a spec (what each worker needs, sent once) and tasks, and yields the results in order; the results do
not depend on the executor. See docs/cluster.md.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..errors import ParameterError
from .processes import ProcessExecutor
from .protocol import Executor, LocalExecutor, Spec
from .ray_cluster import RayExecutor

__all__ = ["Executor", "LocalExecutor", "ProcessExecutor", "RayExecutor", "Spec", "make_executor"]

_MOST_WORKERS: Final = 100_000
_ADDRESS: Final = re.compile(r"(ray://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")
_KINDS: Final = '"local", "processes", "processes:N", "ray", "HOST:PORT", "ray://HOST:PORT" or an Executor'


def make_executor(executor: Any, *, workers: int | None = None) -> Executor:
    """Returns the executor that an argument names.

    Args:
        executor: one of

            - "local": this process;
            - "processes:N": N processes of this machine; "processes": see `ProcessExecutor`;
            - "ray": the Ray cluster in RAY_ADDRESS, or else one that runs on this machine, or else one that is
              started here for each run;
            - "HOST:PORT": the Ray cluster whose head has that address, from one of its machines;
            - "ray://HOST:PORT": a Ray cluster from outside, through its client server;
            - an object with the method `Executor.run`, which is returned.
        workers: number of workers, 1 to 100000; None: the executor's default.

    Raises:
        ParameterError: anything else. BackendError: Ray is named but not installed.
    """
    if not isinstance(executor, str):
        if callable(getattr(executor, "run", None)) and not isinstance(executor, type):
            chosen: Executor = executor
            return chosen
        raise ParameterError(f"executor: expected {_KINDS}, got {type(executor).__name__}")
    count = None if workers is None else _workers(workers, "workers")
    if executor == "local":
        return LocalExecutor()
    name, colon, number = executor.partition(":")
    if name == "processes":
        return ProcessExecutor(_workers(number, "executor") if colon else count)
    if executor == "ray":
        return RayExecutor(workers=count)
    address = _ADDRESS.fullmatch(executor)
    if address and 1 <= int(address.group(3)) <= 65535:
        return RayExecutor(executor, workers=count)
    raise ParameterError(f"executor: expected {_KINDS}, got {executor!r}")


def _workers(value: Any, name: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 1 <= int(value) <= _MOST_WORKERS:
        raise ParameterError(f"{name}: expected a number of workers from 1 to {_MOST_WORKERS}, got {value!r}")
    return int(value)
