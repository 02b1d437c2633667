"""A network that is exported to another runtime: once for each size of its input, kept in the cache, and checked.

`OpenVinoNetwork` and `OnnxNetwork` say how it is written and run.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ..errors import BackboneError, ForkError, InReachError, ParameterError, RuntimeUnavailableError
from ..system.interrupts import interrupts_kept
from ..system.threads import started_elsewhere
from . import network_cache
from .quantization import is_quantized

_REVISION = 1  # of what is written; another one leaves the cache's older entries unused
# Greatest difference of a level from torch's, relative to the level's greatest value. Float32 sums in another order
# differ by 1e-6 to 1e-5; a network that was exported wrongly by far more.
_TOLERANCE = 1e-4
# The same of 8-bit products: where torch rounds a value up, another runtime may round it down.
_INT8_TOLERANCE = 0.25
_log = logging.getLogger("inreach_fast")

Levels = list[torch.Tensor]


class ChannelsLast(nn.Module):
    """The network from (1, H, W, 3) to levels (1, h, w, C), so that nothing is transposed outside of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(level.permute(0, 2, 3, 1) for level in self.network(pixels.permute(0, 3, 1, 2)))


class ExportedNetwork(ABC):
    """From a normalised float32 (B, 3, H, W) on the CPU to a list of levels, as the network that is exported.

    An export is made at the first input of a size, or taken from the cache, and its levels of one image are compared
    with torch's before any other is computed. Threads: as many as torch has then.

    Args:
        network: what is exported, and what it is compared with.
        fingerprint: of the network, `Backbone.fingerprint`.
        name: of the network, for messages.

    Raises (when called):
        RuntimeUnavailableError: the runtime is not installed, or cannot run this network. ForkError: this process was
        forked after a network had run.
    """

    runtime: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("float32",)

    def __init__(self, network: nn.Module, fingerprint: str, name: str) -> None:
        self.network, self.fingerprint, self.name = network, fingerprint, name
        self._open: dict[tuple[Any, ...], Callable[[torch.Tensor], Levels]] = {}
        self._checked: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self.versions()

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of what an export depends on. Raises RuntimeUnavailableError where something is not installed."""

    @abstractmethod
    def write(self, network: nn.Module, example: torch.Tensor, folder: Path) -> None:
        """Writes the export of a network of the form of `ChannelsLast`; OSError if the folder is to blame."""

    @abstractmethod
    def open(self, folder: Path, threads: int, precision: str) -> Callable[[torch.Tensor], Levels]:
        """What computes the levels of one (1, H, W, 3), as (1, h, w, C) in memory that is not written to later."""

    def __call__(self, x: torch.Tensor, precision: str = "float32") -> Levels:
        _before_run(self.runtime)
        size, threads = (int(x.shape[2]), int(x.shape[3])), torch.get_num_threads()
        with self._lock:
            compute = self._open.get((size, threads, precision))
            if compute is None:
                compute = self._opened(size, threads, precision)
                self._open[size, threads, precision] = compute
        pixels = x.permute(0, 2, 3, 1).contiguous()
        images = [compute(pixels[i : i + 1]) for i in range(len(x))]
        levels = images[0] if len(images) == 1 else [torch.cat(parts) for parts in zip(*images, strict=True)]
        return [level.permute(0, 3, 1, 2) for level in levels]

    def _opened(self, size: tuple[int, int], threads: int, precision: str) -> Callable[[torch.Tensor], Levels]:
        if precision not in self.precisions:
            raise ParameterError(
                f"precision: {self.runtime} computes in {' or '.join(self.precisions)}, not in {precision}; choose one "
                'of these, or backbone_runtime="torch"'
            )
        facts = {
            "revision": _REVISION,
            "fingerprint": self.fingerprint,
            "structure": hashlib.sha256(repr(self.network).encode()).hexdigest(),
            "size": size,
            "runtime": self.runtime,
            "versions": self.versions() | {"torch": str(torch.__version__)},
        }
        try:
            with ExitStack() as stack:
                stack.enter_context(interrupts_kept())
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")  # exporters say which of torch's ways will go,
                stack.enter_context(redirect_stdout(StringIO()))  # and print what they cannot take
                key = network_cache.key_of(facts)
                folder = stack.enter_context(network_cache.cached(key, lambda folder: self._write(folder, size)))
                compute = self.open(folder, threads, precision)
                if precision == "float32" and size not in self._checked:
                    self._check(compute, size)
                    self._checked.add(size)
                return compute
        except InReachError:
            raise
        except Exception as error:
            raise self._failed("cannot open", error) from error

    def _write(self, folder: Path, size: tuple[int, int]) -> None:
        _log.info("backbone: %s is exported to %s for %d x %d pixels", self.name, self.runtime, *size)
        try:
            with torch.no_grad():
                self.write(ChannelsLast(self.network).eval(), torch.zeros(1, *size, 3), folder)
        except (InReachError, OSError):
            raise
        except Exception as error:  # the exporters raise whatever they meet
            raise self._failed("cannot take", error) from error

    def _check(self, compute: Callable[[torch.Tensor], Levels], size: tuple[int, int]) -> None:
        random = torch.Generator().manual_seed(0)
        pixels = torch.randn(1, *size, 3, generator=random)
        with torch.inference_mode():
            expected = self.network(pixels.permute(0, 3, 1, 2))
            found = [level.permute(0, 3, 1, 2) for level in compute(pixels)]
        off = largest_difference(found, expected)
        if not off <= (_INT8_TOLERANCE if is_quantized(self.network) else _TOLERANCE):
            raise RuntimeUnavailableError(
                f"backbone_runtime: {self.name} by {self.runtime} has other features than by torch (by {off:.1e} of a "
                f"level's greatest); empty the cache (inreach runtimes --empty-cache), or choose "
                'backbone_runtime="torch"'
            )

    def _failed(self, what: str, error: Exception) -> BackboneError:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return RuntimeUnavailableError(
            f"backbone_runtime: {self.runtime} {what} {self.name} ({type(error).__name__}: {first}); choose "
            'backbone_runtime="torch"'
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_checked", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open={}, _checked=set(), _lock=threading.Lock())


def _before_run(runtime: str) -> None:
    """Raises ForkError in a process that was forked after a runtime had started its threads, which are missing here."""
    if process := started_elsewhere("runtimes"):
        raise ForkError(
            f"backbone_runtime: this process was forked after a network had run in process {process}, and {runtime} "
            'would wait for its threads for ever; start processes with multiprocessing.get_context("spawn")'
        )


def largest_difference(found: Levels, expected: Levels) -> float:
    """The greatest |difference| of two lists of levels, relative to the greatest |value| of the expected level.

    Infinity where shapes differ or a value is not finite.
    """
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        difference, greatest = float((one - other).abs().max()), float(other.abs().max())
        relative = difference / greatest if greatest > 0.0 else float("inf") if difference else 0.0
        worst = max(worst, relative) if relative == relative else float("inf")
    return worst
