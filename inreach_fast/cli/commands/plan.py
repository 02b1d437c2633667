"""`inreach plan DIR`: what a fit will take, before it is begun."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..console import Console
from ..exit_codes import SUCCESS
from ..options import add_memory_limit, common_options, estimator_options, parameters_of

if TYPE_CHECKING:
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "plan",
        parents=[estimator_options(), common_options()],
        help="what a fit will take: memory, disk, time",
        description="Says how much memory, disk and time a fit of a folder will take, from a measurement of a few of "
        "its images. Nothing is written. Give the options that the fit will have.",
    )
    add_memory_limit(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Measure a few images, and say what follows."""
    from ...estimator import InReaCh
    from ...images.reading import list_images

    model = InReaCh(memory_limit=args.memory_limit, **parameters_of(args))
    plan = model.plan(list_images(args.folder, recursive=args.recursive), progress=console.progress)
    console.close()
    console.record({"folder": args.folder, "parameters": model.parameters.as_dict(), **plan.as_dict()})
    console.result(str(plan))
    return SUCCESS
