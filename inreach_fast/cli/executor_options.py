"""Options that spread a fit over processes or a cluster, and the executor that they mean."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .console import Console
from .options import positive_int

if TYPE_CHECKING:
    from ..executors import Executor


def executor_options() -> argparse.ArgumentParser:
    """`--workers` and `--ray` (a parent parser)."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("where the work is done; no result depends on it")
    group.add_argument("--workers", type=positive_int, metavar="N", help="that many processes, or workers of --ray")
    group.add_argument(
        "--ray",
        metavar="auto|HOST:PORT|ray://HOST:PORT",
        help="on a Ray cluster; auto: RAY_ADDRESS's, one that runs here, or one started for the while",
    )
    return parent


def executor_of(args: argparse.Namespace) -> Executor:
    """The executor that the options ask for.

    Raises:
        ParameterError: no address of a cluster. BackendError: Ray is not installed.
    """
    from ..errors import ParameterError
    from ..executors import make_executor

    if args.ray is None:
        return make_executor("local" if args.workers is None else "processes", workers=args.workers)
    if args.ray == "auto":
        return make_executor("ray", workers=args.workers)
    if ":" not in args.ray or args.ray.partition(":")[0] == "processes":
        raise ParameterError(f"--ray: expected auto, HOST:PORT or ray://HOST:PORT, got {args.ray!r}")
    return make_executor(args.ray, workers=args.workers)


@contextmanager
def told(console: Console) -> Iterator[None]:
    """What the executors log (a cluster joined, a worker lost) as notes of the console."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.note(f"inreach: {record.getMessage()}")

    log, handler = logging.getLogger("inreach_fast.executors"), Notes()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
