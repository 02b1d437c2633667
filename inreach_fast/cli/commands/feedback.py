"""`inreach feedback MODEL`: list or undo what was accepted and rejected; and what `accept` and `reject` share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ...estimator import InReaCh
from ...method.feedback import Feedback
from .. import options
from ..console import Console, format_number, format_table
from ..outputs import require_writable

DESCRIPTION = """Lists the regions that `inreach accept` and `inreach reject` gave to a model, with their numbers, or
takes one of them back."""

_KINDS = {"accept": "accepted", "reject": "rejected"}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add = parser.add_argument
    add(
        "--undo",
        type=options.positive_int,
        metavar="ID",
        help="take back the feedback of this number (default: list all)",
    )


def run(args: argparse.Namespace, console: Console) -> None:
    output = args.output or args.model
    if args.undo is not None:
        require_writable(output)
    model = InReaCh.load(args.model)
    undone = None if args.undo is None else model.undo_feedback(args.undo)
    if undone is not None or args.output is not None:
        model.save(output)
    entries = model.feedback_
    record: dict[str, Any] = {"model": output, "feedback": [as_record(entry) for entry in entries]}
    if undone is not None:
        record["undone"] = as_record(undone)
        console.summary(f"{output}: taken back: {undone!r}")
    console.record(record)
    rows = [[entry.number, _KINDS[entry.kind], entry.image, _where(entry), len(entry.patches)] for entry in entries]
    if rows:
        console.result(format_table(["id", "", "image", "x,y,width,height", "patches"], rows))
    else:
        console.result(f"{output}: no feedback")


def add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model file; replaced when the new one is complete")
    add("-o", "--output", type=Path, metavar="MODEL", help="model file to write (default: MODEL itself)")


def add_giving_options(parser: argparse.ArgumentParser) -> None:
    """The options of `accept` and `reject`."""
    add_model(parser)
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="image file")
    words = "part of the image: a box in its pixels, or a mask of its size, white inside (default: the whole image)"
    add("--region", type=region, metavar="X,Y,WIDTH,HEIGHT|FILE", help=words)
    options.add_model_overrides(parser)


def give(args: argparse.Namespace, console: Console, kind: str) -> None:
    """Run `accept` or `reject`."""
    output = args.output or args.model
    require_writable(output)
    model = InReaCh.load(args.model, **options.model_overrides(args))
    before = model.predict(args.image)
    entry = getattr(model, kind)(args.image, args.region)
    after = model.predict(args.image)
    model.save(output)
    scores = {"score_before": float(before.score), "score": float(after.score), "threshold": model.threshold_}
    console.record({"model": output, **as_record(entry), **scores, "is_anomalous": bool(after.is_anomalous)})
    words = f"{_KINDS[kind]} as number {entry.number}: {len(entry.patches)} patches of {entry.image}, {_where(entry)}"
    console.result(f"{output}: {words}")
    was, now, limit = (format_number(scores[name]) for name in ("score_before", "score", "threshold"))
    verdict = "anomalous" if after.is_anomalous else "nominal"
    console.summary(f"the image scores {now} (before: {was}), {verdict} by the threshold {limit}")


def as_record(entry: Feedback) -> dict[str, Any]:
    """JSON-able."""
    return {
        "id": entry.number,
        "kind": entry.kind,
        "image": entry.image,
        "region": None if entry.region is None else list(entry.region),
        "patches": entry.patches,
    }


def _where(entry: Feedback) -> str:
    return "the whole image" if entry.region is None else ",".join(map(str, entry.region))


def region(text: str) -> tuple[int, ...] | Path:
    """argparse type: `x,y,width,height`, or the name of a mask file."""
    numbers = re.fullmatch(r"\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*", text)
    return Path(text) if numbers is None else tuple(map(int, numbers.groups()))
