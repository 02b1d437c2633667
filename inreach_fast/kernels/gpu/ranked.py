"""The k nearest of each query, k > 1 (docs/gpu.md, section 4).

    frame ─ filter (least) ─ k-th least ─ filter (collect) ─ decide ─ rank

Where the list of candidates overflows, both halves of the range of bank rows are searched anew.
"""

from __future__ import annotations

import numpy as np

from .device import DeviceArray, blocks, fill, launch_each
from .frame import DeviceRows, Piece
from .launcher import Launcher
from .search import Target
from .search_state import INFINITY, NONE, Candidates, Counts


def k_nearest(
    launcher: Launcher,
    target: Target,
    queries: DeviceRows,
    k: int,
    counts: Counts,
    out: tuple[DeviceArray, DeviceArray],
) -> None:
    """Index int64 (m, k) and squared distance float32 (m, k), nearest first, into ``out``."""
    best, nearest = (launcher.device.empty((queries.count, k), np.uint64) for _ in range(2))
    fill(launcher.device, best, NONE)
    fill(launcher.device, nearest, NONE)
    width = blocks(target.count, launcher.route.tile) * launcher.route.strips
    for first, stop in launcher.chunks(queries.count, width):
        asked = launcher.piece(target.frame, first, queries.part(first, stop))
        run = _Ranked(launcher, asked, k, best.part(first, stop), nearest.part(first, stop), counts)
        for piece in target.pieces():
            run.lower_reach(piece)
            counts.filtered += asked.count * piece.count
        for piece in target.pieces():
            run.search(piece, target.frame.sq_scale)
            counts.filtered += asked.count * piece.count
    launcher.finish(best, nearest, out)


class _Ranked:
    """Running answers of queries that are searched together, and work space."""

    def __init__(
        self, launcher: Launcher, queries: Piece, k: int, best: DeviceArray, nearest: DeviceArray, counts: Counts
    ) -> None:
        device, count = launcher.device, queries.count
        self.launcher, self.queries, self.k = launcher, queries, k
        self.best, self.nearest = best, nearest
        self.reach = device.empty(count, np.uint32)
        fill(device, self.reach, INFINITY)
        self.candidates = Candidates(device, launcher.capacity, counts, spare=count * k)
        self.length, self.filled = device.empty(count, np.uint32), device.empty(count, np.uint32)
        self.begin = device.empty(count + 1, np.uint32)
        self.member = device.empty(launcher.capacity + count * k, np.uint32)

    def lower_reach(self, piece: Piece) -> None:
        """Lowers reaches to the k-th least upper bound of groups of rows."""
        launcher, count = self.launcher, self.queries.count
        width = blocks(piece.count, launcher.route.tile) * launcher.route.strips
        if width < self.k:
            return  # too few groups for a bound on k different rows
        least = launcher.device.empty((count, width), np.uint32)
        launcher.filter("least", self.queries, piece, least=least)
        numbers = np.int32(width), np.int32(self.k), np.int32(count)
        launch_each(launcher.device, "kth_least", count, least, *numbers, self.reach, each=32)

    def search(self, piece: Piece, sq_scale: np.float64) -> None:
        """Candidates of a piece to new answers."""
        self.candidates.clear()
        self.launcher.filter("collect", self.queries, piece, self.reach, candidates=self.candidates)
        if piece.count > 1 and self.candidates.listed_count() > self.launcher.capacity:
            for half in piece.halves():
                self.search(half, sq_scale)
        else:
            self.launcher.decide(self.queries, piece, self.candidates, self.reach)
            self._rank(sq_scale)

    def _rank(self, sq_scale: np.float64) -> None:
        """Decided candidates and the k best so far to the new k best."""
        device, grid = self.launcher.device, self.launcher.spread
        k, count = np.int32(self.k), np.int32(self.queries.count)
        query, row, sq, held, capacity = self.candidates.held(with_spare=True)
        launch_each(device, "carry", self.best.size, self.best, self.nearest, np.int64(count), k, query, row, sq, held,
                    capacity)  # fmt: skip
        fill(device, self.length, 0)
        device.launch("segment_lengths", grid, 256, (query, sq, held, capacity, self.length))
        device.launch("segment_begins", (1,), 256, (self.length, count, self.begin, self.filled))
        device.launch("segment_fill", grid, 256, (query, sq, held, capacity, self.begin, self.filled, self.member))
        fill(device, self.best, NONE)
        fill(device, self.nearest, NONE)
        device.launch("rank", grid, 256, (query, row, sq, self.begin, count, k, self.member, self.best, self.nearest))
        launch_each(device, "advance_kth", self.queries.count, self.best, count, k, sq_scale, self.reach)
