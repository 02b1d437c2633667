"""Worker processes on this machine."""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import ParameterError
from .child import Child
from .payload import pack, unpack, unpack_error
from .protocol import Result, Spec, Task
from .scheduling import Done, Event, Lost, Ready, Refused, run_in_order
from .spec_file import SpecFile
from .wire import Closed, Kind, Message
from .worker import processors, thread_settings, torch_threads


class ProcessExecutor:
    """Does tasks in processes of this machine.

    Args:
        workers: number of processes; None: as many as the processors make, each with this process's number of torch
            threads. That is one where torch uses all of them, as it does unless it is told otherwise.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.run`."""

        def transport() -> ProcessTransport:
            return ProcessTransport(spec, self.workers or max(1, processors() // (torch_threads() or 1)))

        return run_in_order(transport, tasks)

    def __repr__(self) -> str:
        return f"ProcessExecutor({self.workers})"


class ProcessTransport:
    """`scheduling.Transport` to child processes."""

    noun = "worker process"

    def __init__(self, spec: Any, workers: int) -> None:
        self.workers = workers
        self._spec = SpecFile(spec)
        self._threads = thread_settings(workers)
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._events: list[Event] = []

    def start(self, worker: int) -> None:
        """See `Transport`."""
        settings = {**self._threads, "worker": worker, "spec": self._spec.fileno}
        child = Child("inreach_fast.executors.worker", settings, inherit=[self._spec.fileno])
        self._children[worker] = child
        self._selector.register(child.connection, selectors.EVENT_READ, worker)

    def submit(self, worker: int, ticket: int, task: Any) -> None:
        """See `Transport`."""
        message = Message(Kind.TASK, worker, ticket, pack(task, f"task {ticket}"))
        try:
            self._children[worker].send(message)
        except Closed:
            self._drain(worker)

    def wait(self) -> list[Event]:
        """See `Transport`."""
        if not self._events:
            for key, _ in self._selector.select(1.0):
                self._read(key.data)
            if not self._events:
                self._look_for_dead()
        events, self._events = self._events, []
        return events

    def _read(self, worker: int) -> None:
        """One message of a worker, or its end."""
        child = self._children[worker]
        try:
            message = child.receive()
        except Closed:
            self._selector.unregister(child.connection)
            self._events.append(Lost(worker, child.how_it_ended()))
            return
        self._events.append(event_of(message))

    def _look_for_dead(self) -> None:
        # A process that a worker left behind may hold its socket open: then no end of stream tells of its death.
        for worker, child in self._children.items():
            if child.ended and child.connection in self._selector.get_map():
                self._selector.unregister(child.connection)
                self._events.append(Lost(worker, child.how_it_ended()))

    def _drain(self, worker: int) -> None:
        """What a worker that takes no more had sent before its end, so that it need not be done again."""
        child = self._children[worker]
        child.connection.settimeout(1.0)
        while child.connection in self._selector.get_map():
            self._read(worker)

    def stop(self, worker: int) -> None:
        """See `Transport`."""
        child = self._children.pop(worker)
        if child.connection.fileno() >= 0 and child.connection in self._selector.get_map():
            self._selector.unregister(child.connection)
        child.kill()

    def close(self, *, at_once: bool) -> None:
        """See `Transport`."""
        deadline = time.monotonic() + (0.0 if at_once else 5.0)
        for child in self._children.values():
            if at_once:
                child.kill()
            else:
                child.finish(deadline)
        self._children.clear()
        self._selector.close()
        self._spec.close()


def event_of(message: Message) -> Event:
    """What a message of a worker tells the scheduler."""
    kind, worker, ticket, buffers = message
    if kind is Kind.READY:
        return Ready(worker)
    if kind is Kind.REFUSED:
        return Refused(worker, unpack_error(buffers))
    if kind is Kind.LOST:
        return Lost(worker, str(unpack(buffers)))
    if kind is Kind.ERROR:
        return Done(worker, ticket, error=unpack_error(buffers))
    try:
        return Done(worker, ticket, unpack(buffers))
    except Exception as error:  # unpickling runs code of the object's own
        failure = ParameterError(f"result of task {ticket}: cannot be read here ({error})")
        return Done(worker, ticket, error=failure)
