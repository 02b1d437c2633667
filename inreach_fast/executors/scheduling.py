"""Which worker runs which task, and what is repeated when a worker is lost; the same for processes and clusters.

At most `IN_FLIGHT` tasks per worker are pulled and not yet yielded, which bounds the memory. A worker runs its tasks
in the order in which it received them, so a lost worker was busy with the first of them. That task gets a strike, and
three strikes end the run. Tasks are independent, so repeating them does not change a result.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import WorkerLostError
from .payload import PackedTask, packed, spec_file, unpacked

IN_FLIGHT: Final = 2  # tasks per worker that are with it, or done and not yet yielded: one to run, one to run next
MOST_STRIKES: Final = 3  # workers that may be lost while they run the same task
MOST_FAILED_STARTS: Final = 3  # workers that may be lost in a row while they start
MOST_LOSSES: Final = 3  # losses per worker in a row, with no task finished between them

_log = logging.getLogger("inreach_fast.executors")


class WorkerGone(Exception):
    """A worker ended before it answered; the message says how."""


class PoolWorker(Protocol):
    """One worker. If it is lost, its pending futures raise `WorkerGone`."""

    ready: Future[Any]
    """Done when the worker has built its spec: a warning or None; raises what the spec raised."""

    def submit(self, task: PackedTask) -> Future[Any]: ...

    def stop(self) -> None:
        """Ends the worker. Never raises."""


@dataclass(frozen=True)
class Pool:
    """How to have workers: how many, what messages call one, and what starts one without waiting for it."""

    size: int
    noun: str
    start: Callable[[], PoolWorker]


def run_on_pool(
    open_pool: Callable[[str], AbstractContextManager[Pool]], spec: Any, tasks: Iterable[Any]
) -> Iterator[Any]:
    """Runs tasks in a pool that is opened for the path of the spec's file; see `Executor.run`."""
    source = iter(tasks)
    for first in source:  # without tasks nothing is started
        with (
            spec_file(spec) as path,
            open_pool(path) as pool,
            closing(run_in_order(pool, packed(itertools.chain([first], source)))) as results,
        ):
            yield from unpacked(results)


def run_in_order(pool: Pool, tasks: Iterator[PackedTask]) -> Generator[Any, None, None]:
    """Yields the pickled results in order; raises `PackedError` for an error of a worker."""
    run = _Dispatch(pool, tasks)
    try:
        yield from run.results()
    finally:
        for worker in run.workers:
            worker.stop()


class _Dispatch:
    """The state of one run. Tasks are numbered from 0."""

    def __init__(self, pool: Pool, tasks: Iterator[PackedTask]) -> None:
        self.workers: list[PoolWorker] = []
        self._pool = pool
        self._tasks = tasks
        self._tasks_end = False
        self._pulled = 0
        self._next = 0  # the task whose result is yielded next
        self._kept: dict[int, PackedTask] = {}  # tasks that are not done
        self._to_do: list[int] = []  # a heap
        self._held: dict[PoolWorker, list[int]] = {}  # of each worker that is ready, in the order of its work
        self._pending: dict[Future[Any], tuple[PoolWorker, int | None]] = {}  # None: the worker starts
        self._outcomes: dict[int, Future[Any]] = {}
        self._failed: int | None = None  # the first task that failed: later ones are not started
        self._strikes: dict[int, int] = {}
        self._failed_starts = 0
        self._losses = 0

    def results(self) -> Iterator[Any]:
        while len(self._to_do) < self._pool.size and self._pull():
            pass
        self._start_workers()
        while True:
            while self._next in self._outcomes:
                yield self._take()  # not referenced here: the caller decides how long a result lives
            if self._tasks_end and self._next == self._pulled:
                return
            self._wait()
            self._assign()

    def _take(self) -> Any:
        value = self._outcomes.pop(self._next).result()
        self._next += 1
        self._assign()  # workers continue while the caller uses the result
        return value

    def _wait(self) -> None:
        """Handles what has happened, after at most a second: on Windows Ctrl-C does not interrupt a longer wait."""
        done = wait(self._pending, 1.0, FIRST_COMPLETED).done
        for future in sorted(done, key=lambda future: isinstance(future.exception(), WorkerGone)):
            if future in self._pending:  # not of a worker that was lost just now
                self._handle(future)

    def _handle(self, future: Future[Any]) -> None:
        (worker, task), error = self._pending[future], future.exception()
        if isinstance(error, WorkerGone):
            self._lost(worker, str(error))
            return
        del self._pending[future]
        if task is not None:
            self._held[worker].remove(task)
            self._losses = 0
            self._finish(task, future)
        elif error is not None:
            raise error
        else:
            self._held[worker] = []
            self._failed_starts = 0
            if future.result() is not None:
                _log.warning("%s", future.result())

    def _finish(self, task: int, outcome: Future[Any]) -> None:
        self._outcomes[task] = outcome
        self._kept.pop(task, None)
        if outcome.exception() is not None and (self._failed is None or task < self._failed):
            self._failed = task

    def _lost(self, worker: PoolWorker, reason: str) -> None:
        noun, starting = self._pool.noun, worker not in self._held
        tasks = self._held.pop(worker, [])
        self._pending = {future: held for future, held in self._pending.items() if held[0] is not worker}
        self.workers.remove(worker)
        worker.stop()
        for task in tasks:
            heapq.heappush(self._to_do, task)
        again = f"; repeating tasks {', '.join(map(str, tasks))}" if tasks else ""
        _log.warning("a %s was lost: %s%s", noun, reason, again)
        if tasks:
            self._strike(tasks[0], reason)
        self._losses += 1
        self._failed_starts += starting
        times, when = self._losses, "before it finished a task"
        if self._failed_starts >= MOST_FAILED_STARTS:
            times, when = self._failed_starts, "while it started"
        elif self._failed is not None or self._losses < MOST_LOSSES * self._pool.size:
            times = 0
        if times:
            raise WorkerLostError(
                f"{times} times in a row a {noun} was lost {when} ({reason}); use fewer workers if memory is short"
            )
        self._start_workers()

    def _strike(self, task: int, reason: str) -> None:
        self._strikes[task] = self._strikes.get(task, 0) + 1
        if self._strikes[task] < MOST_STRIKES:
            return
        self._to_do.remove(task)
        heapq.heapify(self._to_do)
        words = f"{MOST_STRIKES} times the {self._pool.noun} that ran it was lost ({reason})"
        remedy = "leave it out, or give workers more memory (fewer workers, smaller images)"
        self._fail(task, WorkerLostError(f"task {task} ({self._kept[task].name}): {words}; {remedy}"))

    def _start_workers(self) -> None:
        while len(self.workers) < min(self._pool.size, len(self._kept)):
            worker = self._pool.start()
            self.workers.append(worker)
            self._pending[worker.ready] = worker, None

    def _assign(self) -> None:
        """Gives tasks to the workers with the fewest, until each has `IN_FLIGHT` or no task may be started."""
        while self._held:
            worker = min(self._held, key=lambda worker: len(self._held[worker]))
            if len(self._held[worker]) >= IN_FLIGHT:
                return
            if not self._to_do:
                room = IN_FLIGHT * len(self._held)
                if self._pulled - self._next >= room or not self._pull():
                    return
            if self._failed is not None and self._to_do[0] > self._failed:
                return
            task = heapq.heappop(self._to_do)
            self._held[worker].append(task)
            self._pending[worker.submit(self._kept[task])] = worker, task

    def _pull(self) -> bool:
        """Takes one more task, if any; an error of the iterable is the outcome of its last task."""
        if self._tasks_end or self._failed is not None:
            return False
        try:
            self._kept[self._pulled] = next(self._tasks)
            heapq.heappush(self._to_do, self._pulled)
        except StopIteration:
            self._tasks_end = True
            return False
        except Exception as error:
            self._tasks_end = True
            self._fail(self._pulled, error)
        self._pulled += 1
        return not self._tasks_end

    def _fail(self, task: int, error: Exception) -> None:
        """Has an error raised when it is the task's turn."""
        outcome: Future[Any] = Future()
        outcome.set_exception(error)
        self._finish(task, outcome)
