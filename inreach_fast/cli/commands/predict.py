"""`inreach predict MODEL IMAGES...`: inspect images; one JSON line each."""

from __future__ import annotations

import argparse
import time
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import DataError, ImageError
from ...estimator import InReaCh
from ...images.reading import read_image
from ...predict.bounded_search import Limits
from .. import options
from ..console import Console, format_number, format_seconds
from ..exit_codes import ANOMALY, SUCCESS
from ..outputs import OutputNames, require_folders, write_array, write_json
from ..pages.explanation import explanation_page
from ..pages.html import write_page
from ..pictures import Inspected, inspection_picture

DESCRIPTION = """Inspects images and prints one JSON line for each: file, score, threshold, is_anomalous, seconds, and
the names of the files written; if the model has feedback, also the numbers of what scores are due to. A file that
--skip-bad skips has a line with `error` instead. With --threshold or --budget-ms the line also has score_lower and
score_upper, which bound the full search's score, certain (the verdict is proven) and complete (the score is). If
another runtime than the fit's computes the network, the line names it."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model file, written by `inreach fit`")
    add("images", type=Path, nargs="+", metavar="IMAGES", help="image files and folders of images")
    add("--maps", type=Path, metavar="DIR", help="write float32 anomaly maps, as large as the images (default: none)")
    words = "file format of the maps (default: npy)"
    add("--map-format", type=_map_formats, default=("npy",), metavar="npy|tiff|npy,tiff", help=words)
    add("--overlays", type=Path, metavar="DIR", help="write heat-map pictures as PNG (default: none)")
    words = """write for each image a page that says why it was scored so, and the same as JSON: its worst regions,
        and the training images that are nearest to them (default: none)"""
    add("--explain", type=Path, metavar="DIR", help=words)
    words = """score above which an image is anomalous; the search stops once the verdict is certain, except for maps,
        overlays and explanations (default: the model's, searched in full)"""
    add("--threshold", type=float, metavar="T", help=words)
    words = "time for an image, in milliseconds; the score comes with the bounds proven by then (default: no limit)"
    add("--budget-ms", type=float, metavar="B", help=words)
    options.add_reading(parser)
    options.add_model_overrides(parser)
    add("--fail-on-anomaly", action="store_true", help=f"return exit code {ANOMALY} if any image is anomalous")


def run(args: argparse.Namespace, console: Console) -> int:
    limited = Limits.of(args.threshold, args.budget_ms) != Limits()
    paths = expand(args, console)
    names = OutputNames(paths)
    # Names and folders are checked before the first image, not after an hour.
    files = {path: _outputs(args, names, path) for path in paths}
    require_folders(args.maps, args.overlays, args.explain)
    model = InReaCh.load(args.model, **options.model_overrides(args))
    model.prepare(options.prediction_threads(args))  # before the first image's seconds count
    threshold = float(model.threshold_ if args.threshold is None else args.threshold)

    begin = time.perf_counter()
    anomalous = skipped = 0
    for number, path in enumerate(paths, start=1):
        start = time.perf_counter()
        try:
            image = read_image(path, model.pixel_rule)
        except ImageError as error:
            if not args.skip_bad:
                raise
            skipped += 1
            console.note(f"inreach: passed over: {error}")
            console.row({"file": path, "error": str(error)})
            continue
        limits: dict[str, Any] = {"threshold": None if files[path] else args.threshold}  # maps are complete
        if args.budget_ms is not None:
            spent = (time.perf_counter() - start) * 1e3  # reading the file counts
            limits["budget_ms"] = max(args.budget_ms - spent, 1e-3)
        prediction = model.predict(image, **limits)
        seconds = time.perf_counter() - start
        score = float(prediction.score)
        row: dict[str, Any] = {
            "file": path,
            "score": score,
            "threshold": threshold,
            "is_anomalous": score > threshold,
            "seconds": round(seconds, 4),
        }
        if prediction.feedback is not None:
            row["feedback"] = prediction.due_to
        if limited:
            row |= {
                "score_lower": float(prediction.score_lower),
                "score_upper": float(prediction.score_upper),
                "certain": bool(prediction.score_lower > threshold or prediction.score_upper <= threshold),
                "complete": bool(prediction.complete),
            }
        if prediction.runtime is not None:
            row["runtime"] = prediction.runtime
        if files[path]:
            row["outputs"] = files[path]
            anomaly_map = model.map_to_original(prediction.anomaly_map, image.shape[:2])
            inspected = Inspected(str(path), image, anomaly_map, score, threshold, score > threshold)
            for kind, target in files[path].items():
                if kind == "explanation":
                    explanation = prediction.explain(threshold=threshold)
                    row["explanation"] = explanation.as_dict()
                    write_json(target.with_suffix(".json"), {"file": path, **row["explanation"]})
                    write_page(target, explanation_page(inspected, explanation))
                else:
                    write_array(target, inspection_picture(inspected) if kind == "overlay" else anomaly_map)
        anomalous += score > threshold
        console.row(row)
        console.progress("inspection", number, len(paths))
    words = f"{len(paths) - skipped} inspected, {anomalous} anomalous (threshold {format_number(threshold)})"
    if skipped:
        words += f", {skipped} passed over"
    # On stderr: stdout holds JSON lines only.
    console.note(f"{words}, {format_seconds(time.perf_counter() - begin)}")
    if skipped == len(paths):
        raise DataError(f"{paths[0]}: cannot be read, and no other of the {skipped} images can; give other images")
    return ANOMALY if args.fail_on_anomaly and anomalous else SUCCESS


def expand(args: argparse.Namespace, console: Console) -> list[Path]:
    """Files, and the images of folders; a file that is named twice is inspected once."""
    found = (options.images_in(args, item, console) if item.is_dir() else [item] for item in args.images)
    return list(dict.fromkeys(chain.from_iterable(found)))


def _map_formats(text: str) -> tuple[str, ...]:
    """argparse type: `npy`, `tiff` or both."""
    kinds = tuple(dict.fromkeys(kind.strip().lower() for kind in text.split(",")))
    for kind in kinds:
        if kind not in ("npy", "tiff"):
            raise argparse.ArgumentTypeError(f"{kind!r} is not a map format; give npy, tiff or npy,tiff")
    return kinds


def _outputs(args: argparse.Namespace, names: OutputNames, path: Path) -> dict[str, Path]:
    """Kind and name of every file that an image gets."""
    outputs = {}
    if args.maps is not None:
        outputs = {f"map_{kind}": names.path(args.maps, path, f".{kind}") for kind in args.map_format}
    if args.overlays is not None:
        outputs["overlay"] = names.path(args.overlays, path, ".png")
    if args.explain is not None:
        outputs["explanation"] = names.path(args.explain, path, ".html")
    return outputs
