"""Descriptors: the fused `describe` against the unfolding route and against the backbone that feeds it.

    python -m bench.bench_describe [--quick] [--json FILE]

One process, medians; backbone and `describe` take turns, so that a busy machine slows both. Levels are the
13 outputs of torchvision's wide_resnet50_2 (random weights, cut after layer3) at 224 px, channels_last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import inreach_fast
from inreach_fast.kernels import available_backends, describe

GRID = (56, 56)
DIM = 1024


def unfolding_route(levels: list[torch.Tensor]) -> torch.Tensor:
    """ALGORITHM section 3 step by step, as in the authors' program: (1, C, h, w) levels -> (P, DIM)."""
    functional = torch.nn.functional
    vectors = []
    for level in levels:
        _, c, h, w = level.shape
        x = functional.unfold(level, 3, padding=1).reshape(1, c * 9, h, w)
        if (h, w) != GRID:
            x = functional.interpolate(x, size=GRID, mode="bilinear", align_corners=False)
        features = x.flatten(2).transpose(1, 2)  # (1, P, C * 9)
        vectors.append(functional.adaptive_avg_pool1d(features, DIM))
    return functional.adaptive_avg_pool1d(torch.cat(vectors, dim=2), DIM)[0]


class CutBackbone(torch.nn.Module):
    """wide_resnet50_2 up to layer3, giving the output of each of its 13 blocks."""

    def __init__(self) -> None:
        super().__init__()
        net = torchvision.models.wide_resnet50_2(weights=None)
        self.stem = torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.blocks = torch.nn.ModuleList([*net.layer1, *net.layer2, *net.layer3])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run(quick: bool = False) -> dict[str, Any]:
    """Measure everything: seconds per image, ready for JSON."""
    repeats, slow_repeats = (7, 1) if quick else (31, 3)
    threads = inreach_fast.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = CutBackbone().eval().to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    out = np.empty((1, GRID[0] * GRID[1], DIM), np.float32)
    result: dict[str, Any] = {"threads": threads, "repeats": repeats, "grid": list(GRID), "dim": DIM}
    times: dict[str, list[float]] = {}

    def measure(name: str, function: Callable[[], Any]) -> None:
        times.setdefault(name, []).append(seconds(function))

    with torch.inference_mode():
        levels = net(image)
        contiguous = [level.contiguous() for level in levels]
        for backend in available_backends():  # compiles, plans, allocates
            describe(levels, grid=GRID, dim=DIM, backend=backend, out=out)
        for _ in range(slow_repeats):
            measure("unfolding", lambda: unfolding_route(contiguous))
            measure("backbone", lambda: net(image))
            for backend in available_backends():
                if backend != "native":
                    measure(backend, partial(describe, levels, grid=GRID, dim=DIM, backend=backend, out=out))
        for _ in range(repeats):
            fresh: list[torch.Tensor] = []
            measure("backbone", lambda into=fresh: into.extend(net(image)))
            # Levels straight from the network, so that the caches are in the state of real use.
            measure("native", lambda x=fresh: describe(x, grid=GRID, dim=DIM, out=out))
        for _ in range(repeats):
            measure("native NCHW", lambda: describe(contiguous, grid=GRID, dim=DIM, out=out))
        expected = unfolding_route([level.double() for level in contiguous]).numpy()
        got = describe(levels, grid=GRID, dim=DIM)[0]
    if "native" in available_backends():
        from inreach_fast import _core

        before = _core.isa()
        for isa in _core.isa_levels():
            _core.set_isa(isa)
            for _ in range(repeats):
                measure(f"native {isa}", lambda: describe(levels, grid=GRID, dim=DIM, out=out))
        _core.set_isa(before)
        result["isa"] = before
    result["seconds"] = {name: statistics.median(values) for name, values in times.items()}
    result["all_seconds"] = times
    result["times_faster_than_unfolding"] = result["seconds"]["unfolding"] / result["seconds"]["native"]
    result["share_of_backbone"] = result["seconds"]["native"] / result["seconds"]["backbone"]
    result["all_seconds"] = times
    result["largest_difference"] = float(np.abs(got - expected).max())
    result["largest_relative_difference"] = result["largest_difference"] / float(np.abs(expected).max())
    return result


def markdown(result: dict[str, Any]) -> str:
    """The Markdown table of one run."""
    base = result["seconds"]["unfolding"]
    rows = [
        "| descriptors of one image (3136 x 1024) | ms | times the unfolding route |",
        "|---|---:|---:|",
        *(f"| {name} | {1e3 * s:.2f} | {base / s:.1f} |" for name, s in result["seconds"].items()),
    ]
    return "\n".join(rows) + (
        f"\n\n{result['threads']} threads; `describe` takes {100 * result['share_of_backbone']:.1f} % of the"
        f" backbone's time. Largest difference from the float64 unfolding route:"
        f" {result['largest_relative_difference']:.1e} of the largest value."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, help="also write the raw figures here")
    options = parser.parse_args()
    result = run(options.quick)
    print(markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
