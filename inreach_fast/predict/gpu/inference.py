"""From a network input to its score on one GPU (paper, sections 3.1 and 3.4), with one wait: for the score.

    pixels ── network ── levels ── describe ── nearest ── smoothed map ── maximum
                    graph 1      │                  graph 2

Everything is enqueued on one stream. Shapes are fixed, so that after a rehearsal both halves are captured (on a GPU
as CUDA graphs) and an image costs a copy in, two replays and a copy out. Descriptors, map and score have the bits of
the CPU's kernels, given the same levels; the levels are the network's, whose sums round differently on a GPU.

The list of candidates between filter and decision has a fixed size. How many there were comes back with the score, and
an image whose list was too short is searched again, in parts (`kernels.gpu.search`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ...array_types import FloatArray, IndexArray, UInt8Array
from ...errors import GpuError, GpuLostError, NonFiniteError
from ...kernels import Bank
from ...kernels.describe_plan import Plan
from ...kernels.describing import make_plan
from ...kernels.gpu.answers import NONE, Answers, Counts
from ...kernels.gpu.backend import GpuBackend
from ...kernels.gpu.backends import StreamBackend, fitting_capacity
from ...kernels.gpu.candidates import Candidates
from ...kernels.gpu.describe import DescribeTables, LevelView, launch_describe, level_table
from ...kernels.gpu.device import Block, DeviceArray, fill
from ...kernels.gpu.devices.gpu import GpuDevice
from ...kernels.gpu.frame import DeviceRows, find_nonfinite
from ...kernels.gpu.search import Search
from ...kernels.gpu.smooth import SmoothTables, launch_smooth
from ...kernels.results import SearchCounts

T = TypeVar("T")

_log = logging.getLogger("inreach_fast")


class Network(Protocol):
    """A network whose input and levels stay in their places on the GPU, run after run."""

    def feed(self, image: UInt8Array) -> None:
        """The next input, uint8 (H, W, 3), in the order of the stream."""

    def compute(self) -> Sequence[LevelView]:
        """Enqueues the network; its levels, (1, C, h, w) float32."""


class Capture(Protocol):
    """How work that is enqueued once is enqueued again."""

    def __call__(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What ``work`` returned, and what repeats it."""


def repeat_calls(work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """The `Capture` of a device without graphs: the calls themselves."""

    def again() -> None:
        work()

    return work(), again


@dataclass(frozen=True, eq=False)
class Setting:
    """What of a model the GPU needs.

    Attributes:
        bank: nominal patches. grid: (h, w). size: (H, W) of maps.
        dim, neighbourhood, smoothing_sigma: as in `Parameters`.
        positions: float32 (P, 2) position channels, or None.
    """

    bank: Bank
    grid: tuple[int, int]
    size: tuple[int, int]
    dim: int
    neighbourhood: int
    smoothing_sigma: float
    positions: FloatArray | None


@dataclass(frozen=True, eq=False)
class GpuScores:
    """What comes back of one image; arrays as in `Prediction`."""

    score: float
    anomaly_map: FloatArray
    patch_scores: FloatArray
    nearest: IndexArray
    counts: SearchCounts


class GpuInference:
    """One model on one stream of a GPU; one image at a time.

    Args:
        setting: the model's part.
        device: the GPU and the stream; ``network`` works in its order.
        backend: keeps the bank, which several of these share.
        network: see `Network`.
        capture: see `Capture`.
        host: makes the host's side of the copy out, of so many bytes: page-locked where that is to be had.
    """

    def __init__(
        self,
        setting: Setting,
        device: GpuDevice,
        backend: GpuBackend,
        network: Network,
        *,
        capture: Capture = repeat_calls,
        host: Callable[[int], Any] = lambda nbytes: np.empty(nbytes, np.uint8),
    ) -> None:
        self._setting, self._device, self._network, self._capture = setting, device, network, capture
        patches = setting.grid[0] * setting.grid[1]
        # A bank that stays is the backend's; one in pieces is uploaded in the order of this stream, which reads it.
        own = StreamBackend(backend, device)
        search = own.search(patches * len(setting.bank))
        self._target = own.target(setting.bank, search, None)
        # What comes back of an image, at once: on the GPU, and its copy on the host.
        self._result = Block(device, {
            "bad": ((1,), np.uint64),
            "counters": ((2,), np.uint64),
            "nearest": ((patches,), np.int64),
            "listed": ((1,), np.uint32),
            "score": ((1,), np.float32),
            "values": ((patches,), np.float32),
            "map": ((1, *setting.size), np.float32),
        })  # fmt: skip
        self._on_gpu = self._result.arrays
        self._bytes: UInt8Array = host(self._result.block.nbytes)
        self._on_host = self._result.views(self._bytes)
        capacity = max(fitting_capacity(device.free_bytes(), search.capacity), patches)
        self._search = Search(device, search.route, search.head_route, capacity)
        self._places = self._on_gpu["nearest"], self._on_gpu["values"]
        self._smooth = SmoothTables(device, setting.grid, setting.size, setting.smoothing_sigma)
        width = setting.dim + (0 if setting.positions is None else 2)
        rows = np.zeros((patches, width), np.float32)
        if setting.positions is not None:
            rows[:, setting.dim :] = setting.positions
        self._rows = device.upload(rows)
        # float64 (1, H, w), one uint32: work space of the map.
        self._half = device.empty((1, setting.size[0], setting.grid[1]), np.float64)
        self._order = device.empty(1, np.uint32)
        self._replays: list[Callable[[], None]] = []
        self._tables: DescribeTables | None = None
        self._levels: DeviceArray | None = None
        self._work: DeviceArray | None = None
        # Banks that do not fit the GPU are streamed, which waits; and so does a search for which no list is kept.
        self._static = self._target.whole is not None

    def start(self, image: UInt8Array) -> GpuInference:
        """Enqueues an image, uint8 (H, W, 3), and its way back; the caller collects before the next one."""
        self._network.feed(image)
        if not self._replays:
            self._rehearse()
        else:
            for replay in self._replays:
                replay()
        self._copy_out()
        return self

    def collect(self) -> GpuScores:
        """Waits for the image.

        Raises:
            NonFiniteError: the network's features.
        """
        self._device.synchronize()
        result, patches = self._on_host, len(self._rows)
        bad = int(result["bad"][0])
        if bad < patches:
            raise NonFiniteError(f"descriptors: row {bad} holds NaN or infinity")
        pairs, listed = patches * len(self._setting.bank), int(result["listed"][0]) if self._static else 0
        bounded, filtered = (pairs, 0) if self._target.directions is not None else (0, pairs)
        if not self._static or listed > self._search.capacity:
            counts = self._search_waiting(listed)
            bounded, filtered = counts.bounded, counts.filtered
        decided, refined = (int(n) for n in result["counters"])
        grid = self._setting.grid
        return GpuScores(
            float(result["score"][0]),
            result["map"][0].copy(),
            result["values"].reshape(grid).copy(),
            result["nearest"].reshape(grid).copy(),
            SearchCounts(pairs, bounded, filtered + refined, decided, brute_force=filtered > 0),
        )

    # ----------------------------------------------------------------------------------------------- the way

    def _rehearse(self) -> None:
        """The first image: everything is made and loaded that a capture may not make, then captured."""
        levels = self._network.compute()
        plan = self._plan(levels)
        self._tables = DescribeTables(self._device, plan)
        self._work = self._device.empty(self._tables.work_shape(1), np.float32)
        self._levels = self._device.upload(level_table(levels))
        self._after_network()
        self._device.synchronize()
        try:
            _, again = self._capture(self._network.compute)
            _, rest = self._capture(self._after_network)
        except GpuLostError:
            raise
        except (RuntimeError, GpuError) as error:  # a network that cannot be captured: it waits, or branches on values
            first = (str(error).splitlines() or [type(error).__name__])[0]
            _log.warning("no CUDA graph of this network, its launches are made one by one: %s", first)
            _, again = repeat_calls(self._network.compute)
            _, rest = repeat_calls(self._after_network)
        self._replays = [again, rest]
        for replay in self._replays:
            replay()

    def _plan(self, levels: Sequence[LevelView]) -> Plan:
        shapes = tuple(tuple(int(n) for n in level.shape[1:]) for level in levels)
        return make_plan(shapes, self._setting.grid, self._setting.dim, self._setting.neighbourhood)

    def _after_network(self) -> None:
        """Levels to map and maximum; nothing waits."""
        assert self._tables is not None
        assert self._levels is not None
        assert self._work is not None
        device, out = self._device, self._on_gpu
        patches, width = self._rows.shape
        launch_describe(device, self._tables, self._levels, 1, self._work, self._rows, (patches * width, width))
        fill(device, out["bad"], NONE)
        find_nonfinite(device, DeviceRows(self._rows, None, 0, patches), out["bad"])
        if self._static:
            self._search_enqueued()
            self._map()

    def _search_enqueued(self) -> None:
        target, search, patches = self._target, self._search, len(self._rows)
        assert target.whole is not None
        rows = DeviceRows(self._rows, None, 0, patches)
        answers = Answers.none(self._device, patches)
        candidates = Candidates(self._device, search.capacity, count=self._on_gpu["listed"])
        search.enqueue(target.frame, rows, target.whole, answers, candidates, self._counts(), target.directions)
        search.finish(answers.best, answers.nearest, self._places)

    def _map(self) -> None:
        out = self._on_gpu
        scores = out["values"].reshape(1, *self._setting.grid)
        launch_smooth(self._device, self._smooth, scores, self._half, out["map"], self._order, out["score"])

    def _search_waiting(self, listed: int) -> Counts:
        """The search in parts, for banks in pieces and lists that were too short; then the map, and the way back."""
        rows, target = DeviceRows(self._rows, None, 0, len(self._rows)), self._target
        directions = target.directions_after(listed, rows.count)
        counts = self._counts()
        answers = self._search.nearest(target.frame, rows, target.pieces, counts, directions)
        self._search.finish(answers.best, answers.nearest, self._places)
        self._map()
        self._copy_out()
        self._device.synchronize()
        return counts

    def _counts(self) -> Counts:
        return Counts.zero(self._device, self._on_gpu["counters"])

    def _copy_out(self) -> None:
        self._device.copy_out(self._bytes, self._result.block)
