"""Specs for the tests of executors; in a module of their own, since workers import it."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inreach_fast.errors import SaveError


@dataclass
class Scale:
    """Multiplies by an array that all workers share."""

    factors: np.ndarray = field(default_factory=lambda: np.arange(4, dtype=np.float32))

    def build(self) -> Callable[[int], np.ndarray]:
        return lambda task: self.factors * task


@dataclass
class Who:
    """Which process runs a task, with which threads and environment."""

    seconds: float = 0.0
    torch: bool = False

    def build(self) -> Callable[[Any], dict[str, Any]]:
        import inreach_fast

        torch = importlib.import_module("torch") if self.torch else None

        def call(task: Any) -> dict[str, Any]:
            time.sleep(self.seconds)
            return {
                "task": task,
                "pid": os.getpid(),
                "kernel_threads": inreach_fast.get_num_threads(),
                "torch_threads": torch and torch.get_num_threads(),
                "isa": os.environ.get("INREACH_ISA"),
            }

        return call


@dataclass
class Dies:
    """Task ``victim`` kills its process the first ``times`` times; counted by files in a folder."""

    folder: str
    victim: int
    times: int = 1

    def build(self) -> Callable[[int], np.ndarray]:
        def call(task: int) -> np.ndarray:
            if task == self.victim:
                met = len(os.listdir(self.folder))
                if met < self.times:
                    (Path(self.folder) / f"{met}-{os.getpid()}").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return np.full(50_000, task, dtype=np.float64)

        return call


@dataclass
class NeverBuilt:
    """Building it raises, or kills the process."""

    error: BaseException | None = None

    def build(self) -> Callable[[int], int]:
        if self.error is not None:
            raise self.error
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class OddError(Exception):
    """An error that does not survive pickling."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@dataclass
class Fails:
    """Task 3 raises."""

    error: str = "save"
    slow: int = -1

    def build(self) -> Callable[[int], int]:
        def call(task: int) -> Any:
            if task == self.slow:
                time.sleep(0.5)
            if task in (3, 4):
                if self.error == "save":
                    raise SaveError(28, f"disk full at {task}")
                if self.error == "odd":
                    raise OddError(task, 2)
                if self.error == "exit":
                    raise SystemExit(7)
                return lambda: task  # "result": what cannot be sent back
            return task

        return call


@dataclass
class Echo:
    """Gives tasks back."""

    def build(self) -> Callable[[Any], Any]:
        return lambda task: task


@dataclass
class Blocks:
    """Every task but the first leaves a file in a folder and then never ends."""

    folder: str

    def build(self) -> Callable[[int], int]:
        def call(task: int) -> int:
            if task:
                (Path(self.folder) / str(task)).touch()
                threading.Event().wait()
            return task

        return call


@dataclass
class Shared:
    """Whether the worker could write into the spec's array, and the array's sum."""

    array: np.ndarray

    def build(self) -> Callable[[Any], tuple[bool, float]]:
        return lambda task: (bool(self.array.flags.writeable), float(self.array.sum()))


@dataclass
class Prints:
    """Prints, as careless networks do."""

    def build(self) -> Callable[[int], int]:
        def call(task: int) -> int:
            print("noise", task, flush=True)
            return task

        return call


@dataclass
class LeavesAChild:
    """Forks a child that holds everything open, then dies."""

    pids: str

    def build(self) -> Callable[[int], int]:
        def call(task: int) -> int:
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            with open(self.pids, "a") as file:
                file.write(f"{pid} ")
            os.kill(os.getpid(), signal.SIGKILL)
            return task

        return call
