"""Exact nearest neighbours: the order of launches (docs/gpu.md, section 3; csrc/cuda/kernels/README.md).

    frame ─ filter ─ candidates ─ decide ─ advance ─ pick ─ finish                       k = 1, and both directions
    frame ─ filter (least) ─ k-th least ─ filter (collect) ─ decide ─ rank               k > 1
    heads ─ filter (argmin) ─ decide ─ filter (collect) ─ refine ─ decide ─ ...          k = 1, by leading directions
    ... ─ ask_back ─ frame ─ filter ─ candidates ─ decide ─ advance ─ pick ─ answered    which rows answer (k = 1)

The list of candidates has a fixed size. A search that overflows it has still lowered the reaches, and what was listed
is decided; then the range of bank rows is halved and both halves are searched again under the lower reaches. Deciding
a pair twice changes nothing for k = 1; for k > 1 nothing of an overflowed range is kept. Where leading directions let
so many pairs through that they do not pay, the range is searched in all dimensions instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...errors import BackendError
from .candidates import Candidates
from .device import Argument, Device, DeviceArray, blocks, fill
from .frame import HEAD_DEPTH, DeviceRows, Directions, Frame, FramedRows
from .routes import FORMATS, Route

NONE = 2**64 - 1  # after every distance and every row number
_INFINITY = 0x7F800000
_TASKS = {"nearest": 0, "mutual": 1, "collect": 2, "least": 3, "argmin": 4}
_GRID_STRIDE = 2048  # blocks of a grid-stride launch
_MAX_GRID_Y = 65535
# Leading directions pay while they leave fewer than one pair in so many: what a pair costs that they let through (its
# row read from memory) over what it costs in a filter in all dimensions (docs/gpu.md, section 5).
_WORTH = 128


def bounds_do_not_pay(listed: int, pairs: int) -> bool:
    """Whether leading directions let through so many of so many pairs that a filter in all dimensions costs less."""
    return listed > pairs // _WORTH


@dataclass(frozen=True)
class Piece:
    """Bank rows that are on the device together.

    Attributes:
        base: number of the first one in the bank.
        rows, framed: as they are, and in the frame.
        heads: in leading directions, or None.
    """

    base: int
    rows: DeviceRows
    framed: FramedRows
    heads: FramedRows | None = None

    @property
    def count(self) -> int:
        """Rows."""
        return self.rows.count

    def part(self, first: int, stop: int) -> Piece:
        """Rows first to stop-1 of the piece."""
        heads = None if self.heads is None else self.heads.part(first, stop)
        return Piece(self.base + first, self.rows.part(first, stop), self.framed.part(first, stop), heads)


@dataclass
class Counts:
    """What a search did; on the device until it is read."""

    decided: DeviceArray
    refined: DeviceArray
    bounded: int = 0
    filtered: int = 0

    @staticmethod
    def zero(device: Device, both: DeviceArray | None = None) -> Counts:
        """Counters at 0, in ``both`` (uint64 (2,)) where it is given."""
        both = device.empty(2, np.uint64) if both is None else both
        fill(device, both, 0)
        return Counts(both.part(0, 1), both.part(1, 2))


@dataclass
class Answers:
    """Running answers of some queries (csrc/cuda/kernels/README.md): k = 1."""

    reach: DeviceArray
    best: DeviceArray
    seen: DeviceArray
    nearest: DeviceArray

    @staticmethod
    def none(device: Device, count: int) -> Answers:
        """Nothing is known yet."""
        reach, others = device.empty(count, np.uint32), device.empty((3, count), np.uint64)
        fill(device, reach, _INFINITY)
        fill(device, others, NONE)
        return Answers(reach, *(others.part(i, i + 1).reshape(count) for i in range(3)))

    def __len__(self) -> int:
        return len(self.reach)

    def part(self, first: int, stop: int) -> Answers:
        """Those of queries first to stop-1, a view."""
        return Answers(*(x.part(first, stop) for x in (self.reach, self.best, self.seen, self.nearest)))


@dataclass(frozen=True)
class _Asked:
    """Queries that are searched together: as they are, in the frame, and in leading directions, or None."""

    frame: Frame
    rows: DeviceRows
    framed: FramedRows
    heads: FramedRows | None


@dataclass
class Search:
    """Searches of one kind on one device.

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

    # ------------------------------------------------------------------------------------------------ k = 1

    def nearest(
        self,
        frame: Frame,
        queries: DeviceRows,
        pieces: Callable[[], Iterable[Piece]],
        counts: Counts,
        directions: Directions | None = None,
        *,
        hint: DeviceArray | None = None,
        answers: Answers | None = None,
    ) -> Answers:
        """The nearest bank row of each query; waits for the device.

        ``pieces()`` gives the bank anew, piece by piece; all of it in ``frame``. ``hint``: int64 (m,), see `guess`.
        ``answers``: some that are known already, which are gone on with.
        """
        answers = answers or Answers.none(self.device, queries.count)
        candidates = Candidates(self.device, self.capacity)
        for first, stop in self.chunks(queries.count):
            asked = self._asked(frame, queries.part(first, stop), directions)
            own = answers.part(first, stop)
            guesses = None if hint is None else hint.part(first, stop)
            if directions is not None:
                for piece in pieces():
                    self._begin(asked, piece, own, candidates, counts, guesses)
                for piece in pieces():
                    self._completed(asked, piece, own, candidates, counts)
            else:
                for piece in pieces():
                    self._begin(asked, piece, own, candidates, counts, guesses)
                    self._completed(asked, piece, own, candidates, counts)
        return answers

    def enqueue(
        self,
        frame: Frame,
        queries: DeviceRows,
        piece: Piece,
        answers: Answers,
        candidates: Candidates,
        counts: Counts,
        directions: Directions | None = None,
        hint: DeviceArray | None = None,
    ) -> None:
        """The same for queries and a bank that are on the device at once; nothing waits.

        The answers are right where ``candidates`` has not overflowed; else `nearest` goes on with them.
        """
        asked = self._asked(frame, queries, directions)
        self._begin(asked, piece, answers, candidates, counts, hint)
        self._pass(asked, piece, answers, candidates, counts)

    def _asked(self, frame: Frame, rows: DeviceRows, directions: Directions | None) -> _Asked:
        heads = None if directions is None else directions.rows(self.device, frame, rows, self.head_route.format)
        return _Asked(frame, rows, frame.rows(self.device, rows, self.route.format), heads)

    def _begin(
        self,
        asked: _Asked,
        piece: Piece,
        answers: Answers,
        candidates: Candidates,
        counts: Counts,
        hint: DeviceArray | None,
    ) -> None:
        """First reaches: from a caller's guesses, and for a search by leading directions from the least bound."""
        if hint is not None:
            self.guess(asked, hint, piece, answers, candidates, counts)
        if asked.heads is not None:
            self.seed(asked, piece, answers, candidates, counts)

    def _pass(self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts) -> None:
        if asked.heads is not None:
            self.search_heads(asked, piece, answers, candidates, counts)
        else:
            self.search(asked, piece, answers, candidates, counts)

    def _completed(self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts) -> None:
        def in_all(part: Piece) -> None:
            self.search(asked, part, answers, candidates, counts)

        def by_heads(part: Piece) -> None:
            self.search_heads(asked, part, answers, candidates, counts)

        if asked.heads is None:
            self._halving(piece, candidates, in_all)
        else:
            self._halving(piece, candidates, by_heads, in_all, asked.rows.count)

    def _halving(
        self,
        piece: Piece,
        candidates: Candidates,
        search: Callable[[Piece], None],
        instead: Callable[[Piece], None] | None = None,
        queries: int = 0,
    ) -> None:
        """``search`` the piece; where the list overflows, search its halves as well.

        ``instead`` is what a piece is searched by once ``search`` by bounds has let too many of its pairs through.
        """
        search(piece)
        listed = candidates.listed_count() if piece.count > 1 else 0
        if listed <= self.capacity:
            return
        if instead is not None and bounds_do_not_pay(listed, queries * piece.count):
            self._halving(piece, candidates, instead)
            return
        middle = piece.count // 2
        self._halving(piece.part(0, middle), candidates, search, instead, queries)
        self._halving(piece.part(middle, piece.count), candidates, search, instead, queries)

    def search(self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts) -> None:
        """One pass over a piece in all dimensions; nothing waits for the device."""
        candidates.clear()
        self._filter("nearest", self.route, asked.framed, piece.framed, asked.rows, piece.rows, piece.base,
                     answers.reach, candidates=candidates)  # fmt: skip
        counts.filtered += asked.rows.count * piece.count
        self._settle(asked, piece, answers, candidates, counts)

    def _settle(self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts) -> None:
        """Candidates to answers."""
        self._decide(asked.rows, piece, asked.framed, candidates, counts, answers.reach, answers.best)
        self._advance(asked.frame, answers)
        self._pick(candidates, piece.base, answers)

    def guess(
        self,
        asked: _Asked,
        hint: DeviceArray,
        piece: Piece,
        answers: Answers,
        candidates: Candidates,
        counts: Counts,
    ) -> None:
        """Decide for each query the bank row that a caller guesses, int64 (m,); numbers of no row are no guess."""
        candidates.clear()
        grouped = asked.rows.group is not None and piece.rows.group is not None
        self._launch_each(
            "guess", asked.rows.count, hint, asked.rows.group if grouped else None,
            piece.rows.group if grouped else None, np.uint32(piece.base), np.int32(piece.count),
            np.int32(asked.rows.count), *candidates.listed,
        )  # fmt: skip
        self._settle(asked, piece, answers, candidates, counts)

    def seed(self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts) -> None:
        """Decide for each query the row whose bound in leading directions is least: a first reach."""
        assert asked.heads is not None
        assert piece.heads is not None
        candidates.clear()
        count = asked.rows.count
        argmin = self.device.empty(count, np.uint64)
        fill(self.device, argmin, NONE)
        self._filter("argmin", self.head_route, asked.heads, piece.heads, asked.rows, piece.rows, piece.base,
                     argmin=argmin)  # fmt: skip
        self._launch_each("seed", count, argmin, np.int32(count), *candidates.listed)
        self._settle(asked, piece, answers, candidates, counts)

    def search_heads(
        self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts
    ) -> None:
        """One pass over a piece in leading directions, in all of them for what these let through."""
        heads, framed = asked.heads, asked.framed
        assert heads is not None
        assert piece.heads is not None
        candidates.clear()
        self._filter("collect", self.head_route, heads, piece.heads, asked.rows, piece.rows, piece.base,
                     answers.reach, candidates=candidates)  # fmt: skip
        counts.bounded += asked.rows.count * piece.count
        self.device.launch(
            f"refine_{self.route.format}",
            (self._spread(),),
            256,
            (framed.values, framed.low, framed.extra, piece.framed.values, piece.framed.low, piece.framed.extra,
             np.int32(framed.depth), framed.bounds.stretch, framed.bounds.floor, heads.bounds.stretch,
             heads.bounds.floor, np.uint32(piece.base), answers.reach, *candidates.listed, counts.refined),
        )  # fmt: skip
        self._settle(asked, piece, answers, candidates, counts)

    def finish(
        self, best: DeviceArray, nearest: DeviceArray, out: tuple[DeviceArray, DeviceArray] | None = None
    ) -> tuple[DeviceArray, DeviceArray]:
        """Index int64 and squared distance float32 of running answers, in their shape; into ``out`` where given."""
        index, sq_distance = out or (
            self.device.empty(best.shape, np.int64),
            self.device.empty(best.shape, np.float32),
        )
        self._launch_each("finish", best.size, best, nearest, np.int64(best.size), index, sq_distance)
        return index, sq_distance

    # ---------------------------------------------------------------------------------------- the way back

    def ask_back(
        self, frame: Frame, queries: DeviceRows, bank: DeviceRows, answers: Answers
    ) -> tuple[DeviceRows, Piece, Answers]:
        """The rows that were found, the queries as what they look among, and what these rows know already.

        A row that several queries have found asks as often; each time from the distance to that very query, which
        leaves few others to look at.
        """
        device, count = self.device, queries.count
        rows = device.empty(count, np.int64)
        back = Answers.none(device, count)
        self._launch_each(
            "ask_back", count, answers.best, answers.nearest, bank.index, np.int64(bank.first), np.int32(count), rows,
            back.best, back.seen, back.nearest,
        )  # fmt: skip
        self._advance(frame, back)
        among = DeviceRows(queries.values, queries.index, queries.first, count)
        return DeviceRows(bank.values, rows, 0, count), self.piece(frame, 0, among), back

    def answered(self, answers: Answers, back: Answers, out: DeviceArray) -> None:
        """Which of the rows that were found have found their query, uint8 (m,)."""
        self._launch_each("answered", len(answers), answers.nearest, back.nearest, np.int32(len(answers)), out)

    # ------------------------------------------------------------------------------------------------- both

    def mutual(
        self,
        frame: Frame,
        a: DeviceRows,
        pieces: Callable[[], Iterable[Piece]],
        forward: Answers,
        backward: Answers,
        counts: Counts,
    ) -> None:
        """Answers of each row of ``a`` and of each row of ``b``, which comes in pieces; waits for the device."""
        candidates = Candidates(self.device, self.capacity)
        for first, stop in self.chunks(a.count):
            rows, own = a.part(first, stop), forward.part(first, stop)
            asked = self._asked(frame, rows, None)
            for piece in pieces():
                self._halving(
                    piece,
                    candidates,
                    lambda part, asked=asked, own=own, first=first: self.search_both(  # type: ignore[misc]
                        asked, part, own, backward, first, candidates, counts
                    ),
                )

    def enqueue_both(
        self,
        frame: Frame,
        a: DeviceRows,
        piece: Piece,
        forward: Answers,
        backward: Answers,
        candidates: Candidates,
        counts: Counts,
    ) -> None:
        """The same for two sets that are on the device at once; nothing waits. See `enqueue`."""
        self.search_both(self._asked(frame, a, None), piece, forward, backward, 0, candidates, counts)

    def search_both(
        self,
        asked: _Asked,
        piece: Piece,
        forward: Answers,
        backward: Answers,
        a_base: int,
        candidates: Candidates,
        counts: Counts,
    ) -> None:
        """One pass over rows of ``a``, numbered from ``a_base``, and a piece of ``b``, in both directions."""
        other, rows, framed = backward.part(piece.base, piece.base + piece.count), asked.rows, asked.framed
        candidates.clear()
        self._filter("mutual", self.route, framed, piece.framed, rows, piece.rows, piece.base, forward.reach,
                     other.reach, candidates=candidates)  # fmt: skip
        counts.filtered += rows.count * piece.count
        self._decide(rows, piece, framed, candidates, counts, forward.reach, forward.best, other.reach, other.best)
        for answers in (forward, other):
            self._advance(asked.frame, answers)
        self._pick(candidates, piece.base, forward)
        self._pick(candidates, piece.base, other, by_row=True, query_base=a_base)

    # ------------------------------------------------------------------------------------------------ k > 1

    def k_nearest(
        self,
        frame: Frame,
        queries: DeviceRows,
        pieces: Callable[[], Iterable[Piece]],
        bank_count: int,
        k: int,
        counts: Counts,
        out: tuple[DeviceArray, DeviceArray],
    ) -> None:
        """Index int64 (m, k) and squared distance float32 (m, k), nearest first, into ``out``."""
        best = self.device.empty((queries.count, k), np.uint64)
        nearest = self.device.empty((queries.count, k), np.uint64)
        for array in (best, nearest):
            fill(self.device, array, NONE)
        width = blocks(bank_count, self.route.tile) * self.route.strips
        for first, stop in self.chunks(queries.count, width):
            rows = queries.part(first, stop)
            framed = frame.rows(self.device, rows, self.route.format)
            state = _Ranked(self, rows.count, k, best.part(first, stop), nearest.part(first, stop))
            for piece in pieces():
                self._reach_of_kth(framed, rows, piece, k, state.reach)
                counts.filtered += rows.count * piece.count
            for piece in pieces():
                self._ranked(frame, rows, framed, piece, state, counts)
                counts.filtered += rows.count * piece.count
        self.finish(best, nearest, out)

    def _reach_of_kth(self, framed: FramedRows, queries: DeviceRows, piece: Piece, k: int, reach: DeviceArray) -> None:
        width = blocks(piece.count, self.route.tile) * self.route.strips
        if width < k:
            return  # too few groups to say anything of k different rows
        least = self.device.empty((queries.count, width), np.uint32)
        self._filter("least", self.route, framed, piece.framed, queries, piece.rows, piece.base, least=least)
        self.device.launch(
            "kth_least",
            (blocks(queries.count, 8),),
            256,
            (least, np.int32(width), np.int32(k), np.int32(queries.count), reach),
        )

    def _ranked(
        self, frame: Frame, queries: DeviceRows, framed: FramedRows, piece: Piece, state: _Ranked, counts: Counts
    ) -> None:
        candidates = state.candidates
        candidates.clear()
        self._filter("collect", self.route, framed, piece.framed, queries, piece.rows, piece.base, state.reach,
                     candidates=candidates)  # fmt: skip
        if piece.count > 1 and candidates.listed_count() > self.capacity:
            middle = piece.count // 2
            self._ranked(frame, queries, framed, piece.part(0, middle), state, counts)
            self._ranked(frame, queries, framed, piece.part(middle, piece.count), state, counts)
            return
        self._decide(queries, piece, framed, candidates, counts, state.reach, None)
        state.rank(frame)

    # --------------------------------------------------------------------------------------------- launches

    def _filter(
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

    def _decide(
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
        rows = piece.rows
        self.device.launch(
            "decide",
            (self._spread(),),
            256,
            (queries.values, queries.index, np.int64(queries.first), rows.values, rows.index, np.int64(rows.first),
             np.uint32(piece.base), np.int32(rows.dim), *candidates.listed, framed.bounds.stretch, framed.bounds.floor,
             q_reach, x_reach, candidates.sq, best, row_best, counts.decided),
        )  # fmt: skip

    def _advance(self, frame: Frame, answers: Answers) -> None:
        self._launch_each("advance", len(answers), answers.best, answers.seen, answers.nearest, answers.reach,
                          frame.sq_scale, np.int32(len(answers)))  # fmt: skip

    def _pick(
        self, candidates: Candidates, base: int, answers: Answers, by_row: bool = False, query_base: int = 0
    ) -> None:
        self.device.launch(
            "pick",
            (self._spread(),),
            256,
            (*candidates.held(), np.uint32(base), np.uint32(query_base), np.int32(by_row), answers.best,
             answers.nearest),
        )  # fmt: skip

    def _launch_each(self, kernel: str, count: int, *arguments: Argument) -> None:
        """A thread for each of ``count``."""
        self.device.launch(kernel, (blocks(count, 256),), 256, arguments)

    def _spread(self) -> int:
        """Blocks of a launch over the candidates, whose number only the device knows."""
        return min(_GRID_STRIDE, 8 * self.device.multiprocessors, blocks(self.capacity, 16))


class _Ranked:
    """Running answers for k > 1, and what ranking needs."""

    def __init__(self, search: Search, count: int, k: int, best: DeviceArray, nearest: DeviceArray) -> None:
        device = search.device
        self.search, self.count, self.k = search, count, k
        self.best, self.nearest = best, nearest
        self.reach = device.empty(count, np.uint32)
        fill(device, self.reach, _INFINITY)
        self.candidates = Candidates(device, search.capacity, count * k)
        self.length, self.filled = device.empty(count, np.uint32), device.empty(count, np.uint32)
        self.begin = device.empty(count + 1, np.uint32)
        self.member = device.empty(search.capacity + count * k, np.uint32)

    def rank(self, frame: Frame) -> None:
        """Decided candidates and the k best so far to the new k best."""
        device, search = self.search.device, self.search
        spread, k, count = search._spread(), np.int32(self.k), np.int32(self.count)
        search._launch_each(
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
        search._launch_each("advance_kth", self.count, self.best, count, k, frame.sq_scale, self.reach)


__all__ = ["HEAD_DEPTH", "NONE", "Answers", "Counts", "Piece", "Search"]
