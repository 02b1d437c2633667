"""`inreach watch MODEL DIR`: inspect images as they arrive in a folder."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import ParameterError
from ...estimator import InReaCh
from ...serving import Inspection, Inspector
from ...serving.arrivals import Arrivals
from ...serving.events import events_to, log_event
from ...serving.signals import stop_on_signals
from ...serving.verdicts import NAME, VerdictJournal
from ...serving.watch import Watch
from .. import options
from ..console import Console
from ..exit_codes import INTERRUPTED, SUCCESS
from ..outputs import require_folders, write_array
from ..pictures import Inspected, inspection_picture

DESCRIPTION = f"""Inspects the image files of a folder as they arrive, and those that are there already. Each is
reported once, also when the process is killed and started again: as a line of JSON in {NAME} of the output folder, with
the fields of `inreach predict` and the file's version, and then on stdout. A file that cannot be inspected has a line
with `error`. Events (ready, behind, incomplete, ...) are lines of JSON on stderr. Ctrl-C or SIGTERM end it when the
images in work are done."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model file, written by `inreach fit`")
    add("folder", type=Path, metavar="DIR", help="folder in which images arrive")
    words = f"folder of {NAME}, which says what has been reported (default: DIR.verdicts, beside DIR)"
    add("--out", type=Path, metavar="DIR", help=words)
    add("--overlays", type=Path, metavar="DIR", help="write heat-map pictures as PNG (default: none)")
    add("--recursive", action="store_true", help="include sub-folders")
    add("--once", action="store_true", help="end when the files that are there have been dealt with")
    words = "seconds between looks at the folder (default: 0.5)"
    add("--poll", type=options.number_from_0, default=0.5, metavar="S").help = words
    words = "seconds that a file's size and time must not have changed (default: 0.5)"
    add("--settle", type=options.number_from_0, default=0.5, metavar="S").help = words
    words = "seconds after which a file that is not complete is logged and left alone (default: 60)"
    add("--patience", type=options.number_from_0, default=60.0, metavar="S").help = words
    words = "files that may wait before `behind` is logged, and that a look takes (default: 256)"
    add("--queue", type=options.positive_int, default=256, metavar="N", help=words)
    words = "images that are read and scored at the same time (default: 2)"
    add("--workers", type=options.positive_int, default=2, metavar="N", help=words)
    options.add_limits(parser)
    options.add_model_overrides(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    arrivals = Arrivals(args.folder, recursive=args.recursive, settle=args.settle, patience=args.patience)
    folder = args.folder.resolve()
    out = folder.with_name(f"{folder.name}.verdicts") if args.out is None else args.out
    for option, written in (("--out", out), ("--overlays", args.overlays)):
        _require_apart(option, written, folder, args.recursive)
    require_folders(args.overlays)
    level = logging.WARNING if args.quiet else logging.INFO
    # stdout has what was inspected.
    with stop_on_signals() as stop, events_to(level=level, without="inspected"), VerdictJournal(out) as journal:
        log_event("started", folder=str(folder), journal=str(journal.path), reported_before=len(journal.done))
        model = InReaCh.load(args.model, **options.model_overrides(args))
        threads = options.prediction_threads(args)
        with Inspector(model, threshold=args.threshold, budget_ms=args.budget_ms, threads=threads) as inspector:
            watch = Watch(
                arrivals,
                inspector,
                journal,
                workers=args.workers,
                queue=args.queue,
                poll=args.poll,
                finish=None if args.overlays is None else _overlay_writer(args.overlays),
                report=console.row,
            )
            counts = watch.run(stop, once=args.once)
        log_event("stopped", **vars(counts))
        return INTERRUPTED if stop.interrupted else SUCCESS


def _require_apart(option: str, written: Path | None, folder: Path, recursive: bool) -> None:
    """What is written must not arrive in the folder that is watched."""
    if written is None:
        return
    place = written.resolve()
    if place == folder or (recursive and folder in place.parents):
        raise ParameterError(f"{option}: {written} is in the folder that is watched; give one outside of it")


def _overlay_writer(folder: Path) -> Callable[[Inspection], dict[str, Any]]:
    def write(inspection: Inspection) -> dict[str, Any]:
        assert inspection.image is not None
        assert inspection.anomaly_map is not None
        shown = Inspected(
            inspection.name,
            inspection.image,
            inspection.anomaly_map,
            inspection.score,
            inspection.threshold,
            inspection.is_anomalous,
        )
        target = folder / f"{inspection.name}.png"  # its whole name: part.png and part.jpg may both arrive
        write_array(target, inspection_picture(shown))
        return {"outputs": {"overlay": str(target)}}

    return write
