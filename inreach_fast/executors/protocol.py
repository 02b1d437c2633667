"""The interface of executors, and the executor that stays in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Spec(Protocol[Task_contra, Result_co]):
    """Describes a job: data that can be pickled, sent to each worker once. Its arrays are read-only there."""

    def build(self) -> Callable[[Task_contra], Result_co]:
        """Returns the function that maps a task to its result; called once in each worker.

        The result must depend on the task alone: if a worker is lost, another one repeats its tasks.
        """


class Executor(Protocol):
    """Runs tasks, here or elsewhere; `make_executor` makes one."""

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yields the results in the order of the tasks.

        The tasks are consumed lazily, a few per worker ahead of the results.
        Workers start when the iterator is first advanced, and end when it is exhausted or closed or raises.

        Raises:
            Whatever a task raises, after the results of all earlier tasks.
            ParameterError: the spec, a task or a result cannot be pickled. WorkerLostError, ClusterError.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Runs each task in this process when its result is requested."""

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.run`; nothing is pickled."""
        function = None
        for task in tasks:
            function = function or spec.build()
            yield function(task)
