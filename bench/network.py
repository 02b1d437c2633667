"""The network by each runtime that is installed, against torch layer by layer; one image, interleaved rounds.

torch also runs without Winograd's algorithm, to show what that alone brings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from inreach_fast.backbones import RUNTIMES, Backbone, is_installed, load_backbone

from .records import Case, timed_case
from .timing import race

EAGER = "torch layer by layer"
DIRECT = "torch, direct convolutions"
INT8 = "openvino, int8"
# Each at least so many times as fast as `EAGER`.
GOALS = {"torch": 1.35, "openvino": 1.5, "onnxruntime": 1.5}
NETWORK = "wide_resnet50_2"


def run(
    image_size: int, *, quick: bool = False, threads: int | None = None, network: Backbone | None = None
) -> list[Case]:
    """A case for each runtime and number of threads: one, and torch's own.

    The network is WideResNet50-2 up to its 13th block, with random weights (the time is the same), if none is given.
    """
    import torch

    eager = network or load_backbone(NETWORK, weights="random")
    size = (image_size, image_size)
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    backbones = {name: eager.with_runtime(name, size) for name in RUNTIMES if name in GOALS and is_installed(name)}
    direct = _without_winograd(eager.with_runtime("torch", size))
    if "openvino" in backbones and "INT8" in _capabilities():
        backbones[INT8] = eager.quantized(image).with_runtime("openvino", size)
    own = threads or torch.get_num_threads()
    cases = []
    for count in sorted({1, own}):
        with _torch_threads(count):
            everyone = {EAGER: eager, DIRECT: direct, **backbones}
            off = {name: f"{_difference(backbones[name], eager, image):.1e}" for name in backbones}
            before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
            seconds = race(
                {name: lambda backbone=backbone: backbone.extract(image) for name, backbone in everyone.items()},
                rounds=5 if quick else 25,
                budget=90,
            )
            for name in backbones:
                cases.append(
                    timed_case(
                        f"{eager.name} by {name}, {count} thread{'s' if count > 1 else ''}",
                        {who: seconds[who] for who in (EAGER, *([DIRECT] if name == "torch" else []), name)},
                        data=f"one image, {size[0]} x {size[1]}",
                        ours=name,
                        goals={EAGER: GOALS[name]} if name in GOALS else None,
                        checks={"greatest feature difference": off[name], "load before": f"{before:.2f}"},
                    )
                )
    return cases


def _without_winograd(backbone: Backbone) -> Backbone:
    from inreach_fast.backbones.fused_convolution import FusedConvolution

    for module in backbone._network.modules():
        if isinstance(module, FusedConvolution):
            module.winograd = False
    return backbone


def _capabilities() -> list[str]:
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _difference(backbone: Any, eager: Any, image: Any) -> float:
    from inreach_fast.backbones.exported_network import largest_difference

    return largest_difference(backbone.extract(image), eager.extract(image))


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
