"""Inspects the image files of a folder as they arrive; each is reported once, whatever happens to the process."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from .arrivals import Arrival, Arrivals, Look, arrival_at
from .events import log_event
from .inspector import Inspection, Inspector
from .signals import Stop
from .verdicts import VerdictJournal

_TICK = 0.1  # seconds: how soon a request to stop is noticed
_LEAST_POLL = 0.01


@dataclass
class WatchCounts:
    """What a watch has done: files reported, anomalous and bad ones among them, and those that vanished."""

    reported: int = 0
    anomalous: int = 0
    bad: int = 0
    vanished: int = 0


class Watch:
    """Inspects what arrives and writes it to the journal.

    The folder is the queue: a look takes the oldest files that are complete, at most ``queue`` of them, and the others
    stay where they are. At most two images for each worker are in memory.

    Args:
        arrivals, inspector, journal: the folder, the model, and where verdicts go.
        workers: images that are read and scored at the same time.
        queue: files that a look takes; when more are waiting, the watch says that it falls behind.
        poll: seconds between looks.
        finish: called in a worker with each `Inspection` that has a verdict, before it is reported, to write a picture;
            it returns fields of its row. It may be called again for the same file after a kill.
        report: called with each row after it is in the journal.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        inspector: Inspector,
        journal: VerdictJournal,
        *,
        workers: int = 2,
        queue: int = 256,
        poll: float = 0.5,
        finish: Callable[[Inspection], dict[str, Any]] | None = None,
        report: Callable[[dict[str, Any]], object] = lambda row: None,
    ) -> None:
        self.counts = WatchCounts()
        self._arrivals, self._inspector, self._journal = arrivals, inspector, journal
        self._workers, self._most, self._poll = workers, queue, max(poll, _LEAST_POLL)
        self._finish, self._report = finish, report
        self._in_work: set[bytes] = set()
        self._behind = 0  # files that were waiting when this was said

    def run(self, stop: Stop, *, once: bool = False) -> WatchCounts:
        """Inspects until asked to stop, and then finishes the images in work.

        Args:
            stop: asks to stop. once: stop when all files that are in the folder now have been dealt with.

        Raises:
            SaveError: a verdict cannot be written. Errors that are not an image's own (a lost GPU, a changed model).
        """
        if once:
            self._arrivals.only_those_here()
        pending: deque[tuple[Arrival, Future[tuple[Inspection, dict[str, Any]] | None]]] = deque()
        queue: deque[Arrival] = deque()
        next_look, look = 0.0, Look([], 0, 0)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="inreach-watch") as pool:
            try:
                while True:
                    now = time.monotonic()
                    if not stop.asked and (now >= next_look or (not queue and look.waiting > self._most)):
                        look = self._arrivals.look(now, _Either(self._journal.done, self._in_work), self._most)
                        queue = deque(look.complete)
                        # Of a folder so full that a look takes long, half the time is spent on other things.
                        next_look = time.monotonic() + max(self._poll, time.monotonic() - now)
                        self._say_whether_behind(look)
                        self._journal.sync()
                    while queue and not stop.asked and len(pending) < 2 * self._workers:
                        arrival = queue.popleft()
                        self._in_work.add(arrival.key)
                        pending.append((arrival, pool.submit(self._inspect, arrival)))
                    if pending:
                        arrival, future = pending[0]
                        wait([future], _TICK)
                        if future.done():
                            pending.popleft()
                            if not self._take(arrival, future.result()):
                                look = replace(look, waiting=look.waiting + 1)  # another version of it, perhaps
                    elif stop.asked or (once and not look.waiting):
                        return self.counts
                    elif not queue:
                        stop.sleep(max(next_look - time.monotonic(), 0.0))
            finally:
                for _, future in pending:
                    future.cancel()
                self._journal.sync()

    def _inspect(self, arrival: Arrival) -> tuple[Inspection, dict[str, Any]] | None:
        """In a worker: the inspection and the further fields of its row; None if the file is another, or gone."""
        folder = self._arrivals.folder
        if arrival_at(folder, arrival.name) != arrival:
            return None
        path, with_map = folder / arrival.name, self._finish is not None
        inspection = self._inspector.attempt(path, arrival.name, with_map=with_map)
        after = arrival_at(folder, arrival.name)
        # Written while it was read, or removed before. If it was removed after it had been read, the verdict holds.
        if after != arrival and (after is not None or inspection.error is not None):
            return None
        further = self._finish(inspection) if self._finish is not None and inspection.error is None else {}
        return inspection, further

    def _take(self, arrival: Arrival, done: tuple[Inspection, dict[str, Any]] | None) -> bool:
        """Reports what a worker has found; False if there is nothing to report."""
        self._in_work.discard(arrival.key)
        if done is None:
            if arrival_at(self._arrivals.folder, arrival.name) is None:
                self.counts.vanished += 1
                why = f"{arrival.name}: was removed before it was inspected; remove files when their verdicts are there"
                log_event("vanished", level=logging.WARNING, file=arrival.name, error=why)
            return False
        inspection, further = done
        row = self._journal.append(arrival, {**inspection.row(), **further})
        self.counts.reported += 1
        self.counts.bad += inspection.error is not None
        self.counts.anomalous += inspection.error is None and inspection.is_anomalous
        self._report(row)
        return True

    def _say_whether_behind(self, look: Look) -> None:
        if look.waiting > max(self._most, 2 * self._behind - 1):
            self._behind = look.waiting
            seconds = round(max(time.time() - look.oldest / 1e9, 0.0), 1)
            log_event("behind", level=logging.WARNING, waiting=look.waiting, oldest_seconds=seconds)
        elif self._behind and look.waiting <= self._most // 2:
            self._behind = 0
            log_event("caught_up", waiting=look.waiting)


class _Either:
    """What is in one of two sets."""

    def __init__(self, one: set[bytes], other: set[bytes]) -> None:
        self._one, self._other = one, other

    def __contains__(self, key: object) -> bool:
        return key in self._one or key in self._other
