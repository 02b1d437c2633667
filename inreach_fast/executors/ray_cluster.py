"""Workers on a Ray cluster, as this process sees them.

This process never becomes a Ray driver itself. A driver that loses its cluster is ended by Ray's own C++ code after a
minute, one that cannot join is sent SIGTERM by it, and one that lives has lines printed to its stdout. So a process
of our own is the driver (`ray_bridge`), takes commands over a socket, and may die: here that is a typed error.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import select
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final

from .._version import __version__
from ..errors import BackendError, ClusterError
from .child import Child
from .payload import pack, unpack, unpack_error
from .processes import event_of
from .protocol import Result, Spec, Task
from .scheduling import Event, run_in_order
from .spec_file import SpecFile
from .wire import Closed, Kind, Message
from .worker import thread_settings

JOIN_SECONDS: Final = 30.0
"""In which a cluster that runs must let us in."""
LOCAL_START_SECONDS: Final = 120.0
"""In which one that we start here must be up."""
PLACE_SECONDS: Final = 120.0
"""Without any worker that was placed and answers: the cluster is full, or gone."""
SILENT_SECONDS: Final = 20.0
"""Without an answer of the cluster's head until it counts as lost; after 60, Ray would end the bridge."""
_ENVIRONMENT: Final = ("INREACH_", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Beginnings of the variables that workers are given: what kernels, torch and oneDNN choose their code by."""
_PROBE_SECONDS: Final = 5.0
_END_SECONDS: Final = 10.0
_LEAST_SOCKET_ROOM: Final = 40  # of a folder's path: Unix sockets' own may have 107 bytes, Ray adds up to 70

_log = logging.getLogger("inreach_fast.executors")


class RayExecutor:
    """Does tasks on a Ray cluster.

    Args:
        address: "HOST:PORT" of the cluster's head, "ray://HOST:PORT" of its client server; None: the cluster that
            this process has joined by itself, else RAY_ADDRESS's, else one that runs here, else one that is
            started here for each run.
        workers: number of workers; None: as many as the cluster's processors make, each with this process's number
            of threads (or a whole machine's, if that is less).

    Raises:
        BackendError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise BackendError("executor: Ray is not installed; pip install 'inreach_fast[ray]'")
        self.address = address
        self.workers = workers

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.run`; raises ClusterError where the cluster cannot be reached, or is lost whole."""
        return run_in_order(lambda: RayTransport(spec, self.address, self.workers), tasks)

    def __repr__(self) -> str:
        return f"RayExecutor({self.address!r}, workers={self.workers})"


class RayTransport:
    """`scheduling.Transport` to the actors of a Ray cluster."""

    noun = "Ray worker"

    def __init__(self, spec: Any, address: str | None, workers: int | None) -> None:
        address = address or _given_address()
        if address not in (None, "auto", "local"):
            _probe(address)
        self._address = address
        self._spec = SpecFile(spec)
        self._folder: str | None = None
        self._bridge: Child | None = None
        self._output: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        self._alive: set[int] = set()
        try:
            facts = self._join(workers)
        except BaseException:
            self.close(at_once=True)
            raise
        self.workers = int(facts["workers"])
        self._where = str(facts["address"])
        self._last_alive = time.monotonic()
        _log.info(
            "%s the Ray cluster %s: %d workers of %d processors each",
            "started" if facts["started"] else "joined",
            self._where,
            self.workers,
            facts["processors"],
        )

    def _join(self, workers: int | None) -> dict[str, Any]:
        """What the cluster is, once the bridge has joined it, or started it where none runs."""
        facts = self._bridge_to(self._address, workers)
        if facts is None:
            assert self._bridge is not None
            self._bridge.kill()
            facts = self._bridge_to("local", workers)
        assert facts is not None, "a cluster of our own is there or has failed"
        return facts

    def _bridge_to(self, address: str | None, workers: int | None) -> dict[str, Any] | None:
        """Starts a bridge; what it tells of its cluster, None where it found none."""
        if address == "local":
            self._folder = _folder_for_ray()
        settings = {
            **thread_settings(1),
            "address": address,
            "workers": workers,
            "spec": self._spec.fileno,
            "folder": self._folder,
            "environment": {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)},
            "versions": _versions(),
            "processor": _processor(),
            "silent": SILENT_SECONDS,
        }
        output = self._output.fileno()
        self._bridge = Child("inreach_fast.executors.ray_bridge", settings, inherit=[self._spec.fileno], output=output)
        seconds = LOCAL_START_SECONDS if address == "local" else JOIN_SECONDS
        if not select.select([self._bridge.connection], [], [], seconds)[0]:
            self._bridge.kill()  # nothing is left to end in order
            raise ClusterError(f"{self._named}: did not let us in within {seconds:.0f} s{self._said()}")
        try:
            message = self._bridge.receive()
        except Closed:
            raise ClusterError(f"{self._named}: cannot be joined{self._said()}") from None
        if message.kind is Kind.CLUSTER:
            raise unpack_error(message.buffers)
        facts: dict[str, Any] | None = unpack(message.buffers)
        return facts

    @property
    def _named(self) -> str:
        return f"Ray cluster {self._address or 'of this machine'}"

    def _said(self) -> str:
        """The last words of the bridge, for an error's message."""
        with suppress(OSError, ValueError):
            self._output.seek(0)
            lines = [line.strip() for line in self._output.read().decode(errors="replace").splitlines()]
            told = [line for line in lines if line and not line.startswith("[")]  # not Ray's log, which is long
            if told or lines:
                return f" ({(told or lines)[-1][:300]})"
        return ""

    def start(self, worker: int) -> None:
        """See `Transport`."""
        self._tell(Message(Kind.START, worker))

    def submit(self, worker: int, ticket: int, task: Any) -> None:
        """See `Transport`."""
        self._tell(Message(Kind.TASK, worker, ticket, pack(task, f"task {ticket}")))

    def stop(self, worker: int) -> None:
        """See `Transport`."""
        self._alive.discard(worker)
        self._tell(Message(Kind.STOP, worker))

    def wait(self) -> list[Event]:
        """See `Transport`."""
        assert self._bridge is not None
        if not select.select([self._bridge.connection], [], [], 1.0)[0]:
            self._check_placed()
            return []
        try:
            message = self._bridge.receive()
        except Closed:
            raise self._lost() from None
        if message.kind is Kind.CLUSTER:
            raise unpack_error(message.buffers)
        if message.kind is Kind.ALIVE:
            self._alive.add(message.worker)
            for remark in unpack(message.buffers):
                _log.warning("%s", remark)
            return []
        return [event_of(message)]

    def _check_placed(self) -> None:
        now = time.monotonic()
        if self._alive:
            self._last_alive = now
        elif now - self._last_alive > PLACE_SECONDS:
            raise ClusterError(
                f"Ray cluster {self._where}: no worker could be placed in {PLACE_SECONDS:.0f} s; its processors are "
                "taken, or its machines are gone (`ray status` tells)"
            )

    def _tell(self, message: Message) -> None:
        assert self._bridge is not None
        with suppress(Closed):  # `wait` will tell
            self._bridge.send(message)

    def _lost(self) -> ClusterError:
        return ClusterError(
            f"Ray cluster {self._where}: lost, and with it the connection{self._said()}; start it again, or give "
            "executor='processes'"
        )

    def close(self, *, at_once: bool) -> None:
        """See `Transport`; a cluster that was running goes on, one that was started for this run ends."""
        if self._bridge is not None:
            # Even in a hurry: the bridge ends the actors, and the cluster if it is ours.
            self._bridge.finish(time.monotonic() + _END_SECONDS)
        self._spec.close()
        self._output.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _given_address() -> str | None:
    """The address where none was given: of the cluster that this process has joined, or the environment's."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    return os.environ.get("RAY_ADDRESS") or None


def _probe(address: str) -> None:
    """Whether anyone listens there: Ray itself would try for minutes.

    Raises:
        ClusterError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"Ray cluster {address}: cannot be reached ({error}); `ray start --head` starts one and tells its "
            "address, executor='processes' needs none"
        ) from error


def _versions() -> dict[str, str]:
    """What must be the same on every machine for the same bits."""
    versions = {"inreach_fast": __version__}
    torch = sys.modules.get("torch")
    if torch is not None:
        versions["torch"] = str(torch.__version__).partition("+")[0]
    return versions


def _processor() -> str | None:
    """The class of processor that torch computes for ("AVX512"); None where nothing has imported torch."""
    torch = sys.modules.get("torch")
    return None if torch is None else str(torch.backends.cpu.get_cpu_capability())


def _folder_for_ray() -> str | None:
    """A folder for a cluster of our own, short enough for Ray's sockets; None: Ray's own choice."""
    folder = tempfile.mkdtemp(prefix="ray-")
    if len(os.fsencode(folder)) <= _LEAST_SOCKET_ROOM:
        return folder
    os.rmdir(folder)
    return None
