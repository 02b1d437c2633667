"""Tasks in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .protocol import Result, Spec, Task


class LocalExecutor:
    """Does each task when its result is asked for; nothing is pickled and nothing started."""

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.run`."""
        function = None
        for task in tasks:
            if function is None:
                function = spec.build()
            yield function(task)

    def __repr__(self) -> str:
        return "LocalExecutor()"
