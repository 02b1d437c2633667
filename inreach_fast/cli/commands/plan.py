"""`inreach plan DIR`: what a fit, or adding images to a model, will take, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ...errors import ParameterError
from ...estimator import InReaCh
from .. import options
from ..console import Console

DESCRIPTION = """Estimates the memory, disk and time of a fit of a folder, from a measurement of a few of its images.
Nothing is written. Give the options that the fit will have. With --add the estimate is of `inreach add MODEL DIR`, with
the parameters of the model."""


_OF_A_MODEL: Final = ("backbone", "weights", "device", "backend")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    words = "plan adding the folder's images to this model (default: a fit of the folder)"
    parser.add_argument("--add", type=Path, metavar="MODEL", help=words)
    options.add_memory_limit(parser)
    options.add_parameters(parser)
    options.add_executor(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    paths = options.images_in(args, args.folder, console)
    executor, chosen = options.executor_of(args), options.parameters_of(args)
    if args.add is None:
        model = InReaCh(memory_limit=args.memory_limit, executor=executor, **chosen)
        plan = model.plan(paths, progress=console.progress)
    else:
        overrides = {name: chosen.pop(name) for name in _OF_A_MODEL if name in chosen}
        if chosen:
            raise ParameterError(f"{', '.join(chosen)}: with --add they are the model's; leave them out")
        model = InReaCh.load(args.add, **overrides)
        model.memory_limit, model.executor = args.memory_limit, executor
        plan = model.plan_partial_fit(paths, progress=console.progress)
    console.record({"folder": args.folder, "parameters": model.parameters.as_dict(), **plan.as_dict()})
    console.result(str(plan))
