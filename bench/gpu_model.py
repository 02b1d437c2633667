"""Whole images on a GPU: `fit` against the CPU's, `predict` alone and in a stream, and a search of real descriptors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from inreach_fast import InReaCh, NominalModel
from inreach_fast.backbones import Backbone, backbone_from_spec, load_backbone
from inreach_fast.errors import BackboneError

from . import records, timing
from .baseline import append_positions
from .gpu_machine import Gpu
from .workload import Workload, describe

# The bench's own backbone (trained levels of WideResNet50-2's shapes), and that network itself.
NETWORKS = ("auto", "wide_resnet50_2")
_FRAMES, _UNSEEN, _FIT_IMAGES = 300, 16, 24
ON_CPU = "inreach_fast on the CPU"

NearestCase = Callable[[Gpu, Any, Any, int, str], records.Case]


def run(
    work: Workload, network: str, gpu: Gpu, *, patches: int, quick: bool, nearest: NearestCase
) -> list[records.Case]:
    """Cases of one network.

    Args:
        work: images, and the backbone that "auto" means.
        network: "auto", or a name for `load_backbone`; without its weights it gets random ones, which take the same
            time.
        patches: nominal patches of the model that predicts.
        nearest: makes a case of queries and rows on the GPU (bench/gpu.py).
    """
    there = work.backbone if network == "auto" else _loaded(network)
    here = there if gpu.device == "cpu" else backbone_from_spec(there.spec, device=gpu.device)
    data = f"{there.name} ({_weights(there)} weights) of {work.source}"
    unseen = work.test_images(_UNSEEN)
    rows, each = _described(work, here, patches)
    queries = torch.from_numpy(describe(unseen[0], here, work.image_size)).to(gpu.device)
    cases = [nearest(gpu, queries, torch.from_numpy(rows).to(gpu.device), 3 if quick else 9, data)]
    cases.append(_fit(work, there, here, gpu, data, quick))
    return cases + _frames(work, here, gpu, rows, each, unseen, data, _FRAMES // 10 if quick else _FRAMES)


def _loaded(name: str) -> Backbone:
    try:
        return load_backbone(name)
    except BackboneError:
        return load_backbone(name, weights="random")


def _weights(backbone: Any) -> str:
    found = backbone.spec.get("weights")
    return found if found in ("official", "random") else "own"  # results are published: no path of a file


def _described(work: Workload, backbone: Any, patches: int) -> tuple[Any, int]:
    """(n, D) float32: descriptors of as many training images as ``patches`` rows take; and the patches of an image."""
    each = len(describe(work.training_images(1)[0], backbone, work.image_size))
    count = -(-patches // each)
    return np.concatenate([describe(image, backbone, work.image_size) for image in work.training_images(count)]), each


def _model(work: Workload, backbone: Any, gpu: Gpu, images: list[Any], depth: int, **more: Any) -> InReaCh:
    model = InReaCh(backbone=backbone, device=gpu.device, image_size=work.image_size, assoc_depth=depth, **more)
    return model.fit(images)


def _fit(work: Workload, there: Any, here: Any, gpu: Gpu, data: str, quick: bool) -> records.Case:
    count = 8 if quick else _FIT_IMAGES
    images = work.training_images(count)
    held: dict[str, InReaCh] = {}

    def fit(who: str, backbone: Any, where: Gpu) -> Callable[[], None]:
        def fitted() -> None:
            held[who] = _model(work, backbone, where, images, min(10, count // 2))

        return fitted

    seconds = timing.race(
        {ON_CPU: fit(ON_CPU, there, Gpu("cpu")), timing.OURS: fit(timing.OURS, here, gpu)},
        rounds=1 if quick else 3,
        budget=120,
        warm=[timing.OURS],
    )
    chosen = {who: _places(model) for who, model in held.items()}
    both, either = chosen[ON_CPU] & chosen[timing.OURS], chosen[ON_CPU] | chosen[timing.OURS]
    return records.timed_case(
        f"fit, {count} images",
        seconds,
        data=data,
        checks={"nominal patches that both chose": f"{len(both) / max(1, len(either)):.2%}", **gpu.facts()},
        stages={who: dict(model.report_["seconds"]) for who, model in held.items()},
    )


def _places(model: InReaCh) -> set[tuple[int, int]]:
    return set(zip(model.nominal_.image_index.tolist(), model.nominal_.patch_index.tolist(), strict=True))


def _warnings(work: Callable[[], object]) -> list[str]:
    """The package's log messages during the work, such as that a network could not be captured."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("inreach_fast")
    log.addHandler(handler)
    try:
        work()
    finally:
        log.removeHandler(handler)
    return messages


def _route(model: InReaCh, messages: list[str]) -> str:
    if model._ready(images=True).gpu is None:
        return "through the CPU's memory"
    # Without torch's own message after the colon.
    uncaptured = any("no CUDA graph" in line for line in messages)
    return "on the GPU, launch by launch" if uncaptured else "on the GPU, captured"


def _agreement(model: InReaCh, image: Any) -> str:
    """Whether the score of the GPU has the same bits as the CPU kernels' score of the same features."""
    found = model.predict(image)
    rows = model._ready(images=True).describe(model.geometry.apply(image)[None])[0]
    return "the CPU's bits" if found.score == model.score_descriptors(rows).score else "NOT the CPU's bits"


def _frames(
    work: Workload, backbone: Any, gpu: Gpu, rows: Any, each: int, unseen: list[Any], data: str, frames: int
) -> list[records.Case]:
    """Latency of `predict` at batch 1, and an image's time in `predict_stream`."""
    # A fit gives the estimator its grid; its nominal patches are replaced.
    model = _model(work, backbone, gpu, work.training_images(8), 4, min_channel_length=1)
    if model.positions_:  # decided by this fit; the work of a search is the same either way
        rows = np.concatenate([append_positions(one, model.grid_) for one in rows.reshape(-1, each, rows.shape[1])])
    number = np.arange(len(rows))
    image_of, patch = number // each, number % each
    model.nominal_ = NominalModel(rows, image_of, patch, image_of, patch)
    messages = _warnings(lambda: [model.predict(image) for image in unseen[:8]])
    alone = []
    for image in islice(cycle(unseen), frames):
        begun = time.perf_counter()
        model.predict(image)
        alone.append(1e3 * (time.perf_counter() - begun))
    for _ in model.predict_stream(islice(cycle(unseen), 8)):
        pass
    begun = time.perf_counter()
    count = sum(1 for _ in model.predict_stream(islice(cycle(unseen), frames)))
    in_stream = 1e3 * (time.perf_counter() - begun) / count
    median, p99 = float(np.median(alone)), float(np.quantile(alone, 0.99))
    name = f"predict, {work.image_size} px, {len(rows):,} patches, {frames} frames"
    latency = {"median": median, "p99": p99}
    return [
        records.value_case(name, latency, data=data, unit="ms", limits={"median": 5.0},
                           checks={"way": _route(model, messages), "answers": _agreement(model, unseen[0]),
                                   **gpu.facts()}),
        records.value_case(f"{name}: p99 over median", {"ratio": p99 / median}, data=data, unit="x",
                           limits={"ratio": 1.5}),
        records.value_case(f"{name}: an image in predict_stream", {"inreach_fast": in_stream}, data=data, unit="ms",
                           limits={"inreach_fast": 2.0}),
    ]  # fmt: skip
