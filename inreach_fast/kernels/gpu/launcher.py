"""The launches that searches are made of: a filter, decisions, reaches, answers (csrc/cuda/kernels/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...errors import BackendError
from .answers import Answers, Counts, Piece
from .candidates import Candidates
from .device import Argument, Device, DeviceArray, blocks
from .frame import DeviceRows, Directions, Frame, FramedRows
from .routes import FORMATS, Route

_TASKS = {"nearest": 0, "mutual": 1, "collect": 2, "least": 3, "argmin": 4}
_GRID_STRIDE = 2048  # blocks of a grid-stride launch
_MAX_GRID_Y = 65535


@dataclass
class Launcher:
    """Launches of one kind on one device.

    Attributes:
        device: where.
        route: the filter in all dimensions.
        head_route: the filter in leading directions.
        capacity: places in the list of candidates.
        chunk: queries at once, at most ``capacity``.
        least_bytes: memory for upper bounds of k > 1.
    """

    device: Device
    route: Route = field(default_factory=Route)
    head_route: Route = field(default_factory=Route)
    capacity: int = 1 << 20
    chunk: int = 1 << 13
    least_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for route in (self.route, self.head_route):
            needed = FORMATS[route.format].compute_capability
            if tuple(self.device.compute_capability) < needed:
                raise BackendError(
                    f"{self.device.name}: no matrix instructions of {route.format}, which come with compute capability "
                    f"{needed[0]}.{needed[1]}; take fp16 or f32"
                )

    # ------------------------------------------------------------------------------------------- preparing

    def piece(self, frame: Frame, base: int, rows: DeviceRows, directions: Directions | None = None) -> Piece:
        """Bank rows in the frame, and in leading directions where there are any."""
        heads = None if directions is None else directions.rows(self.device, frame, rows, self.head_route.format)
        return Piece(base, rows, frame.rows(self.device, rows, self.route.format), heads)

    @property
    def at_once(self) -> int:
        """Queries that can be searched at once."""
        return min(self.chunk, self.capacity)

    def chunks(self, count: int, width: int = 0) -> Iterator[tuple[int, int]]:
        """Ranges of queries that are searched together; ``width``: upper bounds of each (k > 1)."""
        size = self.at_once
        if width:
            size = max(1, min(size, self.least_bytes // (4 * width)))
        for first in range(0, count, size):
            yield first, min(first + size, count)

    # --------------------------------------------------------------------------------------------- launches

    def filter(
        self,
        task: str,
        route: Route,
        q: FramedRows,
        x: FramedRows,
        q_rows: DeviceRows,
        x_rows: DeviceRows,
        base: int,
        q_reach: DeviceArray | None = None,
        x_reach: DeviceArray | None = None,
        *,
        candidates: Candidates | None = None,
        argmin: DeviceArray | None = None,
        least: DeviceArray | None = None,
    ) -> None:
        """One filter over all pairs of ``q`` and ``x``, whose first row is number ``base`` of the bank.

        Args:
            task: a key of ``_TASKS`` (tile.cuh says what each lowers, lists or writes).
            route: which filter; ``q`` and ``x`` are stored in its format.
            q_rows, x_rows: the same rows as they are: how many, and their groups.
            q_reach, x_reach: what may still be nearer, read and lowered; None where the task needs none.
            candidates, argmin, least: what the task writes.
        """
        listed: tuple[Argument, ...] = (None, None, None, None, np.uint32(0))
        if candidates is not None:
            listed = candidates.listed
        grouped = q_rows.group is not None and x_rows.group is not None
        tiles = blocks(x_rows.count, route.tile)
        query_tiles = blocks(q_rows.count, route.tile)
        assert query_tiles <= _MAX_GRID_Y
        # Blocks go on to the next tile of bank rows with the reaches that they and others have lowered so far.
        across = min(tiles, blocks(4 * self.device.multiprocessors, query_tiles))
        self.device.launch(
            route.kernel,
            (across, query_tiles),
            route.threads,
            (q.values, q.low, q.extra, q_rows.group if grouped else None, np.int32(q_rows.count),
             x.values, x.low, x.extra, x_rows.group if grouped else None, np.int32(x_rows.count),
             np.int32(q.depth), q.bounds.stretch, q.bounds.floor, np.int32(_TASKS[task]), np.uint32(base),
             q_reach, x_reach, *listed, argmin, least, np.int32(0 if least is None else least.shape[1])),
        )  # fmt: skip

    def decide(
        self,
        queries: DeviceRows,
        piece: Piece,
        framed: FramedRows,
        candidates: Candidates,
        counts: Counts,
        q_reach: DeviceArray,
        best: DeviceArray | None,
        x_reach: DeviceArray | None = None,
        row_best: DeviceArray | None = None,
    ) -> None:
        """Float64 distances of the candidates that are still under their reach; ``best`` of either side is lowered."""
        rows = piece.rows
        self.device.launch(
            "decide",
            (self.spread(),),
            256,
            (queries.values, queries.index, np.int64(queries.first), rows.values, rows.index, np.int64(rows.first),
             np.uint32(piece.base), np.int32(rows.dim), *candidates.listed, framed.bounds.stretch, framed.bounds.floor,
             q_reach, x_reach, candidates.sq, best, row_best, counts.decided),
        )  # fmt: skip

    def advance(self, frame: Frame, answers: Answers) -> None:
        """New bests to reaches; rows of a beaten best are forgotten."""
        self.launch_each("advance", len(answers), answers.best, answers.seen, answers.nearest, answers.reach,
                         frame.sq_scale, np.int32(len(answers)))  # fmt: skip

    def pick(
        self, candidates: Candidates, base: int, answers: Answers, by_row: bool = False, query_base: int = 0
    ) -> None:
        """The lowest row among candidates at the best distance; ``by_row``: the lowest query of each row."""
        self.device.launch(
            "pick",
            (self.spread(),),
            256,
            (*candidates.held(), np.uint32(base), np.uint32(query_base), np.int32(by_row), answers.best,
             answers.nearest),
        )  # fmt: skip

    def launch_each(self, kernel: str, count: int, *arguments: Argument) -> None:
        """A thread for each of ``count``."""
        self.device.launch(kernel, (blocks(count, 256),), 256, arguments)

    def spread(self) -> int:
        """Blocks of a launch over the candidates, whose number only the device knows."""
        return min(_GRID_STRIDE, 8 * self.device.multiprocessors, blocks(self.capacity, 16))

    def finish(
        self, best: DeviceArray, nearest: DeviceArray, out: tuple[DeviceArray, DeviceArray] | None = None
    ) -> tuple[DeviceArray, DeviceArray]:
        """Index int64 and squared distance float32 of running answers, in their shape; into ``out`` where given."""
        index, sq_distance = out or (
            self.device.empty(best.shape, np.int64),
            self.device.empty(best.shape, np.float32),
        )
        self.launch_each("finish", best.size, best, nearest, np.int64(best.size), index, sq_distance)
        return index, sq_distance
