"""The schedule alone, over workers whose fate the test decides."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inreach_fast.errors import WorkerLostError
from inreach_fast.executors import scheduling
from inreach_fast.executors.payload import PackedTask
from inreach_fast.executors.scheduling import IN_FLIGHT, Pool, WorkerGone, run_in_order


class FakeWorker:
    """A worker that doubles a number when it is told to."""

    def __init__(self) -> None:
        self.ready: Future[Any] = Future()
        self.queue: deque[tuple[int, Future[Any]]] = deque()
        self.most = 0
        self.stopped = False

    def submit(self, task: PackedTask) -> Future[Any]:
        future: Future[Any] = Future()
        self.queue.append((int(task.name), future))
        self.most = max(self.most, len(self.queue))
        return future

    def stop(self) -> None:
        self.stopped = True

    def die(self) -> None:
        for future in (self.ready, *(future for _, future in self.queue)):
            if not future.done():
                future.set_exception(WorkerGone("test"))


class Fakes:
    """Workers and their fates: at each wait (what, which), "die" or anything else to start, or to do a task."""

    def __init__(self, size: int, fates: Iterable[tuple[str, int]] = ()) -> None:
        self.workers: list[FakeWorker] = []
        self.pool = Pool(size, "worker", self._start)
        self._fates = iter(fates)

    def _start(self) -> FakeWorker:
        self.workers.append(FakeWorker())
        return self.workers[-1]

    def results(self, tasks: Iterable[int]) -> Iterator[Any]:
        with mock.patch.object(scheduling, "wait", self._wait):
            yield from run_in_order(self.pool, (PackedTask(b"", str(task)) for task in tasks))

    def result(self, task: int) -> Any:
        return 2 * task

    def _wait(self, futures: Iterable[Future[Any]], *_: Any) -> Any:
        self.step()
        return wait(futures, 0)

    def step(self) -> None:
        what, which = next(self._fates, ("do", 0))
        alive = [worker for worker in self.workers if not worker.stopped]
        worker = alive[which % len(alive)]
        if what == "die":
            worker.die()
        elif not worker.ready.done():
            worker.ready.set_result(None)
        else:
            for candidate in alive:
                if candidate.queue:
                    task, future = candidate.queue.popleft()
                    future.set_result(self.result(task))
                    return


@given(
    st.integers(1, 4),
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from(["do", "do", "do", "die"]), st.integers(0, 5)), max_size=60),
)
def test_results_are_complete_and_in_order_or_an_error_says_why(
    workers: int, count: int, fates: list[tuple[str, int]]
) -> None:
    fakes = Fakes(workers, fates)
    got: list[int] = []
    pulled = 0

    def tasks() -> Iterator[int]:
        nonlocal pulled
        for task in range(count):
            pulled += 1
            yield task

    try:
        for result in fakes.results(tasks()):
            got.append(result)
            assert pulled - len(got) <= IN_FLIGHT * workers
    except WorkerLostError:
        assert sum(what == "die" for what, _ in fates) >= 3
    else:
        assert len(got) == count
    assert got == [2 * task for task in range(len(got))]
    assert all(worker.stopped and worker.most <= IN_FLIGHT for worker in fakes.workers)


def test_only_the_task_that_a_worker_was_busy_with_has_a_strike() -> None:
    # One worker, lost twice with tasks 0 and 1; then 0 is done, and 1 may still meet two losses.
    fates = [("ready", 0), ("die", 0)] * 2 + [("ready", 0), ("do", 0), ("die", 0), ("ready", 0), ("die", 0)]
    assert list(Fakes(1, fates).results(range(3))) == [0, 2, 4]
    with pytest.raises(WorkerLostError, match=r"^task 1 \(1\)"):
        list(Fakes(1, [*fates, ("ready", 0), ("die", 0)]).results(range(3)))


def test_the_count_of_losses_starts_again_when_a_task_is_done() -> None:
    # Every worker does one task and is lost: slow, but it ends.
    fates = [("ready", 0), ("do", 0), ("die", 0)] * 30
    assert list(Fakes(1, fates).results(range(30))) == [2 * i for i in range(30)]


class Idle(Fakes):
    """Workers that are lost as soon as they are ready."""

    def step(self) -> None:
        for worker in self.workers:
            if worker.queue:
                worker.die()
            elif not worker.ready.done():
                worker.ready.set_result(None)


def test_workers_that_never_finish_a_task_are_not_started_forever() -> None:
    fakes = Idle(2)
    with pytest.raises(WorkerLostError, match=r"6 times in a row a worker was lost before it finished a task|^task 0"):
        list(fakes.results(range(9)))
    assert all(worker.stopped for worker in fakes.workers)


def test_results_are_not_kept_once_they_are_yielded() -> None:
    class Heavy:
        pass

    class Makes(Fakes):
        def result(self, task: int) -> Any:
            return Heavy()

    seen: list[weakref.ref[Heavy]] = []
    for result in Makes(1).results(range(6)):
        gc.collect()
        assert all(reference() is None for reference in seen)
        seen.append(weakref.ref(result))
        del result
    assert len(seen) == 6
