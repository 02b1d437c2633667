"""`inreach add MODEL DIR`: add images to a model, without reading the old ones again."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import Console
from ..executor_options import executor_of, executor_options, told
from ..exit_codes import SUCCESS
from ..options import add_memory_limit, add_skip_bad, common_options
from ..outputs import require_writable
from ..tables import format_number, format_seconds
from .fit import note_skipped

if TYPE_CHECKING:
    from ...estimator import InReaCh
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "add",
        parents=[executor_options(), common_options()],
        help="add images to a model",
        description="Adds the images of a folder to a model: it is then the one that a fit of all images with the "
        "same seed images gives. The old images are not needed. The model must not have been saved with --final.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file; replaced once the new one is complete")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of further training images, sorted or not")
    parser.add_argument("--recursive", action="store_true", help="take sub-folders in too")
    add_skip_bad(parser)
    add_growth_options(parser)
    parser.set_defaults(run=run)


def add_growth_options(parser: argparse.ArgumentParser) -> None:
    """What `add` and `forget` have in common."""
    parser.add_argument("-o", "--output", type=Path, metavar="MODEL", help="where to write the model (MODEL itself)")
    parser.add_argument(
        "--final", action="store_true", help="leave out what only growing further needs, training images too"
    )
    parser.add_argument("--refit", action="store_true", help="fit all images anew, with seed images chosen anew")
    parser.add_argument("--backbone", metavar="NAME", help="the model's backbone, where it is not where it was")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="its weights file, likewise")
    parser.add_argument("--device", metavar="NAME", help="torch device of the backbone (the model's)")
    parser.add_argument("--backend", metavar="NAME", help="kernels: native, numba, torch (the model's)")
    add_memory_limit(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load, add, save."""
    from ...images.reading import list_images

    begin = time.perf_counter()
    model = load_growing(args)
    skipped = len(model.report_["skipped_names"])
    before = model.n_images_
    paths = list_images(args.folder, recursive=args.recursive)
    model.executor = executor_of(args)
    with told(console):
        model.partial_fit(paths, skip_bad=args.skip_bad, refit=args.refit, progress=console.progress)
    console.close()
    note_skipped(console, model.report_["skipped_names"][skipped:])
    return save_grown(args, console, model, begin, f"{model.n_images_ - before} images added")


def load_growing(args: argparse.Namespace) -> InReaCh:
    """The model of the options, ready to change."""
    from ...estimator import InReaCh

    target = args.model if args.output is None else args.output
    require_writable(target)
    model = InReaCh.load(
        args.model, backbone=args.backbone, weights=args.weights, device=args.device, backend=args.backend
    )
    model.memory_limit = args.memory_limit
    model.use_scratch(target.parent)
    return model


def save_grown(args: argparse.Namespace, console: Console, model: InReaCh, begin: float, what: str) -> int:
    """Writes the changed model, and says what came of it."""
    target = args.model if args.output is None else args.output
    model.save(target, final=args.final)
    seconds = time.perf_counter() - begin
    record: dict[str, Any] = {
        "model": target,
        "bytes": target.stat().st_size,
        "seconds": seconds,
        "images": model.n_images_,
        "nominal_patches": len(model.nominal_),
        "threshold": model.threshold_,
        "report": model.report_.as_dict(),
    }
    console.record(record)
    console.summary(
        f"{what}; the model has {model.n_images_} images, {len(model.nominal_):,} nominal patches, threshold "
        f"{format_number(float(model.threshold_))}"
    )
    console.summary(f"{target}: {record['bytes'] / 1e6:.1f} MB, {format_seconds(seconds)}")
    return SUCCESS
