"""`inreach info MODEL`: what a model file holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...errors import ParameterError
from ...estimator import InReaCh
from ...images.folders import list_images
from ...parameters import CHOICES
from ...predict.disagreement import Disagreement, disagreement
from ...storage import model_file
from ..console import Console, format_number, format_table
from .feedback import as_record

DESCRIPTION = """Shows what a model file holds: backbone, parameters, counts and threshold. The whole file is checked;
the backbone is not loaded. With --compare it also scores images by another runtime, and says what that changes."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model file")
    runtimes = [name for name in CHOICES["backbone_runtime"] if name != "auto"]
    add("--compare", choices=runtimes, help="compare this runtime with the fit's; needs --images (default: none)")
    words = """folder of images to compare them on; if some are in a sub-folder `good`, the others are anomalous, and
        the AUROC is compared as well (default: none)"""
    add("--images", type=Path, metavar="DIR", help=words)


def run(args: argparse.Namespace, console: Console) -> None:
    if (args.compare is None) != (args.images is None):
        raise ParameterError("--compare: needs --images DIR, and --images needs --compare; give both")
    model = InReaCh.load(args.model)
    meta, _ = model_file.load_file(args.model, verify=False)
    backbone = meta["backbone"] or {"name": "the caller's own descriptors", "fingerprint": None}
    runtime, version = model.fitted_runtime, backbone.get("runtime_version")
    compared = None if args.compare is None else _compared(model, args)
    height, width = model.grid_
    patches = model.report_.counts.get("patches", model.n_images_ * height * width)
    size, nominal, dimensions = args.model.stat().st_size, len(model.nominal_), int(model.nominal_.patches.shape[1])
    compression, parameters = model.nominal_.compression, model.parameters.as_dict()
    aligned = model.rotations_ is not None
    pictures = model.thumbnails_ is not None and model.thumbnails_.jpeg is not None
    console.record(
        {
            "model": args.model,
            "bytes": size,
            "format_version": model_file.VERSION,
            "backbone": {"name": backbone["name"], "fingerprint": backbone["fingerprint"]},
            "runtime": None if runtime is None else {"name": runtime, "version": version},
            "compared": None if compared is None else vars(compared),
            "parameters": parameters,
            "threshold": model.threshold_,
            "images": model.n_images_,
            "image_names": model.image_names_,
            "seed_images": model.seed_images_,
            "can_grow": model.can_grow,
            "thumbnails": pictures,
            "grid": [height, width],
            "nominal_patches": nominal,
            "compression": None if compression is None else compression.as_dict(),
            "dimensions": dimensions,
            "positions": model.positions_,
            "transpose_score": model.transpose_score_,
            "aligned": aligned,
            "feedback": [as_record(entry) for entry in model.feedback_],
            "report": model.report_.as_dict(),
        }
    )
    compressed = "no"
    if compression is not None:
        change = "changed" if model.parameters.score == "reachability" else "grown"
        most = format_number(compression.epsilon)
        compressed = f"from {compression.of:,} patches, distances {change} by at most {most}"
    held = "descriptors of some training images" if model.from_descriptors else "the training images"
    rows = {
        "file": f"{args.model}, {size / 1e6:.1f} MB, format {model_file.VERSION}",
        "backbone": f"{backbone['name']}, fingerprint {(backbone['fingerprint'] or '-')[:16]}",
        "runtime": "-" if runtime is None else f"{runtime} {version or ''}".strip(),
        "threshold": format_number(model.threshold_),
        "images": f"{model.n_images_} of {height}x{width} patches",
        "nominal": f"{nominal:,} of {patches:,} patches, {dimensions} dimensions",
        "compressed": compressed,
        "can grow": f"yes, and holds {held} for it" if model.can_grow else "no",
        "thumbnails": "small pictures of the training images" if pictures else "none",
        "positions": "embedded" if model.positions_ else "not embedded",
        "aligned": "yes" if aligned else "no",
        "feedback": f"{len(model.feedback_)} regions" if model.feedback_ else "none",
    }
    plain = {name: ", ".join(map(str, v)) if isinstance(v, list) else _short(str(v)) for name, v in parameters.items()}
    counts = {name: v for name, v in model.report_.counts.items() if not isinstance(v, (list, tuple, dict))}
    console.result(format_table(["model", ""], list(rows.items())))
    console.result("\n" + format_table(["parameter", "value"], list(plain.items())))
    console.result("\n" + format_table(["count", "value"], list(counts.items())))
    for warning in model.report_.counts.get("warnings", ()):
        console.result(f"\nwarning: {warning}")
    if compared is not None:
        rows = {name: f"{v:.3g}" if isinstance(v, float) else str(v) for name, v in vars(compared).items()}
        console.result("\n" + format_table(["compared", "value"], list(rows.items())))


def _compared(model: InReaCh, args: argparse.Namespace) -> Disagreement:
    paths = list_images(args.images, recursive=True)
    labels = [path.parent.name != "good" for path in paths]
    return disagreement(model, paths, runtime=args.compare, labels=labels if len(set(labels)) == 2 else None)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
