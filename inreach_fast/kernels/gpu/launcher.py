"""The launches that searches consist of: filter, decision, reaches, answers (csrc/cuda/kernels/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...errors import BackendError
from .device import Argument, Device, DeviceArray, blocks, launch_each
from .frame import DeviceRows, Directions, Frame, FramedRows, Piece
from .routes import FORMATS, Route
from .search_state import Answers, Candidates

_TASKS = ("nearest", "mutual", "collect", "least", "argmin")  # in the order of their numbers in tile.cuh
_GRID_STRIDE = 2048  # blocks of a grid-stride launch
_MAX_GRID_Y = 65535
_CHUNK = 1 << 13  # queries at once, at most
_LEAST_BYTES = 256 << 20  # of the upper bounds of k > 1


@dataclass
class Launcher:
    """Launches with one choice of kernels on one device.

    ``route`` is the filter in all dimensions, ``head_route`` the one in leading directions; ``capacity`` is the number
    of places in the list of candidates.
    """

    device: Device
    route: Route = field(default_factory=Route)
    head_route: Route = field(default_factory=Route)
    capacity: int = 1 << 20

    def __post_init__(self) -> None:
        for route in (self.route, self.head_route):
            needed = FORMATS[route.format].compute_capability
            if tuple(self.device.compute_capability) < needed:
                raise BackendError(
                    f"{self.device.name}: no matrix instructions of {route.format}, which need compute capability "
                    f"{needed[0]}.{needed[1]}; use fp16 or f32"
                )

    def piece(self, frame: Frame, base: int, rows: DeviceRows, directions: Directions | None = None) -> Piece:
        """Rows in the frame, and in leading directions if there are any; ``base``: number of the first row."""
        heads = None if directions is None else directions.rows(self.device, frame, rows, self.head_route.format)
        return Piece(base, rows, frame.rows(self.device, rows, self.route.format), heads)

    @property
    def at_once(self) -> int:
        """Queries that can be searched together."""
        return min(_CHUNK, self.capacity)

    def chunks(self, count: int, width: int = 0) -> Iterator[tuple[int, int]]:
        """Ranges of queries that are searched together; ``width``: upper bounds of each (k > 1)."""
        size = self.at_once
        if width:
            size = max(1, min(size, _LEAST_BYTES // (4 * width)))
        for first in range(0, count, size):
            yield first, min(first + size, count)

    @property
    def spread(self) -> tuple[int]:
        """Grid of a launch over the candidates, whose number only the GPU knows."""
        return (min(_GRID_STRIDE, 8 * self.device.multiprocessors, blocks(self.capacity, 16)),)

    def filter(
        self,
        task: str,
        queries: Piece,
        bank: Piece,
        q_reach: DeviceArray | None = None,
        x_reach: DeviceArray | None = None,
        *,
        heads: bool = False,
        candidates: Candidates | None = None,
        argmin: DeviceArray | None = None,
        least: DeviceArray | None = None,
    ) -> None:
        """One filter over all pairs of queries and bank rows, in all dimensions or in leading directions (``heads``).

        Args:
            task: one of ``_TASKS`` (tile.cuh says what each lowers, lists or writes).
            queries, bank: stored in the route's format.
            q_reach, x_reach: what may still be nearer, read and lowered; None where the task needs none.
            candidates, argmin, least: what the task writes.
        """
        route, q, x = self.route, queries.framed, bank.framed
        if heads:
            route, q, x = self.head_route, _heads_of(queries), _heads_of(bank)
        nowhere: tuple[Argument, ...] = (None, None, None, None, np.uint32(0))
        listed = nowhere if candidates is None else candidates.listed
        q_group, x_group = _groups(queries, bank)
        tiles, query_tiles = blocks(bank.count, route.tile), blocks(queries.count, route.tile)
        assert query_tiles <= _MAX_GRID_Y
        # Blocks go on to the next tile of bank rows with the reaches that they and others have lowered so far.
        across = min(tiles, blocks(4 * self.device.multiprocessors, query_tiles))
        self.device.launch(route.kernel, (across, query_tiles), route.threads, (
            q.values, q.low, q.extra, q_group, np.int32(queries.count), x.values, x.low, x.extra, x_group,
            np.int32(bank.count), np.int32(q.depth), q.bounds.stretch, q.bounds.floor, np.int32(_TASKS.index(task)),
            np.uint32(bank.base), q_reach, x_reach, *listed, argmin, least,
            np.int32(0 if least is None else least.shape[1]),
        ))  # fmt: skip

    def refine(self, queries: Piece, bank: Piece, candidates: Candidates, reach: DeviceArray) -> None:
        """Bounds in all dimensions of the pairs that leading directions let through."""
        q, x, heads = queries.framed, bank.framed, _heads_of(queries)
        self.device.launch(f"refine_{self.route.format}", self.spread, 256, (
            q.values, q.low, q.extra, x.values, x.low, x.extra, np.int32(q.depth), q.bounds.stretch, q.bounds.floor,
            heads.bounds.stretch, heads.bounds.floor, np.uint32(bank.base), reach, *candidates.listed,
            candidates.counts.refined,
        ))  # fmt: skip

    def guess(self, queries: Piece, bank: Piece, hint: DeviceArray, candidates: Candidates) -> None:
        """Lists for each query the bank row of a hint, int64 (m,); numbers outside the piece are skipped."""
        launch_each(
            self.device, "guess", queries.count, hint, *_groups(queries, bank), np.uint32(bank.base),
            np.int32(bank.count), np.int32(queries.count), *candidates.listed,
        )  # fmt: skip

    def decide(
        self,
        queries: Piece,
        bank: Piece,
        candidates: Candidates,
        reach: DeviceArray,
        best: DeviceArray | None = None,
        back: Answers | None = None,
    ) -> None:
        """Float64 distances of the candidates that are still under their reach; ``best`` of either side is lowered."""
        bounds = queries.framed.bounds
        x_reach, row_best = (None, None) if back is None else (back.reach, back.best)
        self.device.launch("decide", self.spread, 256, (
            *queries.rows.arguments, *bank.rows.arguments, np.uint32(bank.base), np.int32(bank.rows.dim),
            *candidates.listed, bounds.stretch, bounds.floor, reach, x_reach, candidates.sq, best, row_best,
            candidates.counts.decided,
        ))  # fmt: skip

    def advance(self, answers: Answers) -> None:
        """Lowers reaches to new bests; rows of a beaten best are forgotten."""
        launch_each(self.device, "advance", len(answers), answers.best, answers.seen, answers.nearest, answers.reach,
                    answers.sq_scale, np.int32(len(answers)))  # fmt: skip

    def pick(self, candidates: Candidates, base: int, answers: Answers, query_base: int | None = None) -> None:
        """The lowest row at the best distance; with ``query_base`` (number of the first query), the lowest query."""
        numbers = np.uint32(base), np.uint32(query_base or 0), np.int32(query_base is not None)
        self.device.launch("pick", self.spread, 256, (*candidates.held(), *numbers, answers.best, answers.nearest))

    def finish(self, best: DeviceArray, nearest: DeviceArray, out: tuple[DeviceArray, DeviceArray]) -> None:
        """Running answers to index int64 and squared distance float32 of the same size."""
        launch_each(self.device, "finish", best.size, best, nearest, np.int64(best.size), *out)


def _heads_of(piece: Piece) -> FramedRows:
    assert piece.heads is not None
    return piece.heads


def _groups(queries: Piece, bank: Piece) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Groups of both sides; without effect where one side has none."""
    groups = queries.rows.group, bank.rows.group
    return (None, None) if None in groups else groups
