"""k > 1: the k nearest of each query (docs/gpu.md, section 4).

    frame ─ filter (least) ─ k-th least ─ filter (collect) ─ decide ─ rank

Where the list of candidates overflows, the range of bank rows is halved and both halves are searched again; nothing of
the overflowed range is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .answers import INFINITY, NONE, Counts, Piece
from .candidates import Candidates
from .device import DeviceArray, blocks, fill
from .frame import DeviceRows, Frame, FramedRows
from .launcher import Launcher


def k_nearest(
    launcher: Launcher,
    frame: Frame,
    queries: DeviceRows,
    pieces: Callable[[], Iterable[Piece]],
    bank_count: int,
    k: int,
    counts: Counts,
    out: tuple[DeviceArray, DeviceArray],
) -> None:
    """Index int64 (m, k) and squared distance float32 (m, k), nearest first, into ``out``."""
    best = launcher.device.empty((queries.count, k), np.uint64)
    nearest = launcher.device.empty((queries.count, k), np.uint64)
    for array in (best, nearest):
        fill(launcher.device, array, NONE)
    width = blocks(bank_count, launcher.route.tile) * launcher.route.strips
    for first, stop in launcher.chunks(queries.count, width):
        rows = queries.part(first, stop)
        framed = frame.rows(launcher.device, rows, launcher.route.format)
        state = _Ranked(launcher, rows.count, k, best.part(first, stop), nearest.part(first, stop))
        for piece in pieces():
            _reach_of_kth(launcher, framed, rows, piece, k, state.reach)
            counts.filtered += rows.count * piece.count
        for piece in pieces():
            _ranked(launcher, frame, rows, framed, piece, state, counts)
            counts.filtered += rows.count * piece.count
    launcher.finish(best, nearest, out)


def _reach_of_kth(
    launcher: Launcher, framed: FramedRows, queries: DeviceRows, piece: Piece, k: int, reach: DeviceArray
) -> None:
    width = blocks(piece.count, launcher.route.tile) * launcher.route.strips
    if width < k:
        return  # too few groups to say anything of k different rows
    least = launcher.device.empty((queries.count, width), np.uint32)
    launcher.filter("least", launcher.route, framed, piece.framed, queries, piece.rows, piece.base, least=least)
    launcher.device.launch(
        "kth_least",
        (blocks(queries.count, 8),),
        256,
        (least, np.int32(width), np.int32(k), np.int32(queries.count), reach),
    )


def _ranked(
    launcher: Launcher,
    frame: Frame,
    queries: DeviceRows,
    framed: FramedRows,
    piece: Piece,
    state: _Ranked,
    counts: Counts,
) -> None:
    candidates = state.candidates
    candidates.clear()
    launcher.filter("collect", launcher.route, framed, piece.framed, queries, piece.rows, piece.base, state.reach,
                    candidates=candidates)  # fmt: skip
    if piece.count > 1 and candidates.listed_count() > launcher.capacity:
        middle = piece.count // 2
        _ranked(launcher, frame, queries, framed, piece.part(0, middle), state, counts)
        _ranked(launcher, frame, queries, framed, piece.part(middle, piece.count), state, counts)
        return
    launcher.decide(queries, piece, framed, candidates, counts, state.reach, None)
    state.rank(frame)


class _Ranked:
    """Running answers for k > 1, and what ranking needs."""

    def __init__(self, launcher: Launcher, count: int, k: int, best: DeviceArray, nearest: DeviceArray) -> None:
        device = launcher.device
        self.launcher, self.count, self.k = launcher, count, k
        self.best, self.nearest = best, nearest
        self.reach = device.empty(count, np.uint32)
        fill(device, self.reach, INFINITY)
        self.candidates = Candidates(device, launcher.capacity, count * k)
        self.length, self.filled = device.empty(count, np.uint32), device.empty(count, np.uint32)
        self.begin = device.empty(count + 1, np.uint32)
        self.member = device.empty(launcher.capacity + count * k, np.uint32)

    def rank(self, frame: Frame) -> None:
        """Decided candidates and the k best so far to the new k best."""
        device, launcher = self.launcher.device, self.launcher
        spread, k, count = launcher.spread(), np.int32(self.k), np.int32(self.count)
        launcher.launch_each(
            "carry", self.count * self.k, self.best, self.nearest, np.int64(self.count), k,
            *self.candidates.held(with_spare=True),
        )  # fmt: skip
        query, row, sq, held, capacity = self.candidates.held(with_spare=True)
        fill(device, self.length, 0)
        device.launch("segment_lengths", (spread,), 256, (query, sq, held, capacity, self.length))
        device.launch("segment_begins", (1,), 256, (self.length, count, self.begin, self.filled))
        device.launch("segment_fill", (spread,), 256, (query, sq, held, capacity, self.begin, self.filled, self.member))
        fill(device, self.best, NONE)
        fill(device, self.nearest, NONE)
        device.launch(
            "rank", (spread,), 256, (query, row, sq, self.begin, count, k, self.member, self.best, self.nearest)
        )
        launcher.launch_each("advance_kth", self.count, self.best, count, k, frame.sq_scale, self.reach)
