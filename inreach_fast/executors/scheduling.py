"""Which worker does which task, and what is done again when a worker is lost. The same for processes and clusters.

                    tasks, pulled lazily
                            │
        lost workers' ── to do ──▶ queues of the workers ──▶ outcomes ──▶ results, in the order of the tasks
        tasks come first                (transport)

At most `IN_FLIGHT` tasks a worker are pulled and not yet yielded: that bounds memory, however far a fast worker
could run ahead of a slow one. A worker's tasks are done in the order in which it was given them, so that the first
of them is the one that it was busy with when it was lost; that one has a strike against it, and the third ends the
run, while the others were only near. A loss never changes a result: tasks are functions of their own alone.
"""

from __future__ import annotations

import heapq
import logging
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import ParameterError, WorkerLostError

IN_FLIGHT: Final = 2
"""Tasks a worker that are with it, or done and not yet yielded: one to do, one so that it need not wait."""
MOST_STRIKES: Final = 3
"""Workers that a task may take with it."""
MOST_FAILED_STARTS: Final = 3
"""Workers in a row that may be lost while they start."""
MOST_LOSSES: Final = 3
"""Losses a worker, in a row, without one task finished in between."""

_log = logging.getLogger("inreach_fast.executors")


@dataclass(frozen=True)
class Ready:
    """A worker was built and takes tasks."""

    worker: int


@dataclass(frozen=True)
class Refused:
    """A worker could not be built: its spec raised ``error``."""

    worker: int
    error: BaseException


@dataclass(frozen=True)
class Done:
    """A task was done: it gave ``value``, or raised ``error``."""

    worker: int
    ticket: int
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Lost:
    """A worker is gone, and what it was doing with it."""

    worker: int
    reason: str


Event = Ready | Refused | Done | Lost


class Transport(Protocol):
    """Workers somewhere. Numbers of workers and tickets of tasks are the caller's."""

    workers: int
    """How many workers to have."""
    noun: str
    """What a worker is called in messages: "worker process"."""

    def start(self, worker: int) -> None:
        """Begins to start a worker; `Ready`, `Refused` or `Lost` follows."""

    def submit(self, worker: int, ticket: int, task: Any) -> None:
        """Puts a task behind those that a worker has; `Done` follows, or the worker's `Lost`.

        Raises:
            ParameterError: the task cannot be pickled.
        """

    def wait(self) -> list[Event]:
        """What has happened, after a second at the latest (then possibly nothing).

        Raises:
            ClusterError: all is lost.
        """

    def stop(self, worker: int) -> None:
        """Lets go of a worker that is lost; nothing more is heard of it."""

    def close(self, *, at_once: bool) -> None:
        """Ends all workers; ``at_once`` in the middle of their tasks. Never raises, never hangs."""


def run_in_order(open_transport: Callable[[], Transport], tasks: Iterable[Any]) -> Iterator[Any]:
    """Does tasks through a transport that is opened for them; see `Executor.run`."""
    source = _Source(tasks)
    source.pull()
    if not source.pulled:
        source.raise_failure()
        return
    transport = open_transport()
    finished = False
    try:
        yield from _Schedule(transport, source).results()
        finished = True
    finally:
        transport.close(at_once=not finished)


class _Source:
    """The tasks, numbered; those that may have to be done again are kept."""

    def __init__(self, tasks: Iterable[Any]) -> None:
        self._tasks = iter(tasks)
        self.kept: dict[int, Any] = {}
        self.pulled = 0
        self.ended = False
        self.failure: BaseException | None = None

    def pull(self) -> bool:
        """Takes one more; False if there is none. An error of the iterable's own ends it, and is kept."""
        if self.ended:
            return False
        try:
            task = next(self._tasks)
        except StopIteration:
            self.ended = True
            return False
        except Exception as error:
            self.ended = True
            self.failure = error
            return False
        self.kept[self.pulled] = task
        self.pulled += 1
        return True

    def raise_failure(self) -> None:
        """Raises what the iterable raised, if it did."""
        if self.failure is not None:
            raise self.failure


class _Schedule:
    """One run."""

    def __init__(self, transport: Transport, source: _Source) -> None:
        self._transport = transport
        self._source = source
        self._workers = max(1, transport.workers)
        self._to_do = list(range(source.pulled))  # a heap of tickets
        self._starting: set[int] = set()
        self._queues: dict[int, deque[int]] = {}  # of each ready worker
        self._outcomes: dict[int, Done] = {}
        self._strikes: dict[int, int] = {}
        self._next = 0  # the ticket whose result is yielded next
        self._last: int | None = None  # a task that failed: later ones are not begun any more
        self._started = 0
        self._failed_starts = 0
        self._losses = 0

    def results(self) -> Iterator[Any]:
        """The results, in order."""
        while len(self._to_do) < self._workers and self._pull():
            pass
        self._start_workers()
        while True:
            while self._next in self._outcomes:
                yield self._take()  # not held here: the consumer alone decides how long a result lives
            if self._next == self._source.pulled and self._source.ended:
                self._source.raise_failure()
                return
            for event in self._transport.wait():
                self._handle(event)
            self._assign()

    def _take(self) -> Any:
        outcome = self._outcomes.pop(self._next)
        if outcome.error is not None:
            raise outcome.error
        self._next += 1
        self._assign()  # workers go on while the result is used
        return outcome.value

    def _handle(self, event: Event) -> None:
        if isinstance(event, Done):
            self._done(event)
        elif isinstance(event, Lost):
            self._lost(event)
        elif event.worker in self._starting:
            if isinstance(event, Refused):
                raise event.error
            self._starting.remove(event.worker)
            self._queues[event.worker] = deque()
            self._failed_starts = 0

    def _done(self, event: Done) -> None:
        queue = self._queues.get(event.worker, deque())
        if event.ticket not in queue:
            return  # of a worker that was given up
        queue.remove(event.ticket)
        self._losses = 0
        self._finish(event)

    def _finish(self, outcome: Done) -> None:
        self._outcomes[outcome.ticket] = outcome
        del self._source.kept[outcome.ticket]
        if outcome.error is not None and (self._last is None or outcome.ticket < self._last):
            self._last = outcome.ticket

    def _lost(self, event: Lost) -> None:
        worker, noun = event.worker, self._transport.noun
        if worker not in self._starting and worker not in self._queues:
            return
        starting = worker in self._starting
        self._starting.discard(worker)
        queue = self._queues.pop(worker, deque())
        self._transport.stop(worker)
        for ticket in queue:
            heapq.heappush(self._to_do, ticket)
        again = f"; tasks {', '.join(map(str, queue))} are done again" if queue else ""
        _log.warning("a %s was lost: %s%s", noun, event.reason, again)
        if queue:
            self._strike(queue[0], event.reason)
        if starting:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise WorkerLostError(
                    f"{MOST_FAILED_STARTS} times in a row a {noun} was lost while it started ({event.reason}); "
                    "fewer workers need less memory"
                )
        self._losses += 1
        if self._losses >= MOST_LOSSES * self._workers and self._last is None:
            raise WorkerLostError(
                f"{self._losses} times in a row a {noun} was lost before it finished a task ({event.reason}); "
                "fewer workers need less memory"
            )
        self._start_workers()

    def _strike(self, ticket: int, reason: str) -> None:
        self._strikes[ticket] = self._strikes.get(ticket, 0) + 1
        if self._strikes[ticket] < MOST_STRIKES:
            return
        self._to_do.remove(ticket)
        heapq.heapify(self._to_do)
        noun, task = self._transport.noun, _named(self._source.kept[ticket])
        error = WorkerLostError(
            f"task {ticket} ({task}): {MOST_STRIKES} times the {noun} that did it was lost ({reason}); leave it "
            "out, or give workers more memory (fewer of them, smaller images)"
        )
        self._finish(Done(-1, ticket, error=error))  # raised when its turn comes, as an error of its own would be

    def _start_workers(self) -> None:
        wanted = min(self._workers, len(self._source.kept))
        while len(self._starting) + len(self._queues) < wanted:
            self._starting.add(self._started)
            self._transport.start(self._started)
            self._started += 1

    def _assign(self) -> None:
        """Gives tasks to the workers that have the fewest, until each has `IN_FLIGHT` or none may be begun."""
        while self._queues:
            worker = min(self._queues, key=lambda number: len(self._queues[number]))
            if len(self._queues[worker]) >= IN_FLIGHT:
                return
            if not self._to_do:
                room = IN_FLIGHT * len(self._queues)
                if self._source.pulled - self._next >= room or not self._pull():
                    return
            if self._last is not None and self._to_do[0] > self._last:
                return
            ticket = heapq.heappop(self._to_do)
            self._queues[worker].append(ticket)
            try:
                self._transport.submit(worker, ticket, self._source.kept[ticket])
            except ParameterError as error:
                self._queues[worker].remove(ticket)
                self._finish(Done(worker, ticket, error=error))

    def _pull(self) -> bool:
        if self._last is not None or not self._source.pull():
            return False
        heapq.heappush(self._to_do, self._source.pulled - 1)
        return True


def _named(task: Any) -> str:
    short = reprlib.Repr()
    short.maxother = short.maxstring = 100
    return short.repr(task)
