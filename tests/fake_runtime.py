"""A runtime that is torch itself, exported through a file: for tests of what all exported runtimes have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from inreach_fast.backbones import choosing, runtimes
from inreach_fast.backbones.exported_network import ExportedNetwork, Levels


class FakeNetwork(ExportedNetwork):
    """Its features are torch's times ``FakeNetwork.gain``; it counts exports."""

    runtime = "openvino"
    gain = 1.0
    exports = 0

    def versions(self) -> dict[str, str]:
        return {"openvino": "0.0"}

    def write(self, network: nn.Module, example: torch.Tensor, folder: Path) -> None:
        type(self).exports += 1
        torch.jit.trace(network, (example,)).save(folder / "network.pt")

    def open(self, folder: Path, threads: int, precision: str) -> Callable[[torch.Tensor], Levels]:
        traced, gain = torch.jit.load(folder / "network.pt"), self.gain
        return lambda pixels: [(level * gain).contiguous() for level in traced(pixels)]


def use(patch: pytest.MonkeyPatch, cache: Path) -> type[FakeNetwork]:
    """Makes the fake the runtime "openvino", the only one besides torch that is installed."""
    patch.setenv("INREACH_NETWORK_CACHE", str(cache))
    patch.setattr(runtimes, "_EXPORTED", {"openvino": FakeNetwork})
    patch.setattr(choosing, "is_installed", lambda name: name == "openvino")
    patch.setattr(FakeNetwork, "gain", 1.0 + 1e-6)
    patch.setattr(FakeNetwork, "exports", 0)
    return FakeNetwork
