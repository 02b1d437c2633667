"""`inreach audit DIR`: where the defects in a training folder are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...array_types import FloatArray, UInt8Array
from ..console import Console
from ..executor_options import executor_options
from ..exit_codes import SUCCESS
from ..options import common_options, estimator_options, positive_int
from ..outputs import OutputNames, require_folder, require_writable, write_csv, write_json, write_png
from ..tables import format_number, format_table
from .fit import fit_folder, fit_record

if TYPE_CHECKING:
    from ...estimator import InReaCh
    from . import Subparsers

_COLUMNS = (
    "rank",
    "file",
    "score",
    "threshold",
    "is_anomalous",
    "rejected_share",
    "rejected_rank",
    "rejected_patches",
    "patches",
)


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "audit",
        parents=[estimator_options(), executor_options(), common_options()],
        help="find the defects in a training folder",
        description="Fits to a folder and ranks its own images: by their score against the nominal patches of "
        "the other images (leave-one-image-out), and by the share of their patches that joined no channel.",
    )
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
    model = fit_folder(args, console)
    if args.output is not None:
        model.save(args.output)
    rows = rank(model, args.sort, console)
    record = {"folder": args.folder, "sort": args.sort, **fit_record(model), "ranking": rows}
    if args.csv is not None:
        write_csv(args.csv, _COLUMNS, rows)
    if args.json_file is not None:
        write_json(args.json_file, record)
    if args.overlays is not None:
        _write_overlays(args, console, model, rows[: args.top])
    console.record(record)
    shown = [
        [
            row["rank"],
            row["file"],
            row["score"],
            "ANOMALOUS" if row["is_anomalous"] else "",
            f"{row['rejected_share']:.1%}",
            row["rejected_rank"],
        ]
        for row in rows[: args.top]
    ]
    console.result(format_table(["rank", "file", "score", "verdict", "rejected", "rejected rank"], shown))
    flagged = sum(row["is_anomalous"] for row in rows)
    limit = format_number(float(model.threshold_))
    console.summary(f"\n{flagged} of {len(rows)} training images score above the threshold {limit}")
    return SUCCESS


def rank(model: InReaCh, by: str, console: Console) -> list[dict[str, Any]]:
    """Every training image with its score and its share of rejected patches, the most suspect first.

    Args:
        model: just fitted; images that the fit passed over are not ranked.
        by: "score" or "rejected".
        console: for the progress of the scoring.
    """
    patches = model.grid_[0] * model.grid_[1]
    scores = model.training_scores(progress=console.progress)
    console.close()
    rejected = patches - model.nominal_.counts_by_image(model.n_images_)
    rows: list[dict[str, Any]] = [
        {
            "file": name,
            "score": float(scores[i]),
            "threshold": float(model.threshold_),
            "is_anomalous": bool(scores[i] > model.threshold_),
            "rejected_share": float(rejected[i] / patches),
            "rejected_patches": int(rejected[i]),
            "patches": patches,
            "image": i,
        }
        for i, name in enumerate(model.image_names_)
    ]
    # Ties keep the folder's order, so that the same folder gives the same ranking.
    for number, row in enumerate(sorted(rows, key=lambda row: -row["rejected_share"]), start=1):
        row["rejected_rank"] = number
    key = "score" if by == "score" else "rejected_share"
    rows.sort(key=lambda row: -row[key])
    for number, row in enumerate(rows, start=1):
        row["rank"] = number
    return rows


def _write_overlays(args: argparse.Namespace, console: Console, model: InReaCh, rows: list[dict[str, Any]]) -> None:
    """A picture of each of these training images, scored as the ranking scores them."""
    from ...images.reading import read_image
    from ..pictures.overlay import inspection_picture

    names = OutputNames([Path(row["file"]) for row in rows])
    for number, row in enumerate(rows, start=1):
        path = Path(row["file"])
        image = read_image(path)
        picture = inspection_picture(
            image,
            _left_out_map(model, row["image"], image),
            name=str(path),
            score=row["score"],
            threshold=row["threshold"],
            is_anomalous=row["is_anomalous"],
            remark=f"rank {row['rank']}, {row['rejected_share']:.1%} of its patches rejected",
        )
        write_png(names.path(args.overlays, path, ".png"), picture)
        if console.progress is not None:
            console.progress("pictures", number, len(rows))


def _left_out_map(model: InReaCh, place: int, image: UInt8Array) -> FloatArray:
    """The map of a training image against the nominal patches of the others, in the image's own frame.

    `predict` would find each nominal patch of the image in the model itself, at distance 0.
    """
    from ...images.alignment import rotate, rotate_map_back

    degrees = 0 if model.rotations_ is None else int(model.rotations_[place])
    network_input = model.geometry.apply(image)
    if degrees:
        network_input = rotate(network_input, degrees)
    predictor = model._ready(images=True)
    (rows,) = predictor.describe(network_input[None])
    values, _ = predictor.scorer.patch_scores(rows, leave_out=place)
    smoothed = predictor.map(values)
    smoothed = rotate_map_back(smoothed, degrees) if degrees else smoothed
    return model.map_to_original(smoothed, (image.shape[0], image.shape[1]))
