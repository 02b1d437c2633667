"""Shared by bench/compression.py and bench/limited_search.py: a fitted model and an unseen test set of a class."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import ROOT
from .backbones.resnet50_caffe import weights_file
from .workload import data_folder

Rows = npt.NDArray[np.float32]


def arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that every ``python -m bench.NAME`` has."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--classes", default="bottle,pill", help="classes, separated by commas (default: %(default)s)")
    parser.add_argument("--models", type=Path, help="folder that fitted models are kept in (default: not kept)")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / f"{name}.json")
    return parser


def classes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The requested classes; exits with an error if their data are missing."""
    names: list[str] = options.classes.split(",")
    missing = [name for name in names if not available(name)]
    if missing:
        parser.error(f"{', '.join(missing)}: images or the ResNet-50's weights are missing; see bench/README.md")
    return names


def write(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write the figures as JSON to the file that the options name."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def available(name: str) -> bool:
    """Whether the images of the class and the weights of the ResNet-50 are present."""
    return (data_folder() / name / "train" / "good").is_dir() and weights_file().is_file()


def fitted_model(name: str, folder: Path | None = None) -> Any:
    """`InReaCh` fitted on all good training images of a class, with the Caffe ResNet-50.

    Args:
        name: a class of `data_folder`.
        folder: where the model is read from, or saved to after the fit.
    """
    from inreach_fast import InReaCh
    from inreach_fast.backbones import load_backbone

    backbone = load_backbone(f"{ROOT / 'bench' / 'backbones' / 'resnet50_caffe.py'}:build")
    path = None if folder is None else folder / f"{name}.inreach"
    if path is not None and path.is_file():
        return InReaCh.load(path, backbone=backbone)
    model = InReaCh(backbone=backbone).fit(data_folder() / name / "train" / "good")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
    return model


def test_files(name: str) -> tuple[list[Path], list[bool]]:
    """The class's test images, and which of them show a defect."""
    files = sorted((data_folder() / name / "test").rglob("*.png"))
    return files, [file.parent.name != "good" for file in files]


def descriptors(model: Any, files: list[Path]) -> Iterator[Rows]:
    """(P, D) float32 of each image, as `InReaCh.score_descriptors` takes them."""
    from inreach_fast.images.reading import read_image

    for file in files:
        network_input = model.geometry.apply(read_image(file))
        yield model._ready(images=True).describe(network_input[None])[0]
