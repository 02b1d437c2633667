"""Tasks in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .errors import ParameterError


class LocalExecutor:
    """Does each task when its result is asked for."""

    def run(self, spec: Any, tasks: Iterable[Any]) -> Iterator[Any]:
        """The results of the tasks, in their order."""
        function = spec.build()
        for task in tasks:
            yield function(task)


def make_executor(executor: Any) -> Any:
    """The executor that an argument means."""
    if executor == "local":
        return LocalExecutor()
    if callable(getattr(executor, "run", None)):
        return executor
    raise ParameterError(f'executor: expected "local" or an object with run, got {executor!r}')
