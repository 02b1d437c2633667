"""A network of two convolutions, for tests that need one and not its features."""

from __future__ import annotations

from typing import Any

from torch import nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import torch

        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).relu())
