"""`inreach fit DIR -o MODEL`: learn what is nominal from a folder of unsorted images."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import NoChannelsError, NonFiniteError
from ...estimator import InReaCh
from ...fit.judging import named
from .. import options
from ..console import Console, format_number, format_seconds
from ..outputs import require_writable

DESCRIPTION = """Fits a model to a folder of images. The folder may hold defective images; nobody has to sort it. The
defaults are those of the default preset."""


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, metavar="MODEL", help="model file to write")
    words = "omit what only `add` and `forget` need, training images included, and the thumbnails unless --thumbnails"
    add("--final", action="store_true", help=words)
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
        model.save(args.output, final=args.final, thumbnails=getattr(args, "thumbnails", None))
    except (NoChannelsError, NonFiniteError):
        if (spool / "journal").exists():
            console.note(f"inreach: what was described is kept in {spool}; a fit of the same images uses it")
        raise
    except BaseException:
        if (spool / "journal").exists():
            console.note(f"inreach: finished work is kept in {spool}; continue with --resume")
        raise
    model.remove_spool()
    facts = fit_record(model) | {"growth_bytes": 0 if args.final else model.growth_bytes}
    report_written(
        args.output,
        console,
        begin,
        facts,
        *_summary(model),
        *contents(model, args.final, getattr(args, "thumbnails", False)),
    )


def _summary(model: InReaCh) -> Iterator[str]:
    height, width = model.grid_
    report, nominal = model.report_, len(model.nominal_)
    skipped = f"; {report['skipped']} unreadable, passed over" if report["skipped"] else ""
    copied = f"; {report['copies']} copies of others" if report["copies"] else ""
    network = f"{model.backbone.name} by {model.fitted_runtime}"
    yield f"backbone {network}, {model.n_images_} images of {height}x{width} patches{copied}{skipped}"
    share, threshold = f"{nominal / report['patches']:.1%}", format_number(model.threshold_)
    yield f"nominal patches: {nominal:,} of {report['patches']:,} ({share}); threshold {threshold}"
    yield above_words(model)
    yield from evidence_words(model)
    if seconds := model.report_.seconds:
        yield "stages: " + ", ".join(f"{name} {format_seconds(value)}" for name, value in seconds.items())


def above_words(model: InReaCh) -> str:
    """How many of the scored training images lie above the threshold that the fit chose, and which."""
    above, scored = model.report_["above_threshold"], model.report_["threshold_images"]
    if not above:
        return f"training images above the threshold: none of the {scored} that were scored"
    return f"training images above the threshold, of {scored} that were scored: {named(above)}"


def evidence_words(model: InReaCh) -> Iterator[str]:
    """What the fit estimated of the folder and of its threshold, with threshold_rule="evidence"."""
    share, rate = (model.report_.get(name) for name in ("anomalous_share", "expected_false_alarms"))
    if share is not None:
        interval = "{level:.0%} interval: {low:.1%} to {high:.1%}".format(**share)
        yield f"anomalous training images, estimated: {share['estimate']:.1%} ({interval})"
    if rate is not None:
        yield f"false alarms to be expected at the fit's threshold: {rate:.1%} of good images"


def contents(model: InReaCh, final: bool, thumbnails: bool = False) -> Iterator[str]:
    """What is in the model file that only growing needs; ``thumbnails``: whether a final model has them."""
    if final:
        held = "only thumbnails of the training images" if thumbnails else "no training images"
        yield f"the file holds {held}; `add` and `forget` need a model saved without --final"
    elif model.growth_bytes:
        size = model.growth_bytes / 1e6
        yield (
            f"{size:.1f} MB of the file, the training images as the network sees them among them, are for `add` and "
            "`forget` only; --final leaves them out"
        )


def report_written(path: Path, console: Console, begin: float, facts: Mapping[str, Any], *summary: str) -> None:
    """Report a model file: these facts as JSON, or these lines, and the file's size and the seconds since `begin`."""
    size, seconds = path.stat().st_size, time.perf_counter() - begin
    console.record({"model": path, "bytes": size, "seconds": seconds, **facts})
    for line in (*summary, f"{path}: {size / 1e6:.1f} MB, {format_seconds(seconds)}"):
        console.summary(line)


def fit_folder(args: argparse.Namespace, console: Console, **spooling: Any) -> InReaCh:
    """The model fitted to the folder of the options; reports the images that were skipped."""
    limit = getattr(args, "memory_limit", None)
    model = InReaCh(memory_limit=limit, executor=options.executor_of(args), **options.parameters_of(args))
    paths = options.images_in(args, args.folder, console)
    model.fit(paths, skip_bad=args.skip_bad, progress=console.progress, **spooling)
    note_skipped(console, model.report_["skipped_names"])
    return model


def note_skipped(console: Console, names: Iterable[str]) -> None:
    for name in names:
        console.note(f"inreach: passed over: {name}: cannot be read")


def fit_record(model: InReaCh) -> dict[str, Any]:
    """The result of a fit, as JSON."""
    return {
        "backbone": model.backbone.name,
        "runtime": model.fitted_runtime,
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
