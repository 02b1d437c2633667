"""Exact nearest neighbours for k = 1: the order of launches (docs/gpu.md, section 3; csrc/cuda/kernels/README.md).

    frame ─ filter ─ candidates ─ decide ─ advance ─ pick ─ finish                       k = 1, and both directions
    heads ─ filter (argmin) ─ decide ─ filter (collect) ─ refine ─ decide ─ ...          k = 1, by leading directions
    ... ─ ask_back ─ frame ─ filter ─ candidates ─ decide ─ advance ─ pick ─ answered    which rows answer (k = 1)

Where the list of candidates overflows, what was listed is decided, and both halves of the range of bank rows are
searched again under the lower reaches. Deciding a pair twice changes nothing. k > 1 is in ranked.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from ...array_types import IndexArray
from .device import DeviceArray, fill, launch_each
from .frame import DeviceRows, Directions, Frame, Piece
from .launcher import Launcher
from .search_state import NONE, Answers, Candidates, Counts

# Leading directions pay while they leave fewer than one pair in so many: the cost of a pair that they let through (its
# row read from memory) over its cost in a filter in all dimensions (docs/gpu.md, section 5).
_WORTH = 128


@dataclass(frozen=True)
class Target:
    """A bank as searches see it.

    Attributes:
        frame, directions: of its ``count`` rows; without directions it is searched in all dimensions.
        pieces: iterates over it, piece by piece.
        whole: all rows, where they are on the GPU at once; otherwise ``gathered`` copies rows there by their numbers,
            int64 (m,).
    """

    frame: Frame
    directions: Directions | None
    count: int
    pieces: Callable[[], Iterable[Piece]]
    whole: Piece | None = None
    gathered: Callable[[IndexArray], DeviceRows] | None = None

    def after(self, listed: int, queries: int) -> Target:
        """The bank after a pass that has listed so many pairs: without directions, if these do not pay."""
        return replace(self, directions=None) if listed > queries * self.count // _WORTH else self


@dataclass(frozen=True)
class _SearchRun:
    """Queries that are searched together, and the state of their search; ``back`` as in `Search`."""

    queries: Piece
    answers: Answers
    candidates: Candidates
    back: Answers | None


@dataclass
class Search(Launcher):
    """Searches for one neighbour, in one direction or in both.

    Arguments of `complete` and `enqueue`: ``back`` are answers of all bank rows, for a search in both directions;
    ``hint`` is int64 (m,), a bank row for each query that may be near.
    """

    def complete(
        self,
        target: Target,
        queries: DeviceRows,
        answers: Answers,
        counts: Counts,
        *,
        back: Answers | None = None,
        hint: DeviceArray | None = None,
    ) -> None:
        """Searches the whole bank, whatever its size, starting from what ``answers`` know; waits for the GPU."""
        candidates = Candidates(self.device, self.capacity, counts)
        by_heads = target.directions is not None
        for first, stop in self.chunks(queries.count):
            asked = self.piece(target.frame, first, queries.part(first, stop), target.directions)
            run = _SearchRun(asked, answers.part(first, stop), candidates, back)
            guesses = None if hint is None else hint.part(first, stop)
            for piece in target.pieces():
                self._begin(run, piece, guesses)
                if not by_heads:
                    self._passes(run, piece, by_heads=False)
            if by_heads:  # under first reaches from all of the bank
                for piece in target.pieces():
                    self._passes(run, piece, by_heads=True)

    def enqueue(
        self,
        target: Target,
        queries: DeviceRows,
        answers: Answers,
        candidates: Candidates,
        *,
        back: Answers | None = None,
        hint: DeviceArray | None = None,
    ) -> None:
        """The same for queries and a bank that are on the GPU at once, without waiting.

        The answers are final if ``candidates`` has not overflowed; otherwise `complete` continues from them.
        """
        assert target.whole is not None
        run = _SearchRun(self.piece(target.frame, 0, queries, target.directions), answers, candidates, back)
        self._begin(run, target.whole, hint)
        self._pass(run, target.whole, by_heads=target.directions is not None)

    def _begin(self, run: _SearchRun, piece: Piece, hint: DeviceArray | None) -> None:
        """First reaches: from a caller's guesses, and by leading directions from the row whose bound is least."""
        count, candidates = run.queries.count, run.candidates
        if hint is not None:
            candidates.clear()
            self.guess(run.queries, piece, hint, candidates)
            self._settle(run, piece, None)
        if run.queries.heads is not None:
            candidates.clear()
            argmin = self.device.empty(count, np.uint64)
            fill(self.device, argmin, NONE)
            self.filter("argmin", run.queries, piece, heads=True, argmin=argmin)
            launch_each(self.device, "seed", count, argmin, np.int32(count), *candidates.listed)
            self._settle(run, piece, None)

    def _passes(self, run: _SearchRun, piece: Piece, *, by_heads: bool) -> None:
        """A pass over the piece; where the list overflows, over its halves as well."""
        self._pass(run, piece, by_heads=by_heads)
        listed = run.candidates.listed_count() if piece.count > 1 else 0
        if listed > self.capacity:
            if by_heads and listed > run.queries.count * piece.count // _WORTH:
                self._passes(run, piece, by_heads=False)
            else:
                for half in piece.halves():
                    self._passes(run, half, by_heads=by_heads)

    def _pass(self, run: _SearchRun, piece: Piece, *, by_heads: bool) -> None:
        """One pass over a piece, without waiting: candidates, decisions, new reaches and answers."""
        queries, reach, candidates, counts = run.queries, run.answers.reach, run.candidates, run.candidates.counts
        back = None
        candidates.clear()
        if by_heads:
            self.filter("collect", queries, piece, reach, heads=True, candidates=candidates)
            counts.bounded += queries.count * piece.count
            self.refine(queries, piece, candidates, reach)
        else:
            back = None if run.back is None else run.back.part(piece.base, piece.base + piece.count)
            task, x_reach = ("nearest", None) if back is None else ("mutual", back.reach)
            self.filter(task, queries, piece, reach, x_reach, candidates=candidates)
            counts.filtered += queries.count * piece.count
        self._settle(run, piece, back)

    def _settle(self, run: _SearchRun, piece: Piece, back: Answers | None) -> None:
        """Candidates to answers; ``back``: of the piece's rows."""
        self.decide(run.queries, piece, run.candidates, run.answers.reach, run.answers.best, back)
        self.advance(run.answers)
        self.pick(run.candidates, piece.base, run.answers)
        if back is not None:
            self.advance(back)
            self.pick(run.candidates, piece.base, back, query_base=run.queries.base)

    def ask_back(
        self, frame: Frame, queries: DeviceRows, bank: DeviceRows, answers: Answers
    ) -> tuple[DeviceRows, Target, Answers]:
        """The rows that were found, the queries as the bank that they search, and what these rows know already.

        A row that several queries have found asks once for each, starting from the distance to that query: few other
        queries are nearer.
        """
        device, count = self.device, queries.count
        rows = device.empty(count, np.int64)
        back = Answers.none(device, count, frame)
        launch_each(
            device, "ask_back", count, answers.best, answers.nearest, bank.index, np.int64(bank.first),
            np.int32(count), rows, back.best, back.seen, back.nearest,
        )  # fmt: skip
        self.advance(back)
        whole = self.piece(frame, 0, replace(queries, group=None))
        return DeviceRows(bank.values, rows, 0, count), Target(frame, None, count, lambda: [whole], whole), back

    def answered(self, answers: Answers, back: Answers, out: DeviceArray) -> None:
        """Which of the rows that were found have found their query, bool (m,)."""
        launch_each(self.device, "answered", len(answers), answers.nearest, back.nearest, np.int32(len(answers)), out)
