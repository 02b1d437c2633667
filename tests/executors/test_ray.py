"""Ray: a real cluster on the loopback interface, workers killed midway, clusters that do not exist or break."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import executor_specs as specs
import numpy as np
import pytest
import small_fits
from executors.conftest import DEADLINE, eventually

from inreach_fast.errors import BackendError, ClusterError, SaveError
from inreach_fast.executors import RayExecutor, make_executor, ray_cluster
from inreach_fast.executors.ray_bridge import _as_cluster_error

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'inreach_fast[ray]')"
)
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

# Ray would replace 127.0.0.1 by the address that the machine has on a network.
_LOOPBACK = "127.0.0.2"
_CLUSTER = f"""
import os, sys, ray
ray.init(address="local", num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False,
         logging_level="ERROR", _node_ip_address="{_LOOPBACK}", _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


class Cluster(NamedTuple):
    """A running cluster, and the process that ends all of it."""

    address: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """What Ray reads: no usage reports, and no token is written to the home folder. Limits only for what hangs."""
    changes = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    patch = pytest.MonkeyPatch()
    for name, value in changes.items():
        patch.setenv(name, value)
    patch.delenv("RAY_ADDRESS", raising=False)
    for limit in ("JOIN_SECONDS", "LOCAL_START_SECONDS", "PLACE_SECONDS", "SILENT_SECONDS"):
        patch.setattr(ray_cluster, limit, 5 * DEADLINE)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def cluster(environment: None) -> Iterator[Cluster]:
    """A cluster of two processors, for all tests of this module; the last one breaks it."""
    folder = tempfile.mkdtemp(prefix="ray-")
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith(f"{_LOOPBACK}:"), "the cluster did not start"
        yield Cluster(address, process)
    finally:
        try:
            process.communicate("", timeout=DEADLINE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that need not import torch, which takes seconds."""
    monkeypatch.setattr(ray_cluster, "_versions", lambda: {"inreach_fast": ray_cluster.__version__})


def actors() -> list[int]:
    """The processes of this package's actors."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"ray::InReaChWorker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return found


# --------------------------------------------------------------------------------------------- on a real cluster


@needs_ray
def test_a_fit_is_the_local_one_to_the_byte_though_a_worker_is_killed_midway(
    cluster: Cluster,
    tmp_path: Path,
    no_process_left: Callable[[], set[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ray_cluster, "_processor", lambda: "Z80")
    pictures = small_fits.pictures(24)
    want = small_fits.saved(small_fits.estimator().fit(pictures), tmp_path)
    killed: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "associate" and done == 6:  # all that are there: one of them has the next images
            killed.extend(actors())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    executor = make_executor(cluster.address, workers=2)
    got = small_fits.saved(small_fits.estimator(executor=executor).fit(pictures, progress=progress), tmp_path)
    assert got == want
    assert killed
    assert re.search("a Ray worker was lost: .*; repeating tasks", caplog.text)
    assert len(re.findall("torch uses .* and Z80 here", caplog.text)) == 1
    assert cluster.process.poll() is None


@needs_ray
def test_the_cluster_of_the_environment_is_joined_and_errors_keep_their_type(
    cluster: Cluster, without_torch: None, monkeypatch: pytest.MonkeyPatch, no_process_left: Callable[[], set[int]]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    got: list[int] = []
    with pytest.raises(SaveError, match=r"^disk full at 3$") as caught:
        got.extend(make_executor("ray", workers=2).run(specs.Fails(slow=2), range(50)))
    assert got == [0, 1, 2]
    assert caught.value.errno == 28
    assert "in call" in str(caught.value.__cause__)


@needs_ray
def test_arrays_go_there_and_back_and_closing_ends_the_workers(
    cluster: Cluster, without_torch: None, no_process_left: Callable[[], set[int]]
) -> None:
    tasks = [np.full(300_000, i, dtype=np.float64) for i in range(9)]
    results: Any = RayExecutor(cluster.address, workers=2).run(specs.Echo(), tasks)
    for task in tasks[:5]:
        result = next(results)
        np.testing.assert_array_equal(result, task)
        assert result.flags.writeable
    assert actors()
    results.close()
    assert eventually(lambda: not actors())
    assert cluster.process.poll() is None


@needs_ray
def test_another_version_on_a_worker_is_refused(
    cluster: Cluster, without_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "__version__", "0.0.7")
    with pytest.raises(ClusterError, match=r"inreach_fast is .* there and 0\.0\.7 here; install 0\.0\.7"):
        list(RayExecutor(cluster.address, workers=1).run(specs.Echo(), range(3)))


@needs_ray
def test_a_package_that_a_worker_lacks_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_versions", lambda: {"inreach_slow": "1.0"})
    with pytest.raises(ClusterError, match=r"inreach_slow is not importable .* there and 1\.0 here; install 1\.0"):
        list(RayExecutor(cluster.address, workers=1).run(specs.Echo(), range(3)))


@needs_ray
def test_a_wrong_token_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, no_process_left: Callable[[], set[int]]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 2.0)  # Ray itself gives up after twenty
    # Which of the two it is depends on whether Ray or we give up first.
    with pytest.raises(ClusterError, match=f"^Ray cluster {cluster.address}: (no answer within 2 s|cannot be joined)"):
        list(RayExecutor(cluster.address, workers=1).run(specs.Echo(), range(3)))


def test_the_error_for_a_wrong_token_says_how_to_set_it() -> None:
    error = RuntimeError("Failed to connect")
    error.__cause__ = RuntimeError("Unauthenticated: InvalidAuthToken")
    assert "RAY_AUTH_TOKEN_PATH" in str(_as_cluster_error("node:6379", error))


@needs_ray
def test_without_a_cluster_one_is_started(
    environment: None,
    without_torch: None,
    monkeypatch: pytest.MonkeyPatch,
    no_process_left: Callable[[], set[int]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    caplog.set_level("INFO", "inreach_fast.executors")
    assert list(make_executor("ray").run(specs.Echo(), range(3))) == [0, 1, 2]
    assert "started the Ray cluster" in caplog.text
    assert capfd.readouterr().out == ""


@needs_ray
def test_a_cluster_that_is_lost_ends_the_fit(
    cluster: Cluster, without_torch: None, monkeypatch: pytest.MonkeyPatch, no_process_left: Callable[[], set[int]]
) -> None:
    """The last test with the cluster."""
    monkeypatch.setattr(ray_cluster, "SILENT_SECONDS", 2.0)
    results = RayExecutor(cluster.address, workers=2).run(specs.Who(0.1), itertools.count())
    assert next(results)["task"] == 0
    cluster.process.kill()  # all of the cluster goes with the process that started it
    with pytest.raises(ClusterError, match=r"lost.*executor='processes'"):
        list(results)


# ------------------------------------------------------------------------------------------- none reachable


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_listens(address: str) -> None:
    with pytest.raises(ClusterError, match=rf"^Ray cluster {address}: cannot be reached .* `ray start --head`"):
        list(make_executor(address).run(specs.Echo(), range(3)))


@needs_ray
def test_a_listener_that_never_answers(
    environment: None, monkeypatch: pytest.MonkeyPatch, no_process_left: Callable[[], set[int]]
) -> None:
    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 1.0)
    with socket.create_server((_LOOPBACK, 0)) as server:
        address = f"{_LOOPBACK}:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"^Ray cluster {address}: no answer within 1 s"):
            list(make_executor(address).run(specs.Echo(), range(3)))


@needs_ray
def test_nothing_is_joined_before_the_first_result_is_asked_for() -> None:
    RayExecutor("127.0.0.1:1").run(specs.Echo(), range(3))
    assert list(RayExecutor("127.0.0.1:1").run(specs.Echo(), [])) == []


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'inreach_fast\[ray\]'"):
        make_executor("ray")
