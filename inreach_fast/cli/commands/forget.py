"""`inreach forget MODEL IMAGE...`: take images out of a model again."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import Console
from ..options import common_options
from .add import add_growth_options, load_growing, save_grown

if TYPE_CHECKING:
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "forget",
        parents=[common_options()],
        help="take images out of a model",
        description="Takes training images out of a model, a defect that was found later, say: it is then the one that "
        "a fit of the other images with the same seed images gives. A seed image needs --refit.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file; replaced once the new one is complete")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="names as `inreach audit` and `inreach info --json` show them (the last parts do), or numbers from 0",
    )
    add_growth_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load, forget, save."""
    begin = time.perf_counter()
    model = load_growing(args)
    before = model.n_images_
    names = set(model.image_names_)
    ids = [int(text) if text.isascii() and text.isdigit() and text not in names else text for text in args.images]
    model.forget(ids, refit=args.refit, progress=console.progress)
    console.close()
    return save_grown(args, console, model, begin, f"{before - model.n_images_} images forgotten")
