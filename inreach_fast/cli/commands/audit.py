"""`inreach audit DIR`: find the defects in a training folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ParameterError
from ...estimator import InReaCh
from ...images.reading import read_image
from ...parameters import Parameters
from .. import options
from ..console import Console, format_number, format_table
from ..outputs import OutputNames, require_folders, require_writable, write_array, write_csv, write_json
from ..pictures import Inspected, inspection_picture
from .fit import evidence_words, fit_folder, fit_record

DESCRIPTION = """Fits to a folder and ranks its own images: by their score against the nominal patches of the other
images (leave-one-image-out). With channels (--preset channels, paper or reference) also by the share of their patches
that joined none; the default preset keeps every patch."""


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    add = parser.add_argument
    words = "order of the ranking; rejected needs channels, as of --preset channels (default: score)"
    add("--sort", choices=("score", "rejected"), default="score", help=words)
    add("--top", type=options.positive_int, default=20, metavar="N", help="number of images in the table (default: 20)")
    add("--csv", type=Path, metavar="FILE", help="write the whole ranking as CSV (default: not written)")
    add("--json-file", type=Path, metavar="FILE", help="write the whole ranking as JSON (default: not written)")
    add("--overlays", type=Path, metavar="DIR", help="write a heat map of each of the top N images (default: none)")
    add("-o", "--output", type=Path, metavar="MODEL", help="write the fitted model (default: not written)")
    options.add_parameters(parser)
    options.add_executor(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    require_writable(args.csv, args.json_file, args.output)
    require_folders(args.overlays)
    given = {name: value for name, value in options.parameters_of(args).items() if name != "roi"}
    if args.sort == "rejected" and Parameters.from_preset(**given).association == "all":
        raise ParameterError(
            '--sort: "rejected" counts patches that joined no channel, and association="all" keeps every patch; give '
            "--preset channels, or sort by score"
        )
    model = fit_folder(args, console)
    if args.output is not None:
        model.save(args.output)
    rows = rank(model, args.sort, console)
    top = rows[: args.top]
    record = {"folder": args.folder, "sort": args.sort, **fit_record(model), "ranking": rows}
    if args.csv is not None:
        write_csv(args.csv, [name for name in rows[0] if name != "image"], rows)
    if args.json_file is not None:
        write_json(args.json_file, record)
    if args.overlays is not None:
        names = OutputNames([Path(row["file"]) for row in top])
        for number, row in enumerate(top, start=1):
            path = Path(row["file"])
            image = read_image(path, model.pixel_rule)
            anomaly_map = model.training_map(row["image"], image)
            inspected = Inspected(str(path), image, anomaly_map, row["score"], row["threshold"], row["is_anomalous"])
            remark = f"rank {row['rank']} of {len(rows)}"
            if "rejected_share" in row:
                remark += f", {row['rejected_share']:.1%} of its patches rejected"
            write_array(names.path(args.overlays, path, ".png"), inspection_picture(inspected, remark=remark))
            console.progress("pictures", number, len(top))
    console.record(record)
    columns = ["rank", "file", "score", "verdict"]
    shown = [[row["rank"], row["file"], row["score"], "ANOMALOUS" if row["is_anomalous"] else ""] for row in top]
    if "rejected_share" in rows[0]:
        columns += ["rejected", "rejected rank"]
        for line, row in zip(shown, top, strict=True):
            line += [f"{row['rejected_share']:.1%}", row["rejected_rank"]]
    console.result(format_table(columns, shown))
    anomalous, limit = sum(row["is_anomalous"] for row in rows), format_number(model.threshold_)
    console.summary(f"\n{anomalous} of {len(rows)} training images score above the threshold {limit}")
    for words in evidence_words(model):
        console.summary(words)


def rank(model: InReaCh, by: str, console: Console) -> list[dict[str, Any]]:
    """Every image that the fit read, the most suspect first by "score" or by share of "rejected" patches.

    Rejected patches joined no channel; association="all" rejects none, and its rows do not count them.
    """
    scores = model.training_scores(progress=console.progress)
    rows: list[dict[str, Any]] = [
        {
            "rank": 0,  # set below, as rejected_rank
            "file": name,
            "score": float(scores[i]),
            "threshold": float(model.threshold_),
            "is_anomalous": bool(scores[i] > model.threshold_),
            "image": i,
        }
        for i, name in enumerate(model.image_names_)
    ]
    places = {"rank": "score" if by == "score" else "rejected_share"}
    if model.parameters.association != "all":
        places = {"rejected_rank": "rejected_share", **places}
        patches = model.report_["patches"] // len(np.unique(model.originals_))
        rejected = patches - model.nominal_.counts_by_image(model.n_images_)[model.originals_]
        for row, count in zip(rows, rejected.tolist(), strict=True):
            row |= {
                "rejected_share": count / patches,
                "rejected_rank": 0,
                "rejected_patches": count,
                "patches": patches,
            }
    ordered = rows
    for place, key in places.items():
        ordered = sorted(rows, key=lambda row: -row[key])  # stable: ties keep the folder's order
        for number, row in enumerate(ordered, start=1):
            row[place] = number
    return ordered
