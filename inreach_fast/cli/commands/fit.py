"""`inreach fit DIR -o MODEL`: learn what is nominal from a folder of unsorted images."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...estimator import InReaCh
from ...images.reading import list_images
from .. import options
from ..console import Console
from ..outputs import require_writable
from ..tables import format_file, format_number, format_seconds

DESCRIPTION = """Fits a model to a folder of images. The folder may hold defective images; nobody has to sort it. The
defaults are those of the default preset."""


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, metavar="MODEL", help="model file to write")
    add("--final", action="store_true", help="omit what only `add` and `forget` need, training images included")
    add("--spool", type=Path, metavar="DIR", help="folder for the state of an unfinished fit (default: MODEL.spool)")
    add("--resume", action="store_true", help="continue an unfinished fit from its spool")
    options.add_memory_limit(parser)
    options.add_parameters(parser)
    options.add_executor(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    require_writable(args.output)
    begin = time.perf_counter()
    spool = args.spool if args.spool is not None else args.output.with_name(args.output.name + ".spool")
    if args.resume and not (spool / "journal").exists():
        console.note(f"inreach: {spool}: no unfinished fit is here; starting a new one")
    try:
        model = fit_folder(args, console, spool=spool, resume=args.resume, keep_spool=True)
        model.save(args.output, final=args.final)
    except BaseException:
        if (spool / "journal").exists():
            console.note(f"inreach: finished work is kept in {spool}; continue with --resume")
        raise
    model.remove_spool()
    seconds = time.perf_counter() - begin
    written = {"model": args.output, "bytes": args.output.stat().st_size, "seconds": seconds}
    console.record(written | fit_record(model))
    height, width = model.grid_
    nominal, patches = len(model.nominal_), model.n_images_ * height * width
    stages = ", ".join(f"{name} {format_seconds(value)}" for name, value in model.report_.seconds.items())
    skipped = model.report_["skipped"]
    console.summary(
        f"backbone {model.backbone.name}, {model.n_images_} images of {height}x{width} patches"
        + (f"; {skipped} unreadable, passed over" if skipped else "")
    )
    console.summary(
        f"nominal patches: {nominal:,} of {patches:,} ({nominal / patches:.1%}); "
        f"threshold {format_number(model.threshold_)}"
    )
    if stages:
        console.summary(f"stages: {stages}")
    console.summary(format_file(args.output, seconds))


def fit_folder(args: argparse.Namespace, console: Console, **spooling: Any) -> InReaCh:
    """The model fitted to the folder of the options; reports the images that were skipped."""
    limit = getattr(args, "memory_limit", None)
    model = InReaCh(memory_limit=limit, executor=options.executor_of(args), **options.parameters_of(args))
    paths = list_images(args.folder, recursive=args.recursive)
    model.fit(paths, skip_bad=args.skip_bad, progress=console.progress, **spooling)
    note_skipped(console, model.report_["skipped_names"])
    return model


def note_skipped(console: Console, names: Iterable[str]) -> None:
    """Report the images that were skipped."""
    for name in names:
        console.note(f"inreach: passed over: {name}: cannot be read")


def fit_record(model: InReaCh) -> dict[str, Any]:
    """The result of a fit, as JSON."""
    return {
        "backbone": model.backbone.name,
        "parameters": model.parameters.as_dict(),
        "threshold": model.threshold_,
        "images": model.n_images_,
        "skipped": model.report_["skipped"],
        "grid": list(model.grid_),
        "nominal_patches": len(model.nominal_),
        "positions": model.positions_,
        "transpose_score": model.transpose_score_,
        "report": model.report_.as_dict(),
    }
