"""`inreach info MODEL`: what a model file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options
from ..tables import format_number, format_table

if TYPE_CHECKING:
    from ...estimator import InReaCh
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "info",
        parents=[common_options()],
        help="what a model file holds",
        description="Shows what a model file holds: backbone, parameters, counts, threshold. The file is "
        "checked as a whole; the backbone is not loaded.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Read the file and print what it says of itself."""
    from ...estimator import InReaCh
    from ...storage import model_file

    model = InReaCh.load(args.model)
    meta, _ = model_file.load_file(args.model, verify=False)
    backbone = meta["backbone"] or {"name": "the caller's own descriptors", "fingerprint": None}
    height, width = model.grid_
    compression = model.nominal_.compression
    record = {
        "model": args.model,
        "bytes": args.model.stat().st_size,
        "format_version": model_file.VERSION,
        "backbone": {"name": backbone["name"], "fingerprint": backbone["fingerprint"]},
        "parameters": model.parameters.as_dict(),
        "threshold": model.threshold_,
        "images": model.n_images_,
        "image_names": model.image_names_,
        "seed_images": model.seed_images_,
        "can_grow": model.can_grow,
        "grid": [height, width],
        "nominal_patches": len(model.nominal_),
        "compression": None if compression is None else compression.as_dict(),
        "dimensions": int(model.nominal_.patches.shape[1]),
        "positions": model.positions_,
        "transpose_score": model.transpose_score_,
        "aligned": model.rotations_ is not None,
        "report": model.report_.as_dict(),
    }
    console.record(record)
    patches = model.n_images_ * height * width
    rows = [
        ["file", f"{args.model}, {record['bytes'] / 1e6:.1f} MB, format {model_file.VERSION}"],
        ["backbone", f"{backbone['name']}, fingerprint {(backbone['fingerprint'] or '-')[:16]}"],
        ["threshold", format_number(model.threshold_)],
        ["images", f"{model.n_images_} of {height}x{width} patches"],
        ["nominal", f"{len(model.nominal_):,} of {patches:,} patches, {record['dimensions']} dimensions"],
        [
            "compressed",
            "no"
            if compression is None
            else f"from {compression.of:,} patches, distances grown by at most {format_number(compression.epsilon)}",
        ],
        ["can grow", _growing(model)],
        ["positions", "embedded" if model.positions_ else "not embedded"],
        ["aligned", "yes" if record["aligned"] else "no"],
    ]
    counts = {k: v for k, v in model.report_.counts.items() if not isinstance(v, (list, tuple, dict))}
    console.result(format_table(["model", ""], rows))
    console.result(
        "\n" + format_table(["parameter", "value"], [[k, _plain(v)] for k, v in record["parameters"].items()])
    )
    console.result("\n" + format_table(["count", "value"], [[k, v] for k, v in counts.items()]))
    return SUCCESS


def _growing(model: InReaCh) -> str:
    if not model.can_grow:
        return "no"
    held = "descriptors of some training images" if model.from_descriptors else "the training images"
    return f"yes, and holds {held} for it"


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
