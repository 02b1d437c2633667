"""`inreach plan DIR`: what a fit will take, before it starts."""

from __future__ import annotations

import argparse

from ...estimator import InReaCh
from .. import options
from ..console import Console

DESCRIPTION = """Estimates the memory, disk and time of a fit of a folder, from a measurement of a few of its images.
Nothing is written. Give the options that the fit will have."""


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    options.add_memory_limit(parser)
    options.add_parameters(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    model = InReaCh(memory_limit=args.memory_limit, **options.parameters_of(args))
    plan = model.plan(options.images_in(args, args.folder, console), progress=console.progress)
    console.record({"folder": args.folder, "parameters": model.parameters.as_dict(), **plan.as_dict()})
    console.result(str(plan))
