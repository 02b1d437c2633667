"""From a network input to its score on one GPU (paper, sections 3.1 and 3.4), with one wait: for the score.

    pixels ── network ── levels ── describe ── nearest ── smoothed map ── maximum
                    graph 1      │                  graph 2

Everything is enqueued on one stream. The first image runs call by call; then both halves are captured (on a GPU as
CUDA graphs), and an image costs a copy in, two replays and a copy out. The length of the list of candidates comes back
with the score, and an image whose list was too short is searched again, in parts. See docs/gpu.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...array_types import FloatArray, IndexArray, UInt8Array
from ...errors import GpuError, GpuLostError, NonFiniteError
from ...kernels import Bank
from ...kernels.describing import make_plan
from ...kernels.gpu.backend import GpuBackend, fitting_capacity
from ...kernels.gpu.describe import DescribeLauncher, level_table
from ...kernels.gpu.device import Block, Device, fill
from ...kernels.gpu.frame import DeviceRows, find_nonfinite
from ...kernels.gpu.search_state import NONE, Answers, Candidates, Counts
from ...kernels.gpu.smooth import Smoother
from ...kernels.results import SearchCounts
from ...method.scoring import axis_operator
from .network import Capture, TorchNetwork, repeat_calls

_log = logging.getLogger("inreach_fast")


@dataclass(frozen=True, eq=False)
class GpuModel:
    """The parts of a model that the GPU needs: grid (h, w), size (H, W) of maps, positions float32 (P, 2)."""

    bank: Bank
    grid: tuple[int, int]
    size: tuple[int, int]
    dim: int
    neighbourhood: int
    smoothing_sigma: float
    positions: FloatArray | None


@dataclass(frozen=True, eq=False)
class GpuScores:
    """The outcome for one image; arrays as in `Prediction`."""

    score: float
    anomaly_map: FloatArray
    patch_scores: FloatArray
    nearest: IndexArray
    counts: SearchCounts


class GpuInference:
    """One model on one stream of a GPU; one image at a time.

    Args:
        device: the GPU and the stream; ``network`` works in its order.
        backend: keeps the bank, which several of these share.
        host: allocates the host's side of the copy out, of so many bytes: page-locked where possible.
    """

    def __init__(
        self,
        model: GpuModel,
        device: Device,
        backend: GpuBackend,
        network: TorchNetwork,
        *,
        capture: Capture = repeat_calls,
        host: Callable[[int], Any] = lambda nbytes: np.empty(nbytes, np.uint8),
    ) -> None:
        self._model, self._device, self._network, self._capture = model, device, network, capture
        (h, w), (height, width) = model.grid, model.size
        patches = h * w
        # A bank that stays is the backend's; one in pieces is uploaded in the order of this stream, which reads it.
        own = backend.on_stream(device)
        search = own.search(patches * len(model.bank))
        self._target = own.target(model.bank, search, None)
        # The outcome for an image in one block: on the GPU, and its copy on the host.
        self._result = Block(device, {
            "bad": ((1,), np.uint64),
            "counters": ((2,), np.uint64),
            "nearest": ((patches,), np.int64),
            "listed": ((1,), np.uint32),
            "score": ((1,), np.float32),
            "values": ((patches,), np.float32),
            "map": ((1, height, width), np.float32),
        })  # fmt: skip
        self._on_gpu = self._result.arrays
        self._bytes: UInt8Array = host(self._result.block.nbytes)
        self._on_host = self._result.views(self._bytes)
        self._search = replace(search, capacity=max(fitting_capacity(device.free_bytes(), search.capacity), patches))
        sigma = model.smoothing_sigma
        self._smoother = Smoother(device, axis_operator(height, h, sigma), axis_operator(width, w, sigma), model.size)
        rows = np.zeros((patches, model.dim + (0 if model.positions is None else 2)), np.float32)
        if model.positions is not None:
            rows[:, model.dim :] = model.positions
        self._rows = DeviceRows(device.upload(rows), None, 0, patches)
        self._replays: list[Callable[[], object]] = []
        self._static = self._target.whole is not None  # a bank that does not fit the GPU is streamed, which waits

    def start(self, image: UInt8Array) -> GpuInference:
        """Enqueues an image, uint8 (H, W, 3), and its way back; the caller collects it before the next one."""
        self._network.feed(image)
        if not self._replays:
            self._prepare()
        for replay in self._replays:
            replay()
        self._device.copy_out(self._bytes, self._result.block)
        return self

    def collect(self) -> GpuScores:
        """Waits for the image; NonFiniteError where the network's features hold NaN or infinity."""
        self._device.synchronize()
        result, patches = self._on_host, len(self._rows)
        bad = int(result["bad"][0])
        if bad < patches:
            raise NonFiniteError(f"descriptors: row {bad} holds NaN or infinity")
        listed = int(result["listed"][0]) if self._static else 0
        whole = self._static and listed <= self._search.capacity
        counts = self._counts if whole else self._search_in_parts(listed)
        decided, refined = (int(n) for n in result["counters"])
        values, nearest = (result[name].reshape(self._model.grid).copy() for name in ("values", "nearest"))
        totals = counts.totals(patches * len(self._model.bank), decided, refined)
        return GpuScores(float(result["score"][0]), result["map"][0].copy(), values, nearest, totals)

    def _prepare(self) -> None:
        """Runs both halves call by call, which allocates and loads what a capture may not; then captures them."""
        model, device = self._model, self._device
        levels = self._network.compute()
        shapes = tuple(tuple(int(n) for n in level.shape[1:]) for level in levels)
        self._describer = DescribeLauncher(device, make_plan(shapes, model.grid, model.dim, model.neighbourhood))
        self._levels = device.upload(level_table(levels))
        self._after_network()
        device.synchronize()
        halves = self._network.compute, self._after_network
        try:
            self._replays = [self._capture(half) for half in halves]
        except GpuLostError:
            raise
        except (RuntimeError, GpuError) as error:  # a network that waits, or branches on values
            first = (str(error).splitlines() or [type(error).__name__])[0]
            _log.warning("no CUDA graph of this network, its launches are made one by one: %s", first)
            self._replays = [repeat_calls(half) for half in halves]

    def _after_network(self) -> None:
        """Levels to map and maximum, without waiting."""
        device, out, rows = self._device, self._on_gpu, self._rows
        patches, width = rows.values.shape
        self._describer.launch(device, self._levels, 1, rows.values, (patches * width, width))
        fill(device, out["bad"], NONE)
        find_nonfinite(device, rows, out["bad"])
        if self._static:
            answers = Answers.none(device, patches, self._target.frame)
            self._counts = Counts.zero(device, out["counters"])
            candidates = Candidates(device, self._search.capacity, self._counts, count=out["listed"])
            self._search.enqueue(self._target, rows, answers, candidates)
            self._finish(answers)

    def _search_in_parts(self, listed: int) -> Counts:
        """The search and the map for banks in pieces and lists that were too short; waits."""
        target, patches = self._target, len(self._rows)
        counts = Counts.zero(self._device, self._on_gpu["counters"])
        answers = Answers.none(self._device, patches, target.frame)
        self._search.complete(target.after(listed, patches), self._rows, answers, counts)
        self._finish(answers)
        self._device.copy_out(self._bytes, self._result.block)
        self._device.synchronize()
        return counts

    def _finish(self, answers: Answers) -> None:
        """Answers to patch scores, map and maximum."""
        out = self._on_gpu
        self._search.finish(answers.best, answers.nearest, (out["nearest"], out["values"]))
        self._smoother.launch(out["values"].reshape(1, *self._model.grid), out["map"], out["score"])
