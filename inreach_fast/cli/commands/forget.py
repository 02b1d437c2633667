"""`inreach forget MODEL IMAGE...`: remove images from a model."""

from __future__ import annotations

import argparse
import time

from ..console import Console
from .add import add_growth_options, add_model_argument, load_growing, save_grown

DESCRIPTION = """Removes training images from a model, for example a defect that was found later. The result is the
model that a fit of the remaining images with the same seed images gives. Removing a seed image needs --refit."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    words = """names as `inreach audit` and `inreach info --json` print them (the end of a path suffices), or numbers
        from 0"""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=words)
    add_growth_options(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    begin = time.perf_counter()
    model = load_growing(args)
    before, names = model.n_images_, set(model.image_names_)
    ids = [int(text) if text.isascii() and text.isdigit() and text not in names else text for text in args.images]
    model.forget(ids, refit=args.refit, progress=console.progress)
    save_grown(args, console, model, begin, f"{before - model.n_images_} images forgotten")
