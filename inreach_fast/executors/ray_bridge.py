"""The process that is the Ray driver: it joins a cluster and passes tasks on to actors.

For each connection that the fitting process opens, a thread keeps one actor and answers like a worker process
(`processes.ConnectedWorker`).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from typing import Any, Final, NamedTuple

import numpy as np

from ..errors import ClusterError
from .payload import load_spec, pack_error, perform, spec_parts
from .processes import begin_process, build

_PROBE_EVERY: Final = 2.0
_SHUTDOWN_SECONDS: Final = 8.0
_LONGEST_FOLDER: Final = 40  # bytes: a Unix socket's path may have 107, Ray adds up to 70


class BridgeSettings(NamedTuple):
    address: str | None  # None: of a cluster that runs on this machine; "local": start one
    workers: int | None
    kernel_threads: int
    torch_threads: int | None
    folder: str  # temporary; what the bridge prints goes to "output" in it
    environment: Mapping[str, str]  # variables for the workers
    versions: Mapping[str, str]  # of packages; the workers must have the same
    processor: str | None  # the instruction set that torch uses here
    silent_seconds: float  # without an answer from the head, until the cluster counts as lost
    place_seconds: float  # without any worker, until the cluster counts as full or lost


class Joined(NamedTuple):
    """What the bridge reports of its cluster."""

    address: str
    workers: int
    processors: int  # of each worker
    listener: Any  # where to connect for a worker


def run_bridge(connection: Connection, settings: BridgeSettings) -> None:
    """The process's whole life: sends `Joined`, None if no cluster runs, or an error; ends with the connection."""
    output = os.open(os.path.join(settings.folder, "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 2)
    begin_process(output, settings.folder)
    try:
        cluster = _Cluster(settings)
    except BaseException as error:
        none = settings.address is None and isinstance(error, ConnectionError)
        connection.send(None if none else _as_cluster_error(settings.address, error))
        return
    # Windows chooses the name of a pipe itself.
    listener = Listener(
        None if os.name == "nt" else os.path.join(settings.folder, "bridge"),
        backlog=64,
        authkey=multiprocessing.current_process().authkey,
    )

    def accept() -> None:
        while True:
            threading.Thread(target=cluster.serve, args=(listener.accept(),), daemon=True).start()

    for target in (accept, cluster.watch):
        threading.Thread(target=target, daemon=True).start()
    with suppress(EOFError, OSError):
        connection.send(Joined(cluster.address, cluster.workers, cluster.processors, listener.address))
        connection.recv()  # until the fitting process closes it
    guard = threading.Timer(_SHUTDOWN_SECONDS, os._exit, args=(1,))  # if Ray hangs
    guard.start()
    cluster.ray.shutdown()  # ends the actors, and the cluster if it was started here
    os._exit(0)


def knock(address: str, seconds: float) -> None:
    """Connects to "HOST:PORT" or "ray://HOST:PORT"; OSError if nothing listens there, ValueError if it is neither."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


def _as_cluster_error(address: str | None, error: BaseException) -> ClusterError:
    words, chain, cause = " ".join(str(error).split())[:300], str(error), error.__cause__
    while cause is not None:
        chain, cause = chain + str(cause), cause.__cause__
    remedy = ""
    if "uthentica" in chain:
        words = "its token is missing here, or is another one"
        remedy = "; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    elif "ray[client]" in words:
        remedy = "; run pip install 'inreach_fast[ray]'"
    return ClusterError(f"Ray cluster {address or 'of this machine'}: cannot be joined ({words}){remedy}")


class _Cluster:
    def __init__(self, settings: BridgeSettings) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads these when it is imported
        if settings.address == "local" and "RAY_AUTH_MODE" not in os.environ:
            # A token for this cluster alone: without one Ray writes its own into the home folder.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self.ray: Any = importlib.import_module("ray")
        self._settings = settings
        self._placed: set[Any] = set()
        self._warned: set[str] = set()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if settings.address == "local":
            options["include_dashboard"] = False
            if len(os.fsencode(settings.folder)) <= _LONGEST_FOLDER:
                options["_temp_dir"] = settings.folder
            if sys.platform == "linux":
                options["_node_ip_address"] = "127.0.0.2"  # loopback; Ray would replace 127.0.0.1 by a public address
        self.ray.init(address=settings.address or "auto", **options)
        outside = settings.address is not None and settings.address.startswith("ray://")
        self.address = str(settings.address if outside else self.ray.get_runtime_context().gcs_address)
        self.processors, self.workers = _shares(
            self.ray.nodes(), settings.torch_threads or settings.kernel_threads, settings.workers
        )
        self._actor_class = self.ray.remote(_actor_class()).options(num_cpus=self.processors, max_restarts=0)
        # The workers of a machine share it in its object store, which keeps arrays outside of pickles.
        parts = spec_parts(os.path.join(settings.folder, "spec"))
        self._spec = self.ray.put([np.frombuffer(part, dtype=np.uint8) for part in parts])

    def watch(self) -> None:
        """Ends this process, with a last word, if the head does not answer or no worker can be placed."""
        answered = placed = time.monotonic()
        silent, full = self._settings.silent_seconds, self._settings.place_seconds
        while True:
            time.sleep(_PROBE_EVERY)
            try:
                knock(self.address, _PROBE_EVERY)
                answered = time.monotonic()
            except OSError:
                if time.monotonic() - answered > silent:
                    print(f"its head has not answered for {silent:.0f} s", flush=True)
                    os._exit(1)
            if self._placed:
                placed = time.monotonic()
            elif time.monotonic() - placed > full:
                print(f"no worker could be placed within {full:.0f} s; `ray status` shows why", flush=True)
                os._exit(1)

    def serve(self, connection: Connection) -> None:
        """Answers for one worker, an actor."""
        get, actor = self.ray.get, self._actor_class.remote()
        with suppress(EOFError, OSError), connection:
            try:
                connection.send(self._start(actor))
                while True:
                    connection.send(get(actor.call.remote(_run_task, connection.recv_bytes())))
            except self.ray.exceptions.RayError as error:
                connection.send(("lost", _reason(error)))
        self._placed.discard(actor)
        with suppress(Exception):  # it may be lost already
            self.ray.kill(actor)

    def _start(self, actor: Any) -> tuple[str, Any]:
        """Builds the spec in an actor; the worker's first answer."""
        settings = self._settings
        path = [entry for entry in sys.path if entry]
        facts = self.ray.get(actor.hello.remote(settings.environment, os.getcwd(), path, list(settings.versions)))
        self._placed.add(actor)
        node = facts["node"]
        for name, version in settings.versions.items():
            if (found := facts["versions"][name]) != version:
                problem = f"Ray worker on {node}: {name} is {found} there and {version} here; install {version}"
                return "error", pack_error(ClusterError(problem))
        threads = {"kernel_threads": self.processors, "torch_threads": settings.torch_threads}
        error = self.ray.get(actor.call.remote(_build_spec, [self._spec], threads))
        if error is not None:
            return "error", error
        here, there = settings.processor, facts["processor"]
        if not here or not there or here == there or there in self._warned:
            return "result", None
        self._warned.add(there)
        return "result", (
            f"torch uses {there} on {node} and {here} here: features, and so the model, may differ in their "
            "last bits from those of this machine alone"
        )


def _reason(error: BaseException) -> str:
    """What Ray says about a lost actor, in one line."""
    words = " ".join(str(error).split())
    where = re.search(r"pid: (\d+) .*?ip: (\S+)", words)
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes| Worker exit|$)", words)
    text = (detail.group(1) if detail else words)[:300]
    return f"process {where.group(1)} of {where.group(2)}: {text}" if where else f"{type(error).__name__}: {text}"


def _shares(nodes: list[dict[str, Any]], threads: int, workers: int | None) -> tuple[int, int]:
    """Processors per worker, and the number of workers.

    A worker has as many processors as this process has threads, because its results may depend on that; fewer if no
    machine has so many, or if ``workers`` would not fit.
    """
    counts = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    counts = list(filter(None, counts)) or [1]
    share = max(1, min(threads, *counts))
    if workers is not None:
        while share > 1 and sum(count // share for count in counts) < workers:
            share -= 1
    return share, workers or max(1, sum(count // share for count in counts))


def _actor_class() -> type:
    """The class of the actors; local, so that Ray sends its code, also to a machine without this package."""

    class InReaChWorker:
        def hello(self, environment: dict[str, str], folder: str, path: list[str], names: list[str]) -> dict[str, Any]:
            """Takes over the environment, and the folder and module path where they exist; returns the versions."""
            os.environ.update(environment)
            with suppress(OSError):
                os.chdir(folder)
            sys.path.extend(entry for entry in path if entry not in sys.path and os.path.exists(entry))
            versions = {}
            for name in names:
                try:
                    versions[name] = str(importlib.import_module(name).__version__).partition("+")[0]
                except Exception as error:
                    versions[name] = f"not importable ({error})"
            torch = sys.modules.get("torch") if "torch" in names else None
            processor = torch and str(torch.backends.cpu.get_cpu_capability())
            return {"node": socket.gethostname(), "versions": versions, "processor": processor}

        def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
            """Calls a function of this package, which the machine is known to have by now."""
            return function(self, *arguments)

    return InReaChWorker


def _build_spec(worker: Any, spec: list[Any], threads: dict[str, Any]) -> bytes | None:
    """Builds the function of an actor; returns the pickled error, if any."""
    import ray

    try:
        parts = ray.get(spec[0])
        worker.function = build(lambda: load_spec(parts), threads)
    except BaseException as error:
        return pack_error(error)
    return None


def _run_task(worker: Any, task: bytes) -> tuple[str, bytes]:
    return perform(worker.function, task)
