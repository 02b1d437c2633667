"""What a backbone is made of: a module, the names of its levels, and how its input is normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError


@dataclass(frozen=True)
class Normalisation:
    """From 8-bit RGB to the network's input: ``(channel * scale - mean) / std`` for each channel.

    Attributes:
        mean, std: three numbers each, in the order of `channel_order`.
        scale: 1/255 for most networks, 1 for Caffe's.
        channel_order: "RGB" or "BGR", the network's order of colours.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "BGR"):
            raise ParameterError(f"normalisation: channel_order must be 'RGB' or 'BGR', got {self.channel_order!r}")
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            if len(values) != 3 or any(v != v or abs(v) == float("inf") for v in values):
                raise ParameterError(f"normalisation: {name} must be three finite numbers, got {values}")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0 or not 0 < self.scale < float("inf"):
            raise ParameterError("normalisation: std and scale must be above 0")

    def to_json(self) -> dict[str, Any]:
        values = {"mean": list(self.mean), "std": list(self.std)}
        return {**values, "scale": self.scale, "channel_order": self.channel_order}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Normalisation:
        return cls(tuple(values["mean"]), tuple(values["std"]), values["scale"], values["channel_order"])


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's published mean and standard deviation, RGB."""

REFERENCE = Normalisation((0.456, 0.406, 0.485), (0.229, 0.224, 0.225), 1 / 255, "BGR")
"""The input of the authors' program: BGR as OpenCV reads it, with these means (ALGORITHM section 1)."""

_BY_NAME = {"imagenet": IMAGENET, "reference": REFERENCE}


def as_normalisation(value: Normalisation | str | None, default: Normalisation) -> Normalisation:
    """The parameter `normalisation` (None, "imagenet", "reference" or the object itself) as an object."""
    if value is None:
        return default
    if isinstance(value, Normalisation):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]
    raise ParameterError(f"normalisation: expected None, 'imagenet', 'reference' or a Normalisation, got {value!r}")


@dataclass(frozen=True)
class BackboneDefinition:
    """Description of a backbone; returned by a factory (`FILE.py:FACTORY`).

    Attributes:
        module: the network, with its weights; its levels' outputs are (B, C, h, w).
        levels: names of sub-modules (as in `module.named_modules()`), from shallow to deep; the first one's grid is
            the grid of the patches. `depth=n` takes the first n.
        normalisation: of its input.
        name: shown in outputs and saved with the model.
        hierarchies: levels by the name that `depth` takes, such as "PC".
        known_levels: names that `depth` may list; any name if empty.
    """

    module: nn.Module
    levels: tuple[str, ...]
    normalisation: Normalisation = IMAGENET
    name: str = "custom"
    hierarchies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known_levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise ParameterError(f"{self.name}: module must be a torch.nn.Module, got {type(self.module).__name__}")
        if not isinstance(self.normalisation, Normalisation):
            raise ParameterError(f"{self.name}: normalisation must be a Normalisation")
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels:
            raise ParameterError(f"{self.name}: levels is empty; name at least one sub-module")

    def choose_levels(self, depth: int | str | Sequence[str]) -> tuple[str, ...]:
        """The names of the levels for the parameter `depth`.

        An int n of 1 to 13 takes the first n of `levels` (all if there are fewer: 13 stands for the supplement's
        "first 13 residual blocks"); a str is looked up in `hierarchies`; a sequence of names is taken unchanged.

        Raises:
            ParameterError: out of range, or a name that the network does not have.
        """
        named = ", ".join(map(repr, self.hierarchies)) or "no named hierarchy"
        if isinstance(depth, bool) or not isinstance(depth, (int, str, list, tuple)):
            raise ParameterError(f"depth: give 1 to 13, {named} or a tuple of level names, not {depth!r}")
        if isinstance(depth, int):
            if not 1 <= depth <= 13:
                raise ParameterError(f"depth: give 1 to 13 (the number of levels, from the shallowest), not {depth}")
            return self.levels[:depth]
        if isinstance(depth, str):
            if depth not in self.hierarchies:
                raise ParameterError(f"depth: {self.name} has no hierarchy {depth!r}; it has {named}")
            return tuple(self.hierarchies[depth])
        chosen = tuple(depth)
        if not chosen or len(set(chosen)) != len(chosen):
            raise ParameterError(f"depth: give each level once, and at least one, not {chosen!r}")
        for level in chosen:
            if self.known_levels and level not in self.known_levels:
                raise ParameterError(
                    f"depth: {self.name} has no level {level!r}; it has {', '.join(self.known_levels)}"
                )
        return chosen


class CutNetwork(nn.Module):
    """Stem and blocks of ``module`` up to the last level, under the names that they have there.

    ``stem`` and ``blocks`` name sub-modules that run one after another; the levels are some of the blocks. No block may
    change what an earlier one returned.
    """

    def __init__(self, module: nn.Module, stem: Sequence[str], blocks: Sequence[str], levels: Sequence[str]) -> None:
        super().__init__()
        self._levels = tuple(levels)
        self._kept = (*stem, *blocks[: 1 + max(blocks.index(level) for level in levels)])
        for name in self._kept:
            stage, _, own = name.rpartition(".")
            if stage and not hasattr(self, stage):
                self.add_module(stage, nn.Module())
            self.get_submodule(stage).add_module(own, module.get_submodule(name))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs: dict[str, torch.Tensor] = {}
        for name in self._kept:
            x = self.get_submodule(name)(x)
            if name in self._levels:
                outputs[name] = x
        return [outputs[level] for level in self._levels]
