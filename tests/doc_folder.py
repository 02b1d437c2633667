"""Where the code of the pages runs: a folder with what they name, and a network of two convolutions for every name."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from cli_cases import picture, save
from PIL import Image
from small_networks import Normed
from torch.utils.data import TensorDataset

from inreach_fast import executors
from inreach_fast.backbones import IMAGENET, BackboneDefinition, loading
from inreach_fast.cli.main import main
from inreach_fast.evaluation.supplement import corruption_list
from inreach_fast.parameters import PRESETS

_SIZE = (240, 240)


@contextmanager
def small_network(folder: Path) -> Iterator[None]:
    """Every built-in backbone is `Normed`, descriptors are short, and images are seen at 112 x 112.

    Executors are made, so that what names them is checked, and their work is done in this process.
    """
    from safetensors.torch import save_file

    weights = folder / "small.safetensors"
    save_file(Normed().state_dict(), weights)

    def built_in(name: str) -> Any:
        return lambda: BackboneDefinition(Normed(), ("first", "second"), IMAGENET, name), lambda: (weights, None)

    def here(executor: Any, *, workers: int | None = None) -> Any:
        executors.make_executor(executor, workers=workers)
        return executors.make_executor("local")

    short = {"dim": 24, "assoc_depth": 3, "min_channel_length": 1, "image_size": (112, 112)}
    names = {name: built_in(name) for name in loading._BUILT_IN}
    presets = {name: {**values, **short} for name, values in PRESETS.items()}
    presets["default"]["pca_dim"] = 6
    with (
        mock.patch.dict(loading._BUILT_IN, names),
        mock.patch.dict(PRESETS, presets),
        mock.patch("inreach_fast.estimator.inreach.make_executor", here),
        mock.patch("inreach_fast.cli.options.make_executor", here),
        mock.patch.dict(os.environ, INREACH_NETWORK_CACHE=str(folder / "networks")),
    ):
        yield


def fill(folder: Path) -> None:
    """Everything that the pages name. Needs `small_network`."""
    for number in range(9):
        save(folder / "photos" / f"{number}.png", picture(number, _SIZE, defect=number in (3, 5)))
    for name, numbers in {"more": (20, 21), "new": (30, 31, 32), "camera": (40, 41), "test": (50, 51)}.items():
        for number in numbers:
            save(folder / name / f"{number}.png", picture(number, _SIZE, defect=number % 2 == 1))
    for number, name in enumerate(("new", "flagged", "missed", "a", "b")):
        save(folder / f"{name}.png", picture(60 + number, _SIZE, defect=name != "a"))
    shutil.copytree(folder / "photos", folder / "part" / "photos")
    save(folder / "part" / "bad" / "0.png", picture(80, _SIZE, defect=True))
    mask = np.zeros(_SIZE, dtype=np.uint8)
    mask[20:220, 20:220] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "manifest.csv").write_text("file\n5.png\n", encoding="utf-8")
    _labelled(folder / "mvtec" / "bottle")
    arguments = ["fit", str(folder / "photos"), "-o", str(folder / "part.inreach"), "--quiet"]
    assert main(arguments) == 0


def _labelled(folder: Path) -> None:
    """A class in MVTec AD's layout, with the images of the supplement's list."""
    for number in range(4):
        save(folder / "train" / "good" / f"{number:03}.png", picture(number, (64, 64)))
    for number, name in enumerate((*corruption_list("bottle")[:10], "good/900.png")):
        path, bad = Path(name), not name.startswith("good")
        save(folder / "test" / path, picture(70 + number, (64, 64), defect=bad))
        if bad:
            mask = np.zeros((64, 64), dtype=np.uint8)
            mask[21:32, 21:32] = 255
            save(folder / "ground_truth" / path.with_name(f"{path.stem}_mask.png"), mask)


def fresh(template: Path, folder: Path) -> Path:
    """``folder`` as ``template`` is: what is there is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return folder


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The working directory, with Python's output kept away from the test's; both as before afterwards."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with mock.patch.object(sys, "stdout", io.StringIO()):
            yield
    finally:
        os.chdir(before)


def names(page: str) -> dict[str, Any]:
    """What the Python of a page takes as given."""
    rng = np.random.default_rng(0)

    def rows(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    if page == "docs/guide.md":
        images = [picture(number, _SIZE, defect=number == 1) for number in range(3)]
        more = {"images": images, "is_anomalous": [False, True, False], "x": rows(3, 56 * 56, 8)}
        more |= {"queries": rows(7, 16), "bank": rows(50, 16), "a": rows(9, 16), "b": rows(9, 16), "rows": rows(20, 16)}
        return more | {
            "image": np.repeat(np.arange(4), 5),
            "r": np.abs(rows(50)),
            "mean": rows(16),
            "matrix": rows(16, 4),
        }
    if page == "docs/howto/threshold.md":
        return {"images": ["a.png", "b.png", "new/30.png"], "is_anomalous": [False, True, False]}
    if page == "docs/integrations.md":
        dataset = TensorDataset(torch.rand(5, 3, *_SIZE))
        given = {
            "dataset": dataset,
            "good": [0, 1, 2, 4],
            "array": picture(1, _SIZE),
            "x": rows(40, 6),
            "new": rows(5, 6),
        }
        return given | {"descriptors": rows(40, 6), "image_of_each_row": np.repeat(np.arange(8), 5)}
    return {}
