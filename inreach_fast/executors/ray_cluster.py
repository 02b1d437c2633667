"""Workers on a Ray cluster, as the fitting process sees them.

This process never becomes a Ray driver, which Ray may end with SIGTERM; the bridge (`ray_bridge`), a process of its
own, does. If it ends, the error here is an ordinary `ClusterError`. See docs/cluster.md.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client
from typing import Final

from .._version import __version__
from ..errors import BackendError, ClusterError
from .processes import ConnectedWorker, start_process, thread_settings
from .protocol import Result, Spec, Task
from .ray_bridge import BridgeSettings, Joined, knock, run_bridge
from .scheduling import Pool, run_on_pool

JOIN_SECONDS: Final = 30.0  # for a running cluster to accept us
LOCAL_START_SECONDS: Final = 120.0  # for a cluster that is started here to be up
PLACE_SECONDS: Final = 120.0  # without any worker placed, until the cluster counts as full or lost
SILENT_SECONDS: Final = 20.0  # without an answer from the head, until it counts as lost; after 60 Ray ends the bridge
# Prefixes of the variables that workers get: the kernels, torch and oneDNN choose their code by them.
_ENVIRONMENT: Final = ("INREACH_", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_PROBE_SECONDS: Final = 5.0
_END_SECONDS: Final = 10.0

_log = logging.getLogger("inreach_fast.executors")


@dataclass(frozen=True)
class RayExecutor:
    """Runs tasks on a Ray cluster.

    Args:
        address: "HOST:PORT" of the cluster's head, or "ray://HOST:PORT" of its client server; None: the cluster that
            this process has joined, else the one in RAY_ADDRESS, else one that runs on this machine, else one that is
            started here for each run.
        workers: number of workers; None: as many as the cluster's processors allow, each with this process's number
            of threads (or all processors of its machine, if there are fewer).

    Raises:
        BackendError: Ray is not installed.
    """

    address: str | None = None
    workers: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise BackendError("executor: Ray is not installed; run pip install 'inreach_fast[ray]'")

    def run(self, spec: Spec[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.run`; raises ClusterError if the cluster cannot be reached or is lost."""
        return run_on_pool(lambda path: _Bridge(path, self.address, self.workers), spec, tasks)


class _Bridge(AbstractContextManager[Pool]):
    """The process that is the Ray driver; its constructor returns when it has joined a cluster."""

    def __init__(self, path: str, address: str | None, workers: int | None) -> None:
        ray = sys.modules.get("ray")
        if not address and ray is not None and ray.is_initialized():  # the cluster that this process has joined
            address = str(ray.get_runtime_context().gcs_address)
        address = address or os.environ.get("RAY_ADDRESS") or None
        if address not in (None, "auto", "local"):
            try:
                knock(address, _PROBE_SECONDS)  # Ray would try for minutes
            except (OSError, ValueError) as error:
                raise ClusterError(
                    f"Ray cluster {address}: cannot be reached ({error}); start it with `ray start --head`, which "
                    "prints its address, or use executor='processes'"
                ) from error
        self._folder = os.path.dirname(path)
        self._named = f"Ray cluster {address or 'of this machine'}"
        joined = self._join(address, workers)
        if joined is None:  # no cluster runs
            self.__exit__()
            address, joined = "local", self._join("local", workers)
            assert joined is not None
        self._listener = joined.listener
        self._named = f"Ray cluster {joined.address}"
        self._pool = Pool(joined.workers, "Ray worker", self._start_worker)
        verb = "started" if address == "local" else "joined"
        _log.info("%s the %s: %d workers with %d processors each", verb, self._named, *joined[1:3])

    def __enter__(self) -> Pool:
        return self._pool

    def __exit__(self, *_: object) -> None:
        """Ends the workers, and the cluster if it was started for this run."""
        self._connection.close()  # then the bridge ends them
        self._process.join(_END_SECONDS)
        self._process.kill()
        self._process.join(_END_SECONDS)

    def _join(self, address: str | None, workers: int | None) -> Joined | None:
        """Starts the bridge; None if it found no cluster."""
        settings = BridgeSettings(
            address=address,
            workers=workers,
            **thread_settings(1),
            folder=self._folder,
            environment={name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)},
            versions=_versions(),
            processor=_processor(),
            silent_seconds=SILENT_SECONDS,
            place_seconds=PLACE_SECONDS,
        )
        self._process, self._connection = start_process(run_bridge, settings)
        seconds = LOCAL_START_SECONDS if address == "local" else JOIN_SECONDS
        try:
            if not self._connection.poll(seconds):
                self._process.kill()  # it has nothing to clean up
                raise ClusterError(f"{self._named}: no answer within {seconds:.0f} s{self._last_words()}")
            joined: Joined | ClusterError | None = self._connection.recv()
            if isinstance(joined, ClusterError):
                raise joined
        except BaseException as error:
            self.__exit__()
            if isinstance(error, EOFError | OSError):
                raise ClusterError(f"{self._named}: cannot be joined{self._last_words()}") from None
            raise
        return joined

    def _start_worker(self) -> ConnectedWorker:
        try:
            connection = Client(self._listener, authkey=multiprocessing.current_process().authkey)
        except (EOFError, OSError):
            raise self._lost() from None
        return ConnectedWorker(connection, self._process, self._lost)

    def _lost(self) -> ClusterError:
        return ClusterError(f"{self._named}: lost{self._last_words()}; start it again, or use executor='processes'")

    def _last_words(self) -> str:
        """The last line that the bridge printed, for an error message."""
        with suppress(OSError), open(os.path.join(self._folder, "output"), errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
            printed = [line for line in lines if not line.startswith("[")]  # Ray's log lines begin so
            if lines:
                return f" ({(printed or lines)[-1][:300]})"
        return ""


def _versions() -> dict[str, str]:
    """What must be the same on every machine for the same bits."""
    torch = sys.modules.get("torch")
    versions = {} if torch is None else {"torch": str(torch.__version__).partition("+")[0]}
    return {"inreach_fast": __version__} | versions


def _processor() -> str | None:
    """The instruction set that torch uses ("AVX512"); None if torch has not been imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else str(torch.backends.cpu.get_cpu_capability())
