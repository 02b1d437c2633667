"""Worker processes on this machine: the executor, this process's end of the connection to one, and what runs in it.

Processes are spawned: threads and CUDA do not survive a fork. A `concurrent.futures.ProcessPoolExecutor` would break as
a whole, and name no task, if a worker is lost; its workers outlive a killed program, which also needs a main guard.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from ..errors import ExecutorError
from ..system.threads import get_num_threads, set_num_threads
from .payload import PackedError, PackedTask, load_spec, pack_error, perform, spec_parts
from .protocol import Result, Spec, Task
from .scheduling import Pool, WorkerGone, run_on_pool

_starting = threading.Lock()


@dataclass(frozen=True)
class ProcessExecutor:
    """Runs tasks in processes of this machine.

    Args:
        workers: number of processes; None: the number of processors divided by this process's number of torch threads.
            That is 1 unless torch was told to use fewer threads than there are processors.
    """

    workers: int | None = None

    @property
    def usable(self) -> int:
        """How many processes, each with this process's number of torch threads, the processors have room for."""
        return max(1, processors() // (torch_threads() or 1))

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.workers or self.usable

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.run`."""
        size = self.size
        threads = thread_settings(size)

        def pool(path: str) -> nullcontext[Pool]:
            return nullcontext(Pool(size, "worker process", lambda: _ProcessWorker(path, threads)))

        return run_on_pool(pool, spec, tasks)


def start_process(target: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Starts a process that runs ``target(connection, *args)``; returns it and this end of the connection."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), daemon=True)
    with _starting, theirs:
        # The new process would import the running program, which would then need a main guard.
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            process.start()
        except (OSError, AssertionError) as error:  # AssertionError: this process is itself a daemon
            ours.close()
            raise ExecutorError(f"executor: a process cannot be started ({error}); use fewer workers") from error
        finally:
            sys.modules["__main__"] = program
    return process, ours


class ConnectedWorker:
    """`scheduling.PoolWorker` at the other end of a connection; a thread sends it tasks and takes its answers.

    An answer is ("result", value), ("error", `pack_error`) or ("lost", reason). The first says whether the spec was
    built. ``process`` holds the other end; ``ended`` makes the error if it has ended.
    """

    def __init__(self, connection: Connection, process: BaseProcess, ended: Callable[[], Exception]) -> None:
        self._connection = connection
        self._process = process
        self._ended = ended
        self._requests: queue.SimpleQueue[tuple[PackedTask | None, Future[Any]] | None] = queue.SimpleQueue()
        self.ready = self.submit(None)
        threading.Thread(target=self._exchange, name="inreach-worker", daemon=True).start()

    def submit(self, task: PackedTask | None) -> Future[Any]:  # None: only wait for an answer
        future: Future[Any] = Future()
        self._requests.put((task, future))
        return future

    def stop(self) -> None:
        """Closes the connection, after the current task."""
        self._requests.put(None)

    def _exchange(self) -> None:
        lost: Exception | None = None
        with self._connection:
            while (request := self._requests.get()) is not None:
                task, future = request
                try:
                    if lost is not None:
                        raise lost
                    future.set_result(self._ask(task))
                except Exception as error:
                    future.set_exception(error)
                    lost = None if isinstance(error, PackedError) else error
                del request, task, future  # the caller decides how long a result lives

    def _ask(self, task: PackedTask | None) -> Any:
        try:
            if task is not None:
                self._connection.send_bytes(task.blob)
            # A process that the worker left behind can keep the connection open after the worker's end.
            while not self._connection.poll(1.0):
                if not self._process.is_alive():
                    raise EOFError
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if kind == "result":
            return value
        raise PackedError(value) if kind == "error" else WorkerGone(value)


class _ProcessWorker(ConnectedWorker):
    def __init__(self, spec: str, threads: Mapping[str, Any]) -> None:
        process, connection = start_process(_serve, spec, threads)
        super().__init__(connection, process, self._how_it_ended)

    def stop(self) -> None:
        super().stop()
        self._process.kill()
        self._process.join(5.0)

    def _how_it_ended(self) -> WorkerGone:
        self._process.join(60.0)  # it has closed its connection: only what hangs takes so long
        code = self._process.exitcode
        if code is None or code >= 0:
            how = "does not answer" if code is None else f"ended with exit status {code}"
        else:
            names = {each.value: each.name for each in signal.Signals}
            how = f"was killed by {names.get(-code, f'signal {-code}')}"
            if how.endswith("SIGKILL"):
                how += ", as the system does when memory runs out"
        return WorkerGone(f"process {self._process.pid} {how}")


# ------------------------------------------------------------------------------------------- in the new process


def begin_process(output: int, folder: str) -> threading.Thread:
    """Leaves Ctrl-C to the parent, sends stdout to the file descriptor `output`, and ends when the parent ends.

    ``folder`` holds temporary files; it is removed if the parent was killed, by the thread that is returned.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        os.dup2(output, 1)

    def follow() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    thread = threading.Thread(target=follow, name="inreach-parent", daemon=True)
    thread.start()
    return thread


def _serve(connection: Connection, spec: str, threads: Mapping[str, Any]) -> None:
    parent = begin_process(2, os.path.dirname(spec))  # stdout belongs to the program
    with suppress(EOFError, OSError):
        try:
            function = build(lambda: load_spec(spec_parts(spec)), threads)
        except BaseException as error:
            connection.send(("error", pack_error(error)))
            return
        connection.send(("result", None))
        while True:
            connection.send(perform(function, connection.recv_bytes()))
    # The parent has closed the connection: it kills this process, or it has ended and the folder is still to remove.
    parent.join()


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_threads() -> int | None:
    """This process's number of torch threads; None if torch has not been imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def thread_settings(workers: int) -> dict[str, Any]:
    """Numbers of threads for each of ``workers`` workers on this machine.

    torch's is this process's, since the bits of a convolution may depend on it. The kernels get a share of the
    processors, and no more than here: their results do not depend on it.
    """
    share = max(1, processors() // max(1, workers))
    return {"kernel_threads": min(get_num_threads(), share), "torch_threads": torch_threads()}


def build(load: Callable[[], Any], threads: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The function of the spec that ``load`` returns, with the numbers of threads of `thread_settings`."""
    set_num_threads(threads["kernel_threads"])
    spec = load()
    _set_torch_threads(threads["torch_threads"])
    function: Callable[[Any], Any] = spec.build()
    _set_torch_threads(threads["torch_threads"])  # if building it imported torch
    return function


def _set_torch_threads(count: int | None) -> None:
    if count is not None and "torch" in sys.modules:  # a worker without torch need not import it
        sys.modules["torch"].set_num_threads(count)
