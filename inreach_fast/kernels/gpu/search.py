"""Exact nearest neighbours: the order of launches (docs/gpu.md, section 3; csrc/cuda/kernels/README.md).

    frame ─ filter ─ candidates ─ decide ─ advance ─ pick ─ finish                       k = 1, and both directions
    heads ─ filter (argmin) ─ decide ─ filter (collect) ─ refine ─ decide ─ ...          k = 1, by leading directions
    ... ─ ask_back ─ frame ─ filter ─ candidates ─ decide ─ advance ─ pick ─ answered    which rows answer (k = 1)

The list of candidates has a fixed size. A search that overflows it has still lowered the reaches, and what was listed
is decided; then the range of bank rows is halved and both halves are searched again under the lower reaches. Deciding
a pair twice changes nothing. Where leading directions let so many pairs through that they do not pay, the range is
searched in all dimensions instead. k > 1 is in ranked.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from .answers import NONE, Answers, Counts, Piece
from .candidates import Candidates
from .device import DeviceArray, fill
from .frame import DeviceRows, Directions, Frame, FramedRows
from .launcher import Launcher

# Leading directions pay while they leave fewer than one pair in so many: what a pair costs that they let through (its
# row read from memory) over what it costs in a filter in all dimensions (docs/gpu.md, section 5).
_WORTH = 128


def bounds_do_not_pay(listed: int, pairs: int) -> bool:
    """Whether leading directions let through so many of so many pairs that a filter in all dimensions costs less."""
    return listed > pairs // _WORTH


@dataclass(frozen=True)
class _Asked:
    """Queries that are searched together: as they are, in the frame, and in leading directions, or None."""

    frame: Frame
    rows: DeviceRows
    framed: FramedRows
    heads: FramedRows | None


@dataclass
class Search(Launcher):
    """Searches for one neighbour, in one direction, back and in both."""

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
        def chosen(part: Piece) -> None:
            self._pass(asked, part, answers, candidates, counts)

        def in_all(part: Piece) -> None:
            self.search(asked, part, answers, candidates, counts)

        self._halving(piece, candidates, chosen, None if asked.heads is None else in_all, asked.rows.count)

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
        self.filter("nearest", self.route, asked.framed, piece.framed, asked.rows, piece.rows, piece.base,
                    answers.reach, candidates=candidates)  # fmt: skip
        counts.filtered += asked.rows.count * piece.count
        self._settle(asked, piece, answers, candidates, counts)

    def _settle(self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts) -> None:
        """Candidates to answers."""
        self.decide(asked.rows, piece, asked.framed, candidates, counts, answers.reach, answers.best)
        self.advance(asked.frame, answers)
        self.pick(candidates, piece.base, answers)

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
        self.launch_each(
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
        self.filter("argmin", self.head_route, asked.heads, piece.heads, asked.rows, piece.rows, piece.base,
                    argmin=argmin)  # fmt: skip
        self.launch_each("seed", count, argmin, np.int32(count), *candidates.listed)
        self._settle(asked, piece, answers, candidates, counts)

    def search_heads(
        self, asked: _Asked, piece: Piece, answers: Answers, candidates: Candidates, counts: Counts
    ) -> None:
        """One pass over a piece in leading directions, in all of them for what these let through."""
        heads, framed = asked.heads, asked.framed
        assert heads is not None
        assert piece.heads is not None
        candidates.clear()
        self.filter("collect", self.head_route, heads, piece.heads, asked.rows, piece.rows, piece.base,
                    answers.reach, candidates=candidates)  # fmt: skip
        counts.bounded += asked.rows.count * piece.count
        self.device.launch(
            f"refine_{self.route.format}",
            (self.spread(),),
            256,
            (framed.values, framed.low, framed.extra, piece.framed.values, piece.framed.low, piece.framed.extra,
             np.int32(framed.depth), framed.bounds.stretch, framed.bounds.floor, heads.bounds.stretch,
             heads.bounds.floor, np.uint32(piece.base), answers.reach, *candidates.listed, counts.refined),
        )  # fmt: skip
        self._settle(asked, piece, answers, candidates, counts)

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
        self.launch_each(
            "ask_back", count, answers.best, answers.nearest, bank.index, np.int64(bank.first), np.int32(count), rows,
            back.best, back.seen, back.nearest,
        )  # fmt: skip
        self.advance(frame, back)
        among = DeviceRows(queries.values, queries.index, queries.first, count)
        return DeviceRows(bank.values, rows, 0, count), self.piece(frame, 0, among), back

    def answered(self, answers: Answers, back: Answers, out: DeviceArray) -> None:
        """Which of the rows that were found have found their query, uint8 (m,)."""
        self.launch_each("answered", len(answers), answers.nearest, back.nearest, np.int32(len(answers)), out)

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
        self.filter("mutual", self.route, framed, piece.framed, rows, piece.rows, piece.base, forward.reach,
                    other.reach, candidates=candidates)  # fmt: skip
        counts.filtered += rows.count * piece.count
        self.decide(rows, piece, framed, candidates, counts, forward.reach, forward.best, other.reach, other.best)
        for answers in (forward, other):
            self.advance(asked.frame, answers)
        self.pick(candidates, piece.base, forward)
        self.pick(candidates, piece.base, other, by_row=True, query_base=a_base)
