"""`inreach predict MODEL IMAGES...`: inspect images; one JSON line each."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...array_types import UInt8Array
from ...errors import DataError, ImageError, ParameterError
from ..console import Console
from ..exit_codes import ANOMALY, SUCCESS
from ..options import add_skip_bad, common_options
from ..outputs import OutputNames, require_folder, write_float_tiff, write_npy, write_png
from ..tables import format_number, format_seconds

if TYPE_CHECKING:
    from ...estimator import InReaCh
    from ...predict.bounded_search import Limits
    from ...predict.prediction import Prediction
    from . import Subparsers

_MAP_KINDS = ("npy", "tiff")


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "predict",
        parents=[common_options()],
        help="inspect images",
        description="Inspects images and prints one JSON line for each: file, score, threshold, "
        "is_anomalous, seconds, and the names of the files written; a file that --skip-bad passed over has a "
        "line with `error`. With --threshold or --budget-ms also score_lower and score_upper, between which the "
        "whole search's score lies, certain (the verdict is proven) and complete (the score is).",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file, written by `inreach fit`")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="image files and folders of them")
    parser.add_argument("--recursive", action="store_true", help="take sub-folders in too")
    parser.add_argument("--maps", type=Path, metavar="DIR", help="write float32 anomaly maps in each image's frame")
    parser.add_argument(
        "--map-format",
        type=_map_formats,
        default=("npy",),
        metavar="npy|tiff|npy,tiff",
        help="of the maps (npy)",
    )
    parser.add_argument("--overlays", type=Path, metavar="DIR", help="write heat-map pictures (PNG)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="decide against this score (the model's own threshold), and stop searching once the verdict is "
        "certain; maps and overlays are whole nevertheless",
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        metavar="B",
        help="milliseconds for each image; its score comes with the bounds that could be proven until then",
    )
    add_skip_bad(parser)
    parser.add_argument("--backbone", metavar="NAME", help="the model's backbone, where it is not where it was")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="its weights file, likewise")
    parser.add_argument("--device", metavar="NAME", help="torch device of the backbone (the model's)")
    parser.add_argument("--backend", metavar="NAME", help="kernels: native, numba, torch (the model's)")
    parser.add_argument(
        "--fail-on-anomaly", action="store_true", help=f"exit code {ANOMALY} when any image is anomalous"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Inspect every image in turn."""
    from ...estimator import InReaCh
    from ...images.reading import read_image
    from ...predict.bounded_search import Limits

    limits = Limits.of(args.threshold, args.budget_ms)
    paths = expand(args.images, recursive=args.recursive)
    names = OutputNames(paths)
    # Names are settled and folders tried before the first image, not after an hour.
    for path in paths:
        _outputs(args, names, path)
    require_folder(args.maps)
    require_folder(args.overlays)
    model = InReaCh.load(
        args.model, backbone=args.backbone, weights=args.weights, device=args.device, backend=args.backend
    )
    if not model.from_descriptors:
        _ = model.backbone  # loaded (and refused, if it is another) before the first image's seconds count
    if limits.any:
        model.prepare()
    threshold = float(model.threshold_ if limits.threshold is None else limits.threshold)

    begin = time.perf_counter()
    anomalous = skipped = 0
    for number, path in enumerate(paths):
        start = time.perf_counter()
        try:
            image = read_image(path)
        except ImageError as error:
            if not args.skip_bad:
                raise
            skipped += 1
            console.note(f"inreach: passed over: {error}")
            console.row({"file": path, "error": str(error)})
            continue
        outputs = _outputs(args, names, path)
        prediction = _predicted(model, image, limits, bool(outputs), start)
        seconds = time.perf_counter() - start
        is_anomalous = float(prediction.score) > threshold
        row: dict[str, Any] = {
            "file": path,
            "score": float(prediction.score),
            "threshold": threshold,
            "is_anomalous": is_anomalous,
            "seconds": round(seconds, 4),
        }
        if limits.any:
            row |= {
                "score_lower": float(prediction.score_lower),
                "score_upper": float(prediction.score_upper),
                "certain": bool(prediction.score_lower > threshold or prediction.score_upper <= threshold),
                "complete": bool(prediction.complete),
            }
        _write(outputs, model, path, image, prediction, threshold)
        if outputs:
            row["outputs"] = dict(outputs)
        anomalous += is_anomalous
        console.row(row)
        if console.progress is not None:
            console.progress("inspection", number + 1, len(paths))
    console.close()
    _close(
        console,
        len(paths) - skipped,
        anomalous,
        skipped,
        time.perf_counter() - begin,
        threshold,
    )
    if skipped == len(paths):
        raise DataError(f"none of the {skipped} images could be read; the first is {paths[0]}")
    return ANOMALY if args.fail_on_anomaly and anomalous else SUCCESS


def _predicted(model: InReaCh, image: UInt8Array, limits: Limits, with_outputs: bool, start: float) -> Prediction:
    if limits.budget is None:
        # A map that a file is made of is proven, unless there is no time for it.
        return model.predict(image, threshold=None if with_outputs else limits.threshold)
    left = limits.budget - (time.perf_counter() - start)  # reading the file counts too
    return model.predict(image, threshold=None if with_outputs else limits.threshold, budget_ms=max(left, 1e-6) * 1e3)


def expand(inputs: Iterable[Path], *, recursive: bool) -> list[Path]:
    """Files as they are, folders as their images; a file named twice is inspected once."""
    from ...images.reading import list_images

    paths: dict[Path, None] = {}
    for item in inputs:
        found = list_images(item, recursive=recursive) if item.is_dir() else [item]
        paths.update(dict.fromkeys(found))
    return list(paths)


def _map_formats(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(kind.strip().lower() for kind in text.split(",")))
    unknown = [kind for kind in kinds if kind not in _MAP_KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no map format; give npy, tiff or npy,tiff")
    return kinds


def _outputs(args: argparse.Namespace, names: OutputNames, path: Path) -> list[tuple[str, Path]]:
    """Kind and name of every file that this image gets."""
    outputs = []
    if args.maps is not None:
        outputs += [(f"map_{kind}", names.path(args.maps, path, f".{kind}")) for kind in args.map_format]
    if args.overlays is not None:
        outputs.append(("overlay", names.path(args.overlays, path, ".png")))
    targets = [target for _, target in outputs]
    if len(set(targets)) < len(targets):
        raise ParameterError("--maps and --overlays would write the same file; give them different folders")
    return outputs


def _write(
    outputs: list[tuple[str, Path]],
    model: InReaCh,
    path: Path,
    image: UInt8Array,
    prediction: Prediction,
    threshold: float,
) -> None:
    if not outputs:
        return
    from ..pictures.overlay import inspection_picture

    height, width = image.shape[:2]
    anomaly_map = model.map_to_original(prediction.anomaly_map, (height, width))
    for kind, target in outputs:
        if kind == "map_npy":
            write_npy(target, anomaly_map)
        elif kind == "map_tiff":
            write_float_tiff(target, anomaly_map)
        else:
            picture = inspection_picture(
                image,
                anomaly_map,
                name=str(path),
                score=float(prediction.score),
                threshold=threshold,
                is_anomalous=float(prediction.score) > threshold,
            )
            write_png(target, picture)


def _close(console: Console, inspected: int, anomalous: int, skipped: int, seconds: float, threshold: float) -> None:
    words = f"{inspected} inspected, {anomalous} anomalous (threshold {format_number(threshold)})"
    if skipped:
        words += f", {skipped} passed over"
    # stdout holds JSON lines and nothing else, so that the summary goes to stderr.
    console.note(f"{words}, {format_seconds(seconds)}")
