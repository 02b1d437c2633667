"""A fit is the same wherever its images are described and associated."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_fits import estimator, pictures, saved, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.errors import NonFiniteError, ParameterError
from inreach_fast.fit.image_job import ImageJob, ImageTask
from inreach_fast.method.descriptors import DescriptorSpace

SETTINGS: dict[str, Any] = {"min_channel_length": 1, "threshold_images": 4}


class Reversed:
    """An executor that does the tasks backwards, after a round trip of the spec, and gives them in their order."""

    def run(self, spec: Any, tasks: Any) -> Any:
        worker = pickle.loads(pickle.dumps(spec)).build()
        listed = [pickle.loads(pickle.dumps(task)) for task in tasks]
        done = {task.number: worker(task) for task in reversed(listed)}
        return iter([done[task.number] for task in listed])


@pytest.mark.parametrize("executor", ["processes:2", Reversed()])
def test_the_same_bytes_from_every_executor(executor: Any, tmp_path: Path) -> None:
    images = pictures(9)
    here = estimator(**SETTINGS).fit(images[:7])
    there = estimator(executor=executor, **SETTINGS).fit(images[:7])
    assert saved(there, tmp_path) == saved(here, tmp_path)
    assert saved(there.partial_fit(images[7:]), tmp_path) == saved(here.partial_fit(images[7:]), tmp_path)


def test_what_is_sent_can_be_rebuilt_without_the_network_itself() -> None:
    model = InReaCh("channels", backbone="efficientnet_lite2", weights="random", depth=2, image_size=32, dim=8)
    seeds = np.zeros((1, 64, 8), np.float32)
    spec = ImageJob(
        seed_images=np.array([0]),
        seed_rows=seeds,
        space=DescriptorSpace(),
        parameters=model.parameters,
        describer=model._describer,
        torch_threads=torch.get_num_threads(),
    )
    sent = pickle.dumps(spec)
    assert len(sent) < 20_000 + seeds.nbytes
    threads = torch.get_num_threads()
    worker = pickle.loads(sent).build()
    assert torch.get_num_threads() == threads
    pixels = pictures(1, (32, 32))[0]
    task = ImageTask(1, pixels, True, "a.png")
    ours, theirs = spec.build()(task), worker(task)
    for name in ("patch", "joined", "rows", "rest"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_errors_of_a_worker_name_the_image() -> None:
    backbone = tiny_backbone()
    images = pictures(5)
    with torch.no_grad():
        next(iter(backbone._network.parameters())).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"images\[\d\]"):
        estimator(backbone=backbone, executor=Reversed()).fit(images)


def test_an_executor_that_is_none() -> None:
    with pytest.raises(ParameterError, match="executor"):
        InReaCh("channels", executor="nowhere at all")
    with pytest.raises(ParameterError, match="executor"):
        InReaCh("channels", executor=5)
