"""The process that speaks to Ray: joins the cluster, keeps an actor for each worker, passes tasks and results on.

What a message from the parent asks for, and what Ray has finished, come through one queue, so that one thread alone
does everything. Nothing here decides which worker does what: that is `scheduling`'s.
"""

from __future__ import annotations

import importlib
import os
import queue
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from ..errors import ClusterError
from .child import listen
from .payload import Buffer, pack, pack_error
from .spec_file import map_buffers
from .wire import Closed, Kind, Message, send

_PROBE_EVERY: Final = 2.0
_SHUTDOWN: Final = 8.0


def main(settings: Mapping[str, Any]) -> None:
    """The process's whole life."""
    inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
    bridges: list[_Bridge] = []
    joined = threading.Event()

    def take(message: Message) -> None:
        inbox.put(lambda: bridges[0].command(message))

    def closed() -> None:
        if joined.is_set() and not bridges[0].lost:
            inbox.put(None)
            time.sleep(_SHUTDOWN)  # the main thread ends the process before; unless Ray hangs
        os._exit(0)

    connection = listen(settings, take, closed)
    try:
        bridges.append(_Bridge(settings, connection, inbox))
    except BaseException as error:
        with suppress(Closed):
            send(connection, Message(Kind.CLUSTER, buffers=pack_error(_as_cluster_error(settings, error))))
        return
    joined.set()
    with suppress(Closed):
        while True:
            action = inbox.get()
            if action is None:
                break
            action()
    bridges[0].end()
    os._exit(0)


def _set_environment(address: str | None) -> None:
    """What Ray reads of the environment, once, when it is imported."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # what we start tells nothing to anyone
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:
        # A token for this cluster alone: without one Ray would make one and write it into the home folder.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def _as_cluster_error(settings: Mapping[str, Any], error: BaseException) -> ClusterError:
    where = settings["address"] or "of this machine"
    words, chain, cause = " ".join(str(error).split())[:300], str(error), error.__cause__
    while cause is not None:
        chain, cause = chain + str(cause), cause.__cause__
    remedy = ""
    if "uthentica" in chain:
        words = "its token is missing here, or another"
        remedy = "; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    elif "ray[client]" in words:
        remedy = "; pip install 'inreach_fast[ray]'"
    return ClusterError(f"Ray cluster {where}: cannot be joined ({words}){remedy}")


class _Bridge:
    """One joined cluster."""

    def __init__(self, settings: Mapping[str, Any], connection: socket.socket, inbox: queue.SimpleQueue[Any]) -> None:
        _set_environment(settings["address"])
        self._ray: Any = importlib.import_module("ray")
        self._settings = settings
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox = inbox
        self.lost = False  # the cluster, so that nothing can be ended in order
        self._started = settings["address"] == "local"
        if not self._join():
            self._send(Message(Kind.JOINED, buffers=pack(None, "facts")))
            return
        self._processors, workers = _shares(
            self._ray.nodes(), settings["torch_threads"] or settings["kernel_threads"], settings["workers"]
        )
        self._actor_class = _actor_class()
        # Shared by all workers of a machine, in its object store.
        self._spec = self._ray.put([_as_array(part) for part in map_buffers(settings["spec"])])
        self._actors: dict[int, Any] = {}
        self._remarked: set[tuple[str | None, str | None]] = set()
        where = self._where()
        facts = {
            "address": where,
            "started": self._started,
            "workers": workers,
            "processors": self._processors,
        }
        self._send(Message(Kind.JOINED, buffers=pack(facts, "facts")))
        threading.Thread(target=self._watch, args=(where,), daemon=True).start()

    # --------------------------------------------------------------------------------------------- the cluster

    def _join(self) -> bool:
        """Joins, or starts, the cluster of the settings; False where one that runs was asked for and none does."""
        address = self._settings["address"]
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if not self._started:
            try:
                self._ray.init(address=address or "auto", **quiet)
            except ConnectionError:
                if address is not None:
                    raise
                return False
            return True
        own = {} if self._settings["folder"] is None else {"_temp_dir": self._settings["folder"]}
        if sys.platform == "linux":
            own["_node_ip_address"] = "127.0.0.2"  # loopback; 127.0.0.1 Ray would replace by a public address
        self._ray.init(address="local", include_dashboard=False, **own, **quiet)
        return True

    def _where(self) -> str:
        given = self._settings["address"]
        if given is not None and given.startswith("ray://"):
            return str(given)
        return str(self._ray.get_runtime_context().gcs_address)

    def _watch(self, address: str) -> None:
        """Tells when the cluster's head has not answered for some time."""
        host, _, port = address.removeprefix("ray://").rpartition(":")
        silent = self._settings["silent"]
        answered = time.monotonic()
        while time.monotonic() - answered < silent:
            time.sleep(_PROBE_EVERY)
            with suppress(OSError):
                socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_EVERY).close()
                answered = time.monotonic()
        error = ClusterError(
            f"Ray cluster {address}: its head has not answered for {silent:.0f} s; start it again, or give "
            "executor='processes'"
        )
        self.lost = True
        # From this thread: the main one may hang in a call to the head.
        with suppress(Closed):
            self._send(Message(Kind.CLUSTER, buffers=pack_error(error)))

    def _send(self, message: Message) -> None:
        with self._sending:
            send(self._connection, message)

    def end(self) -> None:
        """Ends the actors, and the cluster if it was started here."""
        with suppress(Exception):
            for actor in self._actors.values():
                self._ray.kill(actor)
            self._ray.shutdown()

    # ------------------------------------------------------------------------------------------------- workers

    def command(self, message: Message) -> None:
        """Does what the parent asks for."""
        worker = message.worker
        if message.kind is Kind.START:
            self._start(worker)
        elif message.kind is Kind.STOP:
            actor = self._actors.pop(worker, None)
            if actor is not None:
                with suppress(Exception):  # it is lost as it is
                    self._ray.kill(actor)
        elif message.kind is Kind.TASK and worker in self._actors:
            self._submit(worker, message)

    def _start(self, worker: int) -> None:
        actor = self._ray.remote(self._actor_class).options(num_cpus=self._processors, max_restarts=0).remote()
        self._actors[worker] = actor
        path = [entry for entry in sys.path if entry]
        told = actor.hello.remote(self._settings["environment"], os.getcwd(), path, list(self._settings["versions"]))
        self._then(worker, told, lambda facts: self._greeted(worker, facts))

    def _greeted(self, worker: int, facts: dict[str, Any]) -> None:
        wrong = _mismatch(self._settings["versions"], facts)
        if wrong is not None:
            self._send(Message(Kind.REFUSED, worker, buffers=pack_error(ClusterError(wrong))))
            return
        here, there = self._settings["processor"], facts["processor"]
        remarks = []
        if here and there and here != there and (here, there) not in self._remarked:
            self._remarked.add((here, there))
            remarks.append(
                f"torch computes with {there} on {facts['node']} and with {here} here: features, and so the model, may "
                "differ in their last bits from those of this machine alone"
            )
        self._send(Message(Kind.ALIVE, worker, buffers=pack(remarks, "remarks")))
        settings = {"kernel_threads": self._processors, "torch_threads": self._settings["torch_threads"]}
        built = self._actors[worker].build.remote([self._spec], settings)
        self._then(worker, built, lambda answer: self._answer(Kind.READY, Kind.REFUSED, worker, 0, answer))

    def _submit(self, worker: int, message: Message) -> None:
        parts = [_as_array(part) for part in message.buffers]
        done = self._actors[worker].run.remote(parts)
        ticket = message.ticket
        self._then(worker, done, lambda answer: self._answer(Kind.RESULT, Kind.ERROR, worker, ticket, answer))

    def _answer(self, good: Kind, bad: Kind, worker: int, ticket: int, answer: tuple[bool, list[Buffer]]) -> None:
        succeeded, buffers = answer
        self._send(Message(good if succeeded else bad, worker, ticket, buffers))

    def _then(self, worker: int, reference: Any, use: Callable[[Any], None]) -> None:
        """Calls ``use`` with the value of an object of Ray's once it is there, or tells that the worker is lost."""

        def finish(future: Any) -> None:
            if worker not in self._actors:
                return  # it was given up
            error = future.exception()
            if error is None:
                use(future.result())
            else:
                self._send(Message(Kind.LOST, worker, buffers=pack(_why(error), "reason")))

        reference.future().add_done_callback(lambda future: self._inbox.put(lambda: finish(future)))


def _why(error: BaseException) -> str:
    """What Ray says of a loss, on a line."""
    words = " ".join(str(error).split())
    where = re.search(r"pid: (\d+) .*?ip: (\S+)", words)
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes| Worker exit|$)", words)
    told = (detail.group(1) if detail else words)[:300]
    return f"process {where.group(1)} of {where.group(2)}: {told}" if where else f"{type(error).__name__}: {told}"


def _shares(nodes: list[dict[str, Any]], threads: int, workers: int | None) -> tuple[int, int]:
    """Processors of a worker, and the number of workers.

    A worker has this process's number of threads, which is what its results may depend on; less if no machine has
    so many, or if ``workers`` would not fit.
    """
    counts = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    counts = [count for count in counts if count > 0] or [1]
    share = max(1, min(threads, *counts))
    if workers is not None:
        while share > 1 and sum(count // share for count in counts) < workers:
            share -= 1
    return share, workers or max(1, sum(count // share for count in counts))


def _mismatch(here: Mapping[str, str], facts: Mapping[str, Any]) -> str | None:
    """What keeps a worker's results from being those of this machine, and the remedy; None: nothing."""
    for name, version in here.items():
        there = facts["versions"].get(name)
        if there is None:
            return (
                f"Ray worker on {facts['node']}: {name} cannot be imported there ({facts['problems'].get(name)}); "
                f"install version {version}, as here"
            )
        if there != version:
            return (
                f"Ray worker on {facts['node']}: {name} is {there} there and {version} here; install the same version"
            )
    return None


def _as_array(part: Buffer) -> Any:
    """Bytes in the form that Ray's object store keeps outside its pickles."""
    return np.frombuffer(part, dtype=np.uint8)


def _actor_class() -> type:
    """The class of a worker's actor.

    Defined in a function: so it travels whole, and a machine without this package can still say that it lacks it.
    """

    class InReaChWorker:
        def hello(self, environment: dict[str, str], folder: str, path: list[str], names: list[str]) -> dict[str, Any]:
            """Who is here, and which versions.

            Takes on the driver's environment; and its folder and its module path where they exist here too.
            """
            import importlib
            import os
            import socket
            import sys
            from contextlib import suppress

            os.environ.update(environment)
            with suppress(OSError):
                os.chdir(folder)
            sys.path.extend(entry for entry in path if entry not in sys.path and os.path.exists(entry))
            versions, problems = {}, {}
            for name in names:
                try:
                    versions[name] = str(importlib.import_module(name).__version__).partition("+")[0]
                except Exception as error:
                    problems[name] = f"{type(error).__name__}: {error}"
            torch = sys.modules.get("torch")
            processor = None if "torch" not in names else torch and str(torch.backends.cpu.get_cpu_capability())
            return {
                "node": socket.gethostname(),
                "versions": versions,
                "problems": problems,
                "processor": processor,
            }

        def build(self, spec: list[Any], settings: dict[str, Any]) -> tuple[bool, list[Any]]:
            """Makes the worker's function; answers as `run` does."""
            import ray

            from inreach_fast.executors import payload, worker

            try:
                parts = ray.get(spec[0])
                self.function = worker.build(lambda: payload.unpack(parts), settings)
            except BaseException as error:
                return False, [bytes(part) for part in payload.pack_error(error)]
            return True, []

        def run(self, task: list[Any]) -> tuple[bool, list[Any]]:
            """One task: whether it succeeded, and its result or error, packed."""
            import numpy

            from inreach_fast.executors import payload

            own = [numpy.array(part) for part in task]  # the object store's are read-only
            succeeded, parts = payload.perform(self.function, own)
            return succeeded, [numpy.frombuffer(part, dtype=numpy.uint8) for part in parts]

    return InReaChWorker
