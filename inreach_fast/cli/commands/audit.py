"""`inreach audit DIR`: find the defects in a training folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...errors import ParameterError
from ...estimator import InReaCh
from ...images.reading import read_image
from ...method.scoring import frame_of
from ...parameters import Parameters
from .. import options
from ..console import Console, format_number, format_table
from ..moving import check_move, chosen_images, move_images, read_manifest
from ..outputs import OutputNames, require_folders, require_writable, write_array, write_csv, write_json
from ..pages.audit import audit_entry, audit_page, training_pictures
from ..pages.html import write_page
from ..pictures import Inspected, inspection_picture
from .fit import evidence_words, fit_folder, fit_record

DESCRIPTION = """Fits to a folder and ranks its own images: by their score against the nominal patches of the other
images (leave-one-image-out). With channels (--preset channels, paper or reference) also by the share of their patches
that joined none; the default preset keeps every patch. --report writes a page to look at, on which a list of images can
be ticked; --move-to moves the images above the threshold, or with --manifest those on such a list, without a fit."""


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_folder(parser)
    add = parser.add_argument
    words = "order of the ranking; rejected needs channels, as of --preset channels (default: score)"
    add("--sort", choices=("score", "rejected"), default="score", help=words)
    add("--top", type=options.positive_int, default=20, metavar="N", help="number of images in the table (default: 20)")
    add("--csv", type=Path, metavar="FILE", help="write the whole ranking as CSV (default: not written)")
    add("--json-file", type=Path, metavar="FILE", help="write the whole ranking as JSON (default: not written)")
    add("--overlays", type=Path, metavar="DIR", help="write a heat map of each of the top N images (default: none)")
    words = "write a page with the top N images, what is nearest to them, and a list to act on (default: not written)"
    add("--report", type=Path, metavar="FILE.html", help=words)
    words = "move the images above the threshold to this folder, where nothing is overwritten (default: not moved)"
    add("--move-to", type=Path, metavar="DIR", help=words)
    words = "with --move-to: fit nothing, and move the images of this list from a report's page (default: fit)"
    add("--manifest", type=Path, metavar="FILE", help=words)
    add("-o", "--output", type=Path, metavar="MODEL", help="write the fitted model (default: not written)")
    options.add_parameters(parser)
    options.add_executor(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    if args.manifest is not None:
        _move_listed(args, console)
        return
    require_writable(args.csv, args.json_file, args.output, args.report)
    require_folders(args.overlays, args.move_to)
    _check_target(args)
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
    if args.overlays is not None or args.report is not None:
        _show(args, console, model, rows, top)
    if args.move_to is not None:  # last, so that everything else is written whatever becomes of it
        moves = check_move([Path(row["file"]) for row in rows if row["is_anomalous"]], args.folder, args.move_to)
        move_images(moves)
        record["moved"] = _moved(moves)
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
    if args.report is not None:
        console.summary(f"report: {args.report}")
    if args.move_to is not None:
        _say_moved(console, moves, args.move_to)


def _show(
    args: argparse.Namespace, console: Console, model: InReaCh, rows: list[dict[str, Any]], top: list[dict[str, Any]]
) -> None:
    """Write the pictures of the top images, and the page."""
    names, entries = OutputNames([Path(row["file"]) for row in top]), []
    picture_of = training_pictures(model)
    for number, row in enumerate(top, start=1):
        path = Path(row["file"])
        image = read_image(path, model.pixel_rule)
        found = model.training_prediction(row["image"], image)
        anomaly_map = model.map_to_original(found.anomaly_map, found.original_size)
        inspected = Inspected(str(path), image, anomaly_map, row["score"], row["threshold"], row["is_anomalous"])
        if args.overlays is not None:
            remark = f"rank {row['rank']} of {len(rows)}"
            if "rejected_share" in row:
                remark += f", {row['rejected_share']:.1%} of its patches rejected"
            write_array(names.path(args.overlays, path, ".png"), inspection_picture(inspected, remark=remark))
        if args.report is not None:
            entries.append(audit_entry(args.folder, row, inspected, found.explain(most=1), picture_of))
        console.progress("pictures", number, len(top))
    if args.report is not None:
        write_page(args.report, audit_page(model, args.folder, rows, entries))


def _check_target(args: argparse.Namespace) -> None:
    """Images must not be moved to where the next audit reads them."""
    if args.move_to is None:
        return
    folder, target = args.folder.resolve(), args.move_to.resolve()
    if target == folder or (args.recursive and target.is_relative_to(folder)):
        raise ParameterError(f"--move-to: {args.move_to} is in {args.folder}, which is audited; give another folder")


def _move_listed(args: argparse.Namespace, console: Console) -> None:
    """Move the images of a manifest."""
    if args.move_to is None:
        raise ParameterError("--manifest: lists images to move; give --move-to as well")
    outputs = {"--report": args.report, "--csv": args.csv, "--json-file": args.json_file, "-o": args.output}
    if given := [name for name, value in {**outputs, "--overlays": args.overlays}.items() if value is not None]:
        raise ParameterError(f"{given[0]}: with --manifest images are moved and nothing is fitted; leave it out")
    _check_target(args)
    names = read_manifest(args.manifest)
    images = options.images_in(args, args.folder, console)
    chosen = chosen_images(args.manifest, names, args.folder, images)
    if len(chosen) == len(images):
        raise ParameterError(f"--manifest: {args.manifest} lists all images of {args.folder}; leave some there")
    require_folders(args.move_to)
    moves = check_move(chosen, args.folder, args.move_to)
    move_images(moves)
    console.record({"folder": args.folder, "moved": _moved(moves)})
    _say_moved(console, moves, args.move_to)


def _moved(moves: list[tuple[Path, Path]]) -> list[dict[str, Path]]:
    return [{"from": image, "to": to} for image, to in moves]


def _say_moved(console: Console, moves: list[tuple[Path, Path]], target: Path) -> None:
    for image, to in moves:
        console.result(f"moved: {image} -> {to}")
    console.summary(f"{len(moves)} images moved to {target}")


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
        patches = frame_of(model.parameters, model.grid_).count
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
