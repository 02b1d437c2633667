"""`inreach threshold MODEL [VALUE]`: show or set the score above which images are anomalous."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ...estimator import InReaCh
from ...fit.judging import threshold_of
from .. import options
from ..console import Console, format_number
from ..outputs import require_writable

DESCRIPTION = """Shows a model's threshold, or sets it: predictions call an image anomalous if its score is higher. The
value is a finite number of at least 0, or "auto" for the value that the fit's rule gives. `add` and `forget` choose the
threshold anew."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model file; with VALUE, replaced when the new one is complete")
    add("value", nargs="?", type=_value, metavar="VALUE", help='new threshold, or "auto"; without one it is shown')
    add("-o", "--output", type=Path, metavar="MODEL", help="model file to write (default: MODEL itself)")


def run(args: argparse.Namespace, console: Console) -> None:
    output = args.output or args.model
    if args.value is not None:
        require_writable(output)
    model = InReaCh.load(args.model)
    before, scores = model.threshold_, model.threshold_scores_
    chosen = threshold_of(scores, model.parameters)
    if args.value is not None:
        model.threshold_ = chosen if args.value == "auto" else args.value
    if args.value is not None or args.output is not None:
        model.save(output)
    now = model.threshold_
    above = int(np.count_nonzero(scores > now))
    console.record(
        {
            "model": output,
            "threshold": now,
            "before": before,
            "chosen_by_fit": chosen,
            "scored_images": len(scores),
            "scored_images_above": above,
        }
    )
    was = "" if now == before else f" (was {format_number(before)})"
    console.result(f"{output}: threshold {format_number(now)}{was}; the fit's rule gives {format_number(chosen)}")
    console.summary(f"{above} of the {len(scores)} scored training images lie above it")


def _value(text: str) -> float | str:
    """argparse type: a finite number of at least 0, or "auto"."""
    return text if text == "auto" else options.number_from_0(text)
