"""The scheduler by itself, over workers that do as the test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inreach_fast.errors import WorkerLostError
from inreach_fast.executors.scheduling import IN_FLIGHT, Done, Event, Lost, Ready, run_in_order


class Fake:
    """Workers that double a number; ``fates`` says what happens next, at each wait.

    A fate is (what, which): "ready" or "die" for a starting worker, "do" or "die" for a ready one.
    """

    noun = "worker"

    def __init__(self, workers: int, fates: Iterable[tuple[str, int]] = ()) -> None:
        self.workers = workers
        self._fates = iter(fates)
        self.starting: list[int] = []
        self.queues: dict[int, deque[tuple[int, int]]] = {}
        self.started = 0
        self.most = 0
        self.closed: list[bool] = []

    def start(self, worker: int) -> None:
        self.starting.append(worker)
        self.started += 1

    def submit(self, worker: int, ticket: int, task: Any) -> None:
        self.queues[worker].append((ticket, task))
        self.most = max(self.most, len(self.queues[worker]))

    def wait(self) -> list[Event]:
        what, which = next(self._fates, ("do", 0))
        alive = self.starting + sorted(self.queues)
        worker = alive[which % len(alive)]
        if what == "die":
            if worker in self.starting:
                self.starting.remove(worker)
            self.queues.pop(worker, None)
            return [Lost(worker, "test")]
        if worker in self.starting:
            self.starting.remove(worker)
            self.queues[worker] = deque()
            return [Ready(worker)]
        for candidate in sorted(self.queues):
            if self.queues[candidate]:
                ticket, task = self.queues[candidate].popleft()
                return [Done(candidate, ticket, 2 * task)]
        return []

    def stop(self, worker: int) -> None:
        pass

    def close(self, *, at_once: bool) -> None:
        self.closed.append(at_once)


@given(
    st.integers(1, 4),
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from(["do", "do", "do", "die"]), st.integers(0, 5)), max_size=60),
)
def test_whatever_happens_results_are_whole_and_in_order_or_an_error_says_why(
    workers: int, count: int, fates: list[tuple[str, int]]
) -> None:
    fake = Fake(workers, fates)
    got: list[int] = []
    pulled = 0

    def tasks() -> Iterator[int]:
        nonlocal pulled
        for task in range(count):
            pulled += 1
            yield task

    try:
        for result in run_in_order(lambda: fake, tasks()):
            got.append(result)
            assert pulled - len(got) <= IN_FLIGHT * workers
    except WorkerLostError:
        assert sum(what == "die" for what, _ in fates) >= 3
        assert fake.closed == [True]
    else:
        assert len(got) == count
        assert fake.closed == ([False] if count else [])
    assert got == [2 * task for task in range(len(got))]
    assert fake.most <= IN_FLIGHT


def test_only_the_task_that_a_worker_was_busy_with_has_a_strike() -> None:
    # One worker, lost twice with tasks 0 and 1; then 0 is done, and 1 may still meet two losses.
    fates = [("ready", 0), ("die", 0)] * 2 + [("ready", 0), ("do", 0), ("die", 0), ("ready", 0), ("die", 0)]
    assert list(run_in_order(lambda: Fake(1, fates), range(3))) == [0, 2, 4]
    with pytest.raises(WorkerLostError, match=r"^task 1 \(1\)"):
        list(run_in_order(lambda: Fake(1, [*fates, ("ready", 0), ("die", 0)]), range(3)))


def test_the_count_of_losses_starts_again_when_a_task_is_done() -> None:
    # Every worker does one task and is lost: slow, but it ends.
    fates = [("ready", 0), ("do", 0), ("die", 0)] * 30
    assert list(run_in_order(lambda: Fake(1, fates), range(30))) == [2 * i for i in range(30)]


class Idle(Fake):
    """A worker that is lost as soon as it is ready."""

    def wait(self) -> list[Event]:
        worker = self.starting.pop()
        return [Ready(worker), Lost(worker, "test")]


def test_workers_that_are_lost_before_they_have_a_task_are_not_started_for_ever() -> None:
    fake = Idle(2)
    with pytest.raises(WorkerLostError, match="6 times in a row a worker was lost before it finished a task"):
        list(run_in_order(lambda: fake, range(9)))
    assert fake.closed == [True]


def test_a_transport_that_cannot_be_opened_is_told() -> None:
    def opened() -> Fake:
        raise WorkerLostError("no")

    with pytest.raises(WorkerLostError, match="no"):
        list(run_in_order(opened, range(2)))


def test_results_are_not_kept_once_they_are_yielded() -> None:
    import gc
    import weakref

    class Heavy:
        def __init__(self, task: int) -> None:
            self.task = task

    class Doubler(Fake):
        def wait(self) -> list[Event]:
            return [Done(e.worker, e.ticket, Heavy(e.ticket)) if isinstance(e, Done) else e for e in super().wait()]

    seen: list[weakref.ref[Heavy]] = []
    for result in run_in_order(lambda: Doubler(1), range(6)):
        gc.collect()
        assert all(reference() is None for reference in seen)
        seen.append(weakref.ref(result))
        del result
    assert len(seen) == 6
