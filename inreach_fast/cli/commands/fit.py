"""`inreach fit DIR -o MODEL`: learn what is nominal from a folder that nobody sorted."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import Console
from ..executor_options import executor_of, executor_options, told
from ..exit_codes import SUCCESS
from ..options import add_memory_limit, common_options, estimator_options, parameters_of
from ..outputs import require_writable
from ..tables import format_number, format_seconds

if TYPE_CHECKING:
    from ...estimator import InReaCh
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "fit",
        parents=[estimator_options(), executor_options(), common_options()],
        help="learn from a folder of images",
        description="Fits a model to a folder of images. The folder may hold defective images: nobody needs "
        "to sort it. Defaults in brackets are those of the default preset.",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL", help="model file to write")
    parser.add_argument(
        "--final", action="store_true", help="leave out what only `inreach add` and `forget` need, training images too"
    )
    parser.add_argument(
        "--spool", type=Path, metavar="DIR", help="where an unfinished fit lies, to be resumed (MODEL.spool)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the spool of a fit that did not come to its end"
    )
    add_memory_limit(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Fit, save, and say what came of it."""
    require_writable(args.output)
    begin = time.perf_counter()
    spool = args.spool if args.spool is not None else args.output.with_name(args.output.name + ".spool")
    if args.resume and not (spool / "journal").exists():
        console.note(f"inreach: no unfinished fit lies in {spool}; this one begins afresh")
    try:
        model = fit_folder(args, console, spool, args.resume)
        model.save(args.output, final=args.final)
    except BaseException:
        console.close()
        if (spool / "journal").exists():
            console.note(f"inreach: what was done is kept in {spool}")
        raise
    model.remove_spool()
    seconds = time.perf_counter() - begin
    record = {
        "model": args.output,
        "bytes": args.output.stat().st_size,
        "seconds": seconds,
        **fit_record(model),
    }
    console.record(record)
    for line in fit_lines(model):
        console.summary(line)
    console.summary(f"{args.output}: {record['bytes'] / 1e6:.1f} MB, {format_seconds(seconds)}")
    return SUCCESS


def fit_folder(args: argparse.Namespace, console: Console, spool: Path | None = None, resume: bool = False) -> InReaCh:
    """The model fitted to the folder of the options; says which images were passed over. A spool stays."""
    from ...estimator import InReaCh
    from ...images.reading import list_images

    model = InReaCh(memory_limit=getattr(args, "memory_limit", None), executor=executor_of(args), **parameters_of(args))
    paths = list_images(args.folder, recursive=args.recursive)
    with told(console):
        model.fit(
            paths,
            skip_bad=args.skip_bad,
            spool=spool,
            resume=resume,
            keep_spool=spool is not None,
            progress=console.progress,
        )
    console.close()
    note_skipped(console, model.report_["skipped_names"])
    return model


def note_skipped(console: Console, names: list[str]) -> None:
    """Says which images were passed over."""
    for name in names:
        console.note(f"inreach: passed over: {name}: cannot be read")


def fit_record(model: InReaCh) -> dict[str, Any]:
    """What a fit came to, as JSON."""
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


def fit_lines(model: InReaCh) -> list[str]:
    """What a fit came to, in words."""
    height, width = model.grid_
    patches = model.n_images_ * height * width
    nominal = len(model.nominal_)
    stages = ", ".join(f"{name} {format_seconds(value)}" for name, value in model.report_.seconds.items())
    skipped = model.report_["skipped"]
    return [
        f"backbone {model.backbone.name}, {model.n_images_} images of {height}x{width} patches"
        + (f"; {skipped} unreadable, passed over" if skipped else ""),
        f"nominal patches: {nominal:,} of {patches:,} ({nominal / patches:.1%}); "
        f"threshold {format_number(float(model.threshold_))}",
        *([f"stages: {stages}"] if stages else []),
    ]
