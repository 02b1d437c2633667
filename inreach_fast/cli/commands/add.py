"""`inreach add MODEL DIR`: add images to a model, without reading the old ones again."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ...estimator import InReaCh
from .. import options
from ..console import Console, format_number
from ..outputs import require_writable
from .fit import above_words, contents, note_skipped, report_written

DESCRIPTION = """Adds the images of a folder to a model. The result is the model that a fit of all images with the same
seed images gives; the old images are not needed. The model must not have been saved with --final."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    options.add_folder(parser, "additional training images")
    add_growth_options(parser)
    options.add_executor(parser)


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file; replaced when the new one is complete")


def add_growth_options(parser: argparse.ArgumentParser) -> None:
    """What `add` and `forget` have in common."""
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="MODEL", help="model file to write (default: MODEL itself)")
    add("--final", action="store_true", help="omit what only further `add` and `forget` need, training images included")
    add("--refit", action="store_true", help="fit all images again, with a new choice of seed images")
    options.add_model_overrides(parser)
    options.add_memory_limit(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    begin = time.perf_counter()
    model = load_growing(args)
    skipped, before = len(model.report_["skipped_names"]), model.n_images_
    paths = options.images_in(args, args.folder, console)
    model.executor = options.executor_of(args)
    model.partial_fit(paths, skip_bad=args.skip_bad, refit=args.refit, progress=console.progress)
    note_skipped(console, model.report_["skipped_names"][skipped:])
    save_grown(args, console, model, begin, f"{model.n_images_ - before} images added")


def load_growing(args: argparse.Namespace) -> InReaCh:
    """The model that the options name, ready to change."""
    args.output = args.output or args.model
    require_writable(args.output)
    model = InReaCh.load(args.model, **options.model_overrides(args))
    model.memory_limit = args.memory_limit
    model.use_scratch(args.output.parent)
    return model


def save_grown(args: argparse.Namespace, console: Console, model: InReaCh, begin: float, what: str) -> None:
    """Write the changed model and report it."""
    model.save(args.output, final=args.final)
    images, nominal, threshold = model.n_images_, len(model.nominal_), model.threshold_
    counts = {
        "growth_bytes": 0 if args.final else model.growth_bytes,
        "images": images,
        "nominal_patches": nominal,
        "threshold": threshold,
        "report": model.report_.as_dict(),
    }
    words = f"the model has {images} images, {nominal:,} nominal patches, threshold {format_number(threshold)}"
    lines = f"{what}; {words}", above_words(model), *contents(model, args.final)
    report_written(args.output, console, begin, counts, *lines)
