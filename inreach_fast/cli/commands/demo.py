"""`inreach demo`: the whole method on photographs of surfaces that come with scikit-image."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from ... import evaluation
from ...estimator import InReaCh
from ...evaluation.synthetic import TEXTURES, TextureSet
from ...fit.report import FitReport
from .. import options
from ..console import Console, format_seconds, format_table
from ..outputs import require_writable, write_array
from ..pictures import Inspected, inspection_sheet

DESCRIPTION = """Cuts unsorted training images with hidden defects from photographs of surfaces (brick, gravel, grass;
CC0, part of scikit-image), fits on the mix, inspects new images, prints how well that went and writes one picture of
the results."""

_PICTURE = "inreach-demo.png"
_ROWS = 9
# Columns of the table: a key of a result, or a pattern.
_AUDIT = {
    "audit AUROC": "audit_auroc",
    "defective (estimated)": "{defective_share:.0%} ({anomalous_share[estimate]:.0%})",
}
_CHANNELS = {"nominal precision": "nominal_precision", "nominal recall": "nominal_recall"}


def add_options(parser: argparse.ArgumentParser) -> None:

    def add(name: str, default: Any, words: str, **settings: Any) -> None:
        parser.add_argument(name, default=default, help=f"{words} (default: {default})", **settings)

    add("--out", Path(), f"folder to write {_PICTURE} to", type=Path, metavar="DIR")
    add("--texture", "all", "surface to use", choices=(*TEXTURES, "all"))
    add("--images", 60, "training images of each surface", type=options.positive_int, metavar="N")
    add("--test-images", 8, "new images of each surface", type=options.positive_int, metavar="N")
    add("--image-size", 224, "side of the images, 32 to 240 pixels", type=options.positive_int, metavar="N")
    add("--backbone", "efficientnet_lite2", "network, as in `inreach fit`", metavar="NAME")
    add("--weights", "official", "weights of the network", metavar="official|random|PATH")
    add("--preset", "default", "parameters of the method", choices=("default", "channels"))
    add("--assoc-depth", 10, "number of seed images of --preset channels", type=options.positive_int, metavar="S")
    add("--seed", 0, "seed of the images and of the method", type=int, metavar="N")


def run(args: argparse.Namespace, console: Console) -> None:
    target = args.out / _PICTURE
    require_writable(target)
    begin = time.perf_counter()
    textures = TEXTURES if args.texture == "all" else (args.texture,)
    surfaces = [_surface(args, console, texture) for texture in textures]
    results = [result for result, _ in surfaces]
    shown = [row for _, inspected in surfaces for row in _choose(inspected, max(2, _ROWS // len(surfaces)))]
    start = time.perf_counter()
    write_array(target, _picture(results, shown))
    drawing, seconds = time.perf_counter() - start, time.perf_counter() - begin
    console.record({"surfaces": results, "picture": target, "seconds": seconds, "seconds_drawing": drawing})
    console.result(_text(results))
    console.result(f"\npicture: {target}\ntotal: {format_seconds(seconds)}")


def _surface(args: argparse.Namespace, console: Console, texture: str) -> tuple[dict[str, Any], list[Inspected]]:
    def progress(stage: str, done: int, total: int) -> None:
        console.progress(f"{texture}: {stage}", done, total)

    clock = FitReport()
    with clock.stage("images"):
        data = evaluation.make_texture_set(
            texture, n_train=args.images, n_test=args.test_images, size=args.image_size, seed=args.seed
        )
    chosen = {name: getattr(args, name) for name in ("preset", "backbone", "weights", "image_size", "assoc_depth")}
    model = InReaCh(random_state=args.seed, **chosen)
    with clock.stage("fit"):
        model.fit(list(data.train_images), progress=progress)
    inspected = []
    with clock.stage("predict"):
        for i, (image, truth, kind) in enumerate(zip(data.test_images, data.test_masks, data.test_kinds, strict=True)):
            found = model.predict(image)
            name = texture if kind == "good" else f"{texture}, {kind}"
            score, verdict = float(found.score), bool(found.is_anomalous)
            inspected.append(Inspected(name, image, found.anomaly_map, score, model.threshold_, verdict, truth))
            progress("inspection", i + 1, len(data.test_images))
    with clock.stage("metrics"):
        labels, maps = data.test_labels, np.stack([row.anomaly_map for row in inspected])
        image_auroc = _auroc(labels, np.array([row.score for row in inspected], dtype=np.float32))
        pixel_auroc = _auroc(data.test_masks.ravel(), maps.ravel())
        figures = _of_channels(model, data) if args.preset == "channels" else _of_audit(model, data)
    result = {
        "texture": texture,
        "backbone": model.backbone.name,
        "train": len(data.train_images),
        "train_defective": int(data.train_labels.sum()),
        "test": len(data.test_images),
        "test_defective": int(labels.sum()),
        "image_auroc": image_auroc,
        "pixel_auroc": pixel_auroc,
        **figures,
        "verdicts_right": sum(row.is_anomalous == label for row, label in zip(inspected, labels.tolist(), strict=True)),
        "threshold": float(model.threshold_),
        "seconds": clock.seconds,
        "fit_stages": dict(model.report_.seconds),
    }
    return result, inspected


def _of_audit(model: InReaCh, data: TextureSet) -> dict[str, Any]:
    """How well the defective training images are found, and their share beside the estimated one."""
    labels = data.train_labels
    return {
        "audit_auroc": _auroc(labels, model.training_scores()),
        "defective_share": float(labels.mean()),
        "anomalous_share": model.report_["anomalous_share"],
    }


def _of_channels(model: InReaCh, data: TextureSet) -> dict[str, Any]:
    """Precision and recall of the patches that channels kept."""
    nominal = evaluation.nominal_precision_recall(
        model.nominal_.image_index, model.nominal_.patch_index, list(data.train_masks), model.grid_
    )
    return {"nominal_precision": nominal.precision, "nominal_recall": nominal.recall}


def _auroc(labels: Any, scores: Any) -> float | None:
    return evaluation.auroc(labels, scores) if labels.any() and not labels.all() else None


def _choose(inspected: list[Inspected], share: int) -> list[Inspected]:
    """The images to show of a surface, whatever their scores: good ones, then the first defect of each kind."""
    good = [row for row in inspected if row.truth is not None and not row.truth.any()]
    kinds: dict[str, Inspected] = {}
    for row in inspected:
        if row not in good:
            kinds.setdefault(row.name, row)
    good = good[: max(1, share // 3)]
    return [*good, *list(kinds.values())[: share - len(good)]]


def _picture(results: list[dict[str, Any]], rows: list[Inspected]) -> Any:
    first = results[0]  # each surface has a fit of its own, of equally many images
    parts = [
        "{texture} {image_auroc:.3f}, {pixel_auroc:.3f}".format(**result)
        for result in results
        if None not in (result["image_auroc"], result["pixel_auroc"])
    ]
    title = "InReaCh, fitted to {train} unsorted images of each surface, {train_defective} of them defective"
    subtitle = f"{first['backbone']}; AUROC of images, of pixels: {'; '.join(parts) or 'not defined'}"
    return inspection_sheet(rows, title=title.format(**first), subtitle=subtitle)


def _text(results: list[dict[str, Any]]) -> str:
    columns = {
        "surface": "{texture}",
        "train (defective)": "{train} ({train_defective})",
        "test (defective)": "{test} ({test_defective})",
        "image AUROC": "image_auroc",
        "pixel AUROC": "pixel_auroc",
        **(_CHANNELS if "nominal_recall" in results[0] else _AUDIT),
        "verdicts right": "{verdicts_right} of {test}",
    }
    lines = [[cell.format(**r) if "{" in cell else r[cell] for cell in columns.values()] for r in results]
    stages: dict[str, dict[str, str]] = {}
    for result in results:
        times = {"images": 0.0, "fit": 0.0} | {f"  {stage}": value for stage, value in result["fit_stages"].items()}
        for name, value in (times | result["seconds"]).items():
            stages.setdefault(name, {})[result["texture"]] = f"{value:.2f}"
    textures = [result["texture"] for result in results]
    seconds = [[name, *(values.get(texture, "0.00") for texture in textures)] for name, values in stages.items()]
    tables = format_table(list(columns), lines), format_table(["seconds", *textures], seconds)
    return f"backbone: {results[0]['backbone']}\n" + "\n\n".join(tables)
