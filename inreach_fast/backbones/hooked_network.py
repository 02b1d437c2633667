"""The levels of any module, by hooks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import nn

from ..errors import BackboneError, ParameterError
from .transformer import is_transformer, tokens_as_map


class _AllCaptured(Exception):
    """Raised by the last hook, so that nothing after the last level is computed."""


class HookedNetwork(nn.Module):
    """Runs `module` and returns copies of the outputs of the sub-modules named `levels`.

    Copies, because an unknown network may work in place on a level's output (an in-place ReLU, or `+=`). They cost a
    few per cent of the forward pass.
    """

    def __init__(self, module: nn.Module, levels: Sequence[str], name: str) -> None:
        super().__init__()
        known = [known for known, _ in module.named_modules() if known]
        for level in levels:
            if level not in known:
                some = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
                raise ParameterError(f"levels: {name} has no sub-module {level!r}; give some of {some}")
        self.body = module
        self.levels = tuple(levels)
        self._name = name
        self._lock = threading.Lock()  # hooks belong to the module: one forward pass at a time

    def __getstate__(self) -> dict[str, Any]:
        # Locks cannot be pickled; a worker's copy makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        captured: dict[str, torch.Tensor] = {}
        size, of_tokens = (int(x.shape[2]), int(x.shape[3])), is_transformer(self.body)

        def hook_for(level: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if not isinstance(output, torch.Tensor):
                    kind = type(output).__name__
                    raise BackboneError(f"levels: {level!r} of {self._name} returns a {kind}; give one with a tensor")
                if output.ndim == 3 and of_tokens:
                    output = tokens_as_map(self.body, output, size, level)
                captured[level] = output.detach().clone(memory_format=torch.preserve_format)
                if len(captured) == len(self.levels):
                    raise _AllCaptured

            return hook

        with self._lock, suppress(_AllCaptured), ExitStack() as hooks:
            for level in self.levels:
                hooks.enter_context(self.body.get_submodule(level).register_forward_hook(hook_for(level)))
            self.body(x)
        for level in self.levels:
            if level not in captured:
                raise BackboneError(
                    f"levels: {level!r} of {self._name} is not reached by its forward pass; leave it out"
                )
        return [captured[level] for level in self.levels]
