"""`inreach audit DIR`: where the defects in a training folder are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options, estimator_options, positive_int
from ..outputs import OutputNames, require_folder, require_writable, write_csv, write_json, write_png
from ..tables import format_number, format_table
from .fit import fit_folder, fit_record

if TYPE_CHECKING:
    from ...estimator import InReaCh
    from . import Subparsers

_COLUMNS = (
    "rank", "file", "score", "threshold", "is_anomalous", "rejected_share", "rejected_rank", "rejected_patches",
    "patches",
)  # fmt: skip


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "audit", parents=[estimator_options(), common_options()], help="find the defects in a training folder",
        description="Fits to a folder and ranks its own images: by their score against the nominal patches of the "
        "other images (leave-one-image-out), and by the share of their patches that joined no channel.",
    )  # fmt: skip
    add = parser.add_argument
    add("--sort", choices=("score", "rejected"), default="score", help="what the ranking goes by (score)")
    add("--top", type=positive_int, default=20, metavar="N", help="images shown on the terminal (20)")
    add("--csv", type=Path, metavar="FILE", help="write the whole ranking as CSV")
    add("--json-file", type=Path, metavar="FILE", help="write the whole ranking as JSON (--json prints it)")
    add("--overlays", type=Path, metavar="DIR", help="write a heat-map picture of each of the top N images")
    add("-o", "--output", type=Path, metavar="MODEL", help="keep the fitted model too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Fit, score the training images, rank them."""
    for target in (args.csv, args.json_file, args.output):
        require_writable(target)
    require_folder(args.overlays)
    model, paths = fit_folder(args, console)
    if args.output is not None:
        model.save(args.output)
    rows, maps = rank(model, paths, args.sort)
    record = {"folder": args.folder, "sort": args.sort, **fit_record(model), "ranking": rows}
    if args.csv is not None:
        write_csv(args.csv, _COLUMNS, rows)
    if args.json_file is not None:
        write_json(args.json_file, record)
    if args.overlays is not None:
        _write_overlays(args, model, rows[: args.top], maps)
    console.record(record)
    shown = [
        [
            row["rank"], row["file"], row["score"], "ANOMALOUS" if row["is_anomalous"] else "",
            f"{row['rejected_share']:.1%}", row["rejected_rank"],
        ]
        for row in rows[: args.top]
    ]  # fmt: skip
    console.result(format_table(["rank", "file", "score", "verdict", "rejected", "rejected rank"], shown))
    flagged = sum(row["is_anomalous"] for row in rows)
    console.summary(
        f"\n{flagged} of {len(rows)} training images score above the threshold {format_number(float(model.threshold_))}"
    )
    return SUCCESS
