"""The fits behind tests/storage/saved_models, files that an earlier version wrote; run as a script, it writes them.

The network's weights and inputs are small integers, so that its features are exact on any machine. What a model says of
the new images, and of them after it has grown, is in expected.json: float32 values as their bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone, Normalisation

FOLDER = Path(__file__).parent / "storage" / "saved_models"
IMAGES, DESCRIPTORS, FINAL = "images", "descriptors", "images-final"
GRID = (6, 5)


def network() -> Backbone:
    """Two levels of 8x8 and 4x4 for an input of 32x32, with integer weights."""
    random = np.random.default_rng(5)
    layers = [torch.nn.Conv2d(3, 6, 4, stride=4), torch.nn.Conv2d(6, 8, 3, stride=2, padding=1)]
    module = torch.nn.Sequential()
    for name, layer in zip("ab", layers, strict=True):
        for parameter in layer.parameters():
            values = random.integers(-2, 3, tuple(parameter.shape)).astype(np.float32)
            parameter.data = torch.from_numpy(values)
        module.add_module(name, torch.nn.Sequential(layer, torch.nn.ReLU()))
    plain = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
    return Backbone.from_module(module, levels=["a", "b"], name="integers", normalisation=plain)


def pictures(first: int, count: int) -> list[NDArray[np.uint8]]:
    """One pattern under noise, uint8 (32, 32, 3): as large as the network's input, so that nothing is resized."""
    pattern = np.random.default_rng(1).integers(40, 200, (8, 8, 3)).repeat(4, axis=0).repeat(4, axis=1)
    randoms = (np.random.default_rng(100 + i) for i in range(first, first + count))
    return [
        (pattern + random.integers(0, 2 + i % 5 * 6, (32, 32, 3))).astype(np.uint8) for i, random in enumerate(randoms)
    ]


def descriptors(first: int, count: int) -> NDArray[np.float32]:
    """(count, 30, 6) float32, multiples of 1/8."""
    base = np.random.default_rng(2).integers(0, 80, (30, 6))
    noise = [np.random.default_rng(200 + i).integers(0, 9, (30, 6)) for i in range(first, first + count)]
    return ((base + np.stack(noise)) / 8).astype(np.float32)


def outcome(model: InReaCh) -> dict[str, Any]:
    """What a model of either kind says of images that it has not seen, as JSON."""
    found = (
        model.score_descriptors(descriptors(20, 3))
        if model.grid_ == GRID
        else [model.predict(x) for x in pictures(20, 3)]
    )
    return {
        "scores": [_bits(np.float32(prediction.score)) for prediction in found],
        "patch_scores": [_bits(prediction.patch_scores) for prediction in found],
        "nearest": [prediction.nearest.ravel().tolist() for prediction in found],
        "threshold": float(model.threshold_).hex(),
        "names": model.image_names_,
        "nominal": len(model.nominal_),
    }


def grown(model: InReaCh) -> InReaCh:
    """The model with two images more and one less."""
    if model.grid_ == GRID:
        return model.partial_fit_descriptors(descriptors(10, 2)).forget(4)
    return model.partial_fit(pictures(10, 2)).forget(4)


def _bits(values: Any) -> list[int]:
    return np.atleast_1d(np.asarray(values, np.float32)).view(np.uint32).ravel().tolist()


def _write() -> None:
    FOLDER.mkdir(exist_ok=True)
    common: dict[str, Any] = {"min_channel_length": 2, "threshold_images": 5, "smoothing_sigma": 1.0}
    of_images = InReaCh("channels", backbone=network(), image_size=32, dim=8, **common).fit(
        pictures(0, 8), seeds=[0, 2, 5]
    )
    of_rows = InReaCh("channels", image_size=(30, 25), **common).fit_descriptors(
        descriptors(0, 8), GRID, seeds=[0, 2, 5]
    )
    of_images.save(FOLDER / IMAGES)
    of_images.save(FOLDER / FINAL, final=True)
    of_rows.save(FOLDER / DESCRIPTORS)
    expected = {
        name: {"loaded": outcome(model), "grown": outcome(grown(model))}
        for name, model in ((IMAGES, of_images), (DESCRIPTORS, of_rows))
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    _write()
