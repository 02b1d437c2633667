"""`fit` and `predict` against anomalib's PatchCore: the same network, images and size of input, its own defaults.

anomalib is installed in another environment (its dependencies are heavy); ``--anomalib-python`` names its Python.
Each contestant has its own process (patchcore_child.py). Fits run one after the other, predictions take turns.

PatchCore's defaults: layer2 and layer3 (28 x 28 patches of 1536 values at 224 pixels, a quarter of ours), a coreset
of 10 %, 9 neighbours. Its input has our size: its own 256 pixels would make it slower.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .backbones.resnet50_caffe import NORMALISATION, SHA256, weights_file
from .children import Child
from .patchcore_child import ANOMALIB
from .patchcore_child import OURS as OURS_CHILD
from .records import Case, timed_case, value_case
from .timing import OURS, race
from .workload import Workload, scratch_folder

PEER = "anomalib PatchCore"


def run(
    work: Workload,
    anomalib_python: Path | None,
    *,
    quick: bool = False,
    images: int | None = None,
    threads: int | None = None,
) -> list[Case]:
    """Cases: fit, predict, and the peak memory of each.

    Args:
        work: the images.
        anomalib_python: the interpreter of an environment with anomalib.
        quick: fewer images.
        images: training images, instead of what ``quick`` implies (100).
        threads: of torch in both, where given.

    Raises:
        RuntimeError: no interpreter given, or one without anomalib.
    """
    if anomalib_python is None:
        raise RuntimeError("patchcore: give --anomalib-python, the Python of an environment that has anomalib")
    images = images or (8 if quick else 100)
    scratch_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        settings = _settings(work, images, 3 if quick else 20, Path(folder), threads)
        with (
            Child("bench.patchcore_child", [ANOMALIB, settings], python=anomalib_python) as theirs,
            Child("bench.patchcore_child", [OURS_CHILD, settings]) as ours,
        ):
            fits = {PEER: dict(theirs.reply), OURS: dict(ours.reply)}
            seconds = race({PEER: theirs.ask, OURS: ours.ask}, rounds=3 if quick else 20, budget=60)
    data = f"{'resnet50_caffe' if weights_file().is_file() else 'wide_resnet50_2, random'} of {work.source}"
    about = f"PatchCore of anomalib {fits[PEER]['version']}, {fits[PEER]['patches']} patches kept"
    fit = timed_case(
        f"fit, {images} images, against PatchCore",
        {who: [reply["fit"]["seconds"]] for who, reply in fits.items()},
        data=data,
        goals={PEER: 1},
        checks={"peer": about, "nominal patches of ours": str(fits[OURS]["patches"])},
        stages={who: reply["stages"] for who, reply in fits.items()},
    )
    predict = timed_case(
        f"predict, one image, model of {images} images, against PatchCore", seconds, data=data, goals={PEER: 1}
    )
    memory = value_case(
        f"peak memory of a fit of {images} images, against PatchCore",
        {f"{who}, {what}": size / 1e9 for who, reply in fits.items() for what, size in _peaks(reply).items()},
        data=data,
        unit="GB",
        bytes=fits,
    )
    return [fit, predict, memory]


def _peaks(reply: dict[str, Any]) -> dict[str, int]:
    return {"whole process": reply["peak"], "beyond imports and backbone": reply["fit"]["peak"]}


def _settings(work: Workload, images: int, tests: int, folder: Path, threads: int | None) -> Path:
    """Write the settings file that both contestants read; its path."""
    np.save(folder / "training.npy", np.stack(work.training_images(images)))
    np.save(folder / "tests.npy", np.stack(work.test_images(tests)))
    settings: dict[str, Any] = {
        "training": str(folder / "training.npy"),
        "tests": str(folder / "tests.npy"),
        "image_size": work.image_size,
        "threads": threads,
    }
    if weights_file().is_file():
        import torch

        from inreach_fast.backbones.weights import read_state

        from . import ROOT

        torch.save(read_state(weights_file(), SHA256), folder / "state.pt")
        norm = NORMALISATION
        settings |= {
            "backbone": f"{ROOT / 'bench' / 'backbones' / 'resnet50_caffe.py'}:build",
            "weights": "official",
            "architecture": "resnet50",
            "caffe_state": str(folder / "state.pt"),
        }
    else:
        from inreach_fast.backbones.definition import IMAGENET

        norm = IMAGENET
        settings |= {
            "backbone": "wide_resnet50_2",
            "weights": "random",
            "architecture": "wide_resnet50_2",
            "caffe_state": None,
        }
    settings |= {"mean": norm.mean, "std": norm.std, "scale": norm.scale * 1.0, "channel_order": norm.channel_order}
    path = folder / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path
