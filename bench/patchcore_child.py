"""One contestant of the PatchCore comparison: fits, reports, then predicts an image for each line that it reads.

    python -m bench.patchcore_child ours|anomalib SETTINGS.json

"anomalib" runs under the Python of an environment with anomalib and does not import inreach_fast. It uses anomalib's
PatchcoreModel as its Lightning module does: features of batches of 32 in training mode, the coreset, then forward
passes of single images in evaluation mode. Lightning's engine is left out, since its overhead would slow it down.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from . import resident
from .children import reply_channel

OURS, ANOMALIB = "ours", "anomalib"
CORESET, BATCH, NEIGHBOURS, LAYERS = 0.1, 32, 9, ("layer2", "layer3")
"""anomalib's own defaults (Patchcore and its Folder data module)."""


def main() -> None:
    """Parse the options, fit, predict on request."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("contestant", choices=(OURS, ANOMALIB))
    parser.add_argument("settings", type=Path)
    options = parser.parse_args()
    send = reply_channel()
    import numpy as np

    settings = json.loads(options.settings.read_text(encoding="utf-8"))
    training, tests = np.load(settings["training"]), np.load(settings["tests"])
    fit, predict, about = (ours if options.contestant == OURS else anomalib)(settings, training)
    _, memory = resident.watched(fit)
    send({"fit": memory, "peak": resident.high_water(), **about})
    images = cycle(tests)
    for _ in sys.stdin:
        start = perf_counter()
        score = predict(next(images))
        send({"seconds": perf_counter() - start, "score": score})


def ours(settings: dict[str, Any], training: Any) -> tuple[Callable[[], Any], Callable[[Any], float], dict[str, Any]]:
    """`InReaCh` with its default parameters."""
    from inreach_fast import InReaCh
    from inreach_fast.backbones import load_backbone

    from .workload import resize

    size = settings["image_size"]
    backbone = load_backbone(settings["backbone"], weights=settings["weights"])
    model = InReaCh(backbone=backbone, image_size=size)
    for image in training[:2]:
        backbone.extract(resize(image, size)[None])  # warm
    about: dict[str, Any] = {}

    def fit() -> None:
        model.fit(list(training))
        about.update(stages=dict(model.report_["seconds"]), patches=len(model.nominal_))

    return fit, lambda image: float(model.predict(image).score), about


def anomalib(
    settings: dict[str, Any], training: Any
) -> tuple[Callable[[], Any], Callable[[Any], float], dict[str, Any]]:
    """anomalib's PatchcoreModel with its defaults, on the given network."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.simplefilter("ignore")
    import torch
    from anomalib import __version__
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.manual_seed(0)
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    model = PatchcoreModel(layers=LAYERS, backbone="resnet18", pre_trained=False, num_neighbors=NEIGHBOURS)
    # Replaces the network that it has built from a name by the same layers of the network that ours runs.
    network = _network(settings)
    model.feature_extractor = TimmFeatureExtractor(backbone=network, layers=LAYERS).eval()
    prepare = _preparation(settings)
    layout = _faster_layout(model.feature_extractor, prepare(training[:1]))
    about: dict[str, Any] = {"version": __version__, "layout": str(layout)}

    def features_of(images: Any) -> Any:
        with torch.no_grad():
            return model(prepare(images).contiguous(memory_format=layout))

    def fit() -> None:
        start = perf_counter()
        model.train()
        for first in range(0, len(training), BATCH):
            features_of(training[first : first + BATCH])
        extracted = perf_counter()
        model.subsample_embedding(CORESET)
        model.eval()
        stages = {"features": extracted - start, "coreset": perf_counter() - extracted}
        about.update(stages=stages, patches=len(model.memory_bank))

    return fit, lambda image: float(features_of(image[None]).pred_score[0]), about


def _network(settings: dict[str, Any]) -> Any:
    """torchvision's network of that name; with "caffe_state", the Caffe release's strides, pooling and weights."""
    import torch
    from torch import nn
    from torchvision import models

    network = getattr(models, settings["architecture"])(weights=None)
    if settings["caffe_state"]:
        for first in (network.layer2[0], network.layer3[0]):
            first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
        network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
        missing = network.load_state_dict(torch.load(settings["caffe_state"], weights_only=True), strict=False)[0]
        # Nothing after layer3 is run.
        assert all(name.startswith(("layer4.", "fc.")) or name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def _preparation(settings: dict[str, Any]) -> Callable[[Any], Any]:
    """uint8 (B, H, W, 3) RGB to the network's normalised input; resized as anomalib resizes, to our input's size."""
    import torch
    from torchvision.transforms.v2 import Resize

    size = (settings["image_size"],) * 2
    resize = Resize(size, antialias=True)
    mean = torch.tensor(settings["mean"])[:, None, None]
    std = torch.tensor(settings["std"])[:, None, None]

    def prepare(images: Any) -> Any:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() * settings["scale"]
        batch = resize(batch)
        if settings["channel_order"] == "BGR":
            batch = batch.flip(1)
        return (batch - mean) / std

    return prepare


def _faster_layout(network: Any, image: Any) -> Any:
    """Convert the network to the memory format that is faster here, and return that format."""
    import torch

    seconds = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=layout)
        x = image.contiguous(memory_format=layout)
        with torch.no_grad():
            runs = []
            for _ in range(4):
                start = perf_counter()
                network(x)
                runs.append(perf_counter() - start)
        seconds[layout] = min(runs)
    best = min(seconds, key=lambda layout: seconds[layout])
    network.to(memory_format=best)
    return best


if __name__ == "__main__":
    main()
