"""The levels of any torch.nn.Module, by forward hooks, stopping as soon as the last one is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import BackboneError, ParameterError
from .definition import LevelNetwork


class _AllCaptured(Exception):
    """Raised by the last hook, so that what comes after the last level is never computed."""


class HookedNetwork(LevelNetwork):
    """Runs `module` and returns copies of the outputs of the sub-modules named `levels`.

    Copies, because a later operation of an unknown network may work in place on a level's output (an in-place
    ReLU, or `+=`); a copy costs a few per cent of the forward pass. The networks of this package do not need
    it.
    """

    def __init__(self, module: nn.Module, levels: Sequence[str], name: str) -> None:
        super().__init__()
        known = dict(module.named_modules())
        for level in levels:
            if not level or level not in known:
                raise ParameterError(f"levels: {name} has no sub-module {level!r}; it has {_some(known)}.")
        self.body = module
        self._levels = tuple(levels)
        self._name = name
        self._lock = threading.Lock()  # hooks belong to the module: one forward pass at a time

    def __getstate__(self) -> dict[str, Any]:
        # For workers in other processes: the lock stays here, and a copy has one of its own.
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        captured: dict[str, torch.Tensor] = {}

        def hook_for(level: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if not isinstance(output, torch.Tensor):
                    kind = type(output).__name__
                    raise BackboneError(f"{self._name}: level {level!r} returns a {kind}, not a tensor.")
                captured[level] = output.detach().clone(memory_format=torch.preserve_format)
                if len(captured) == len(self._levels):
                    raise _AllCaptured

            return hook

        with self._lock:
            handles = []
            try:
                for level in self._levels:
                    handles.append(self.body.get_submodule(level).register_forward_hook(hook_for(level)))
                self.body(x)
            except _AllCaptured:
                pass
            finally:
                for handle in handles:
                    handle.remove()
        missing = [level for level in self._levels if level not in captured]
        if missing:
            raise BackboneError(f"{self._name}: level {missing[0]!r} is not reached by the network's forward pass.")
        return [captured[level] for level in self._levels]


def _some(names: dict[str, nn.Module]) -> str:
    shown = [n for n in names if n][:12]
    return ", ".join(shown) + (", ..." if len(names) > 13 else "")
