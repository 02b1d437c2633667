"""A fit's images spread over processes: the same model, to the byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_fits

from inreach_fast import InReaCh
from inreach_fast.backbones import load_backbone
from inreach_fast.errors import ClusterError, ParameterError, WorkerLostError
from inreach_fast.executors import LocalExecutor

pytestmark = [
    pytest.mark.usefixtures("no_process_left"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]


def test_killed_workers_change_nothing(tmp_path: Path, no_process_left: Callable[[], set[int]]) -> None:
    pictures = small_fits.pictures(16)
    want = small_fits.saved(small_fits.estimator().fit(pictures), tmp_path)
    killed: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "associate" and done == 3:
            for pid in no_process_left():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    model = small_fits.estimator(executor="processes:2").fit(pictures, progress=progress)
    assert small_fits.saved(model, tmp_path) == want
    assert len(killed) == 2


def test_a_network_that_workers_rebuild(tmp_path: Path) -> None:
    parameters: dict[str, Any] = {
        "backbone": "efficientnet_lite2",
        "weights": "random",
        "depth": 3,
        "image_size": 48,
        "dim": 32,
        "assoc_depth": 3,
        "min_channel_length": 1,
    }
    pictures = small_fits.pictures(6)
    here = InReaCh("channels", **parameters).fit(pictures)
    there = InReaCh("channels", executor="processes:1", **parameters).fit(pictures)
    assert small_fits.saved(here, tmp_path) == small_fits.saved(there, tmp_path)


def test_a_network_that_cannot_be_pickled_is_refused_before_anything_is_started() -> None:
    backbone = load_backbone("efficientnet_lite2", weights="random", depth=2)
    backbone.spec["rebuildable"] = False
    backbone._network.mine = lambda: None  # type: ignore[assignment]
    # The folded network would be another object, without the attribute.
    runtime = {"backbone_runtime": "torch-unfolded"}
    model = InReaCh("channels", backbone=backbone, image_size=48, dim=16, executor="processes:1", **runtime)
    with pytest.raises(ParameterError, match=r"^spec: a \w+ that cannot be sent.*executor='local'"):
        model.fit(small_fits.pictures(5))


def test_the_model_does_not_depend_on_the_executor(tmp_path: Path) -> None:
    class Mine(LocalExecutor):
        ran = 0

        def run(self, spec: Any, tasks: Any) -> Any:
            Mine.ran += 1
            return super().run(spec, tasks)

    want = small_fits.saved(small_fits.estimator().fit(small_fits.pictures(8)), tmp_path)
    assert small_fits.saved(small_fits.estimator(executor=Mine()).fit(small_fits.pictures(8)), tmp_path) == want
    assert Mine.ran == 1


def test_a_run_that_fails_leaves_the_estimator_usable(tmp_path: Path) -> None:
    class Loses:
        def run(self, spec: Any, tasks: Any) -> Any:
            raise WorkerLostError("lost")

    model = small_fits.estimator().fit(small_fits.pictures(8))
    before = small_fits.saved(model, tmp_path)
    model.executor = Loses()
    with pytest.raises(WorkerLostError):
        model.partial_fit(small_fits.pictures(3, seed=4))
    model.executor = "local"
    assert small_fits.saved(model, tmp_path) == before


def test_what_was_done_before_a_cluster_was_lost_stays_in_the_spool(tmp_path: Path) -> None:
    described: list[int] = []

    class Lost(LocalExecutor):
        def run(self, spec: Any, tasks: Any) -> Any:
            for done, result in enumerate(super().run(spec, tasks)):
                if done == 5:
                    raise ClusterError("lost")
                yield result

    class Counts(LocalExecutor):
        def run(self, spec: Any, tasks: Any) -> Any:
            def counted() -> Any:
                for task in tasks:
                    described.append(task.number)
                    yield task

            return super().run(spec, counted())

    pictures, spool = small_fits.pictures(9), tmp_path / "spool"
    want = small_fits.saved(small_fits.estimator().fit(pictures), tmp_path)
    with pytest.raises(ClusterError):
        small_fits.estimator(executor=Lost()).fit(pictures, spool=spool)
    model = small_fits.estimator(executor=Counts()).fit(pictures, spool=spool, resume=True)
    assert described == [5, 6, 7, 8]
    assert small_fits.saved(model, tmp_path) == want
