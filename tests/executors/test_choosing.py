"""`make_executor`: what an argument means."""

from __future__ import annotations

import importlib.util
import pickle
from typing import Any

import pytest

from inreach_fast import errors
from inreach_fast.errors import ParameterError
from inreach_fast.executors import Executor, LocalExecutor, ProcessExecutor, RayExecutor, make_executor
from inreach_fast.executors.payload import pack_error, unpack_error


def test_names_of_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert isinstance(make_executor("local"), LocalExecutor)
    for name, workers in [("processes", None), ("processes:3", 3), ("processes:07", 7)]:
        executor = make_executor(name)
        assert isinstance(executor, ProcessExecutor)
        assert executor.workers == workers
    for name, address in [("ray", None), ("node:6379", "node:6379"), ("ray://[::1]:10001", "ray://[::1]:10001")]:
        executor = make_executor(name, workers=5)
        assert isinstance(executor, RayExecutor)
        assert (executor.address, executor.workers) == (address, 5)


def test_an_executor_is_returned() -> None:
    mine: Executor = LocalExecutor()
    assert make_executor(mine) is mine


@pytest.mark.parametrize(
    "value",
    ["", "thread", "processes:", "processes:0", "processes:-1", "processes:x", "processes:1.5", "ray:", "ray://",
     "ray://node", "node:0", "node:65536", "node:", ":6379", "a b:6379", 3, None, object(), LocalExecutor],
)  # fmt: skip
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"^executor: expected"):
        make_executor(value)


@pytest.mark.parametrize("workers", [0, -2, 1.5, "x", True, 10**6])
def test_a_wrong_number_of_workers(workers: Any) -> None:
    with pytest.raises(ParameterError, match=r"^workers: expected a number of workers"):
        make_executor("processes", workers=workers)


@pytest.mark.parametrize(
    "kind", [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
)
def test_every_error_of_the_package_survives_pickling(kind: type[Exception]) -> None:
    error = kind(28, "folder: full") if kind is errors.SaveError else kind("what, and the remedy")
    back = unpack_error(pack_error(error))
    assert type(back) is kind
    assert (str(back), back.args) == (str(error), error.args)
    assert type(pickle.loads(pickle.dumps(error))) is kind
