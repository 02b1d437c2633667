"""What an executor is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Spec(Protocol[Task_contra, Result_co]):
    """How a worker is made: data that can be pickled, sent to each worker once.

    What is large in it (arrays) is shared by the workers of one machine and read-only there.
    """

    def build(self) -> Callable[[Task_contra], Result_co]:
        """The worker's function, from a task to its result.

        Called once a worker, in the worker's process. The function must be one of its task alone: a task whose
        worker is lost is done again by another, and its result must be the same.
        """


class Executor(Protocol):
    """Does tasks, here or elsewhere; `make_executor` makes one."""

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of the tasks, in the order of the tasks, as they are asked for.

        Args:
            spec: how a worker is made.
            tasks: consumed lazily, a few tasks a worker ahead of the results.

        Returns:
            An iterator. Nothing is started before it is first asked; closing it (or an error) ends the workers.

        Raises:
            What a task raises, at its place in the order: the results of all earlier tasks come first.
            ParameterError: the spec, a task or a result cannot be pickled. WorkerLostError, ClusterError.
        """
