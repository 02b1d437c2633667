"""`fit` and `predict`, backbone included, against bench/baseline.py; and the parts of `predict`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from inreach_fast import InReaCh, NominalModel, kernels

from . import baseline
from .records import Case, timed_case
from .timing import OURS, race
from .workload import Workload, resize

PEER = "baseline (the authors' way)"
FORWARD = "backbone forward"
WIDE_FORWARD = "WideResNet50-2 forward"
WITHOUT = "predict without the backbone"
PATCHES, UNSEEN = 300_000, 21


def run(
    work: Workload,
    *,
    quick: bool = False,
    images: int | None = None,
    rounds: int | None = None,
    patches: int | None = None,
) -> list[Case]:
    """Cases: fit, predict, and predict without the backbone against the backbone's forward pass, with the fitted model
    and with one of ``patches`` (300,000) nominal patches.
    """
    images = images or (8 if quick else 24)
    cases = _fitted_cases(work, images, rounds or (1 if quick else 3), quick)
    patches = patches or (30_000 if quick else PATCHES)
    return [*cases, large_model_case(work, patches, 5 if quick else UNSEEN)]


def _fitted_cases(work: Workload, images: int, rounds: int, quick: bool) -> list[Case]:
    # With as many seed images as images, no channel would pass the span filter.
    depth = min(10, max(2, images // 2))
    training, tests = work.training_images(images), work.test_images(5)
    backbone = work.backbone
    data = work.features
    # Warm up both: torch's convolution primitives, plans, file caches.
    for image in training[:2]:
        baseline.describe(backbone.extract(resize(image, work.image_size)[None]))
        work.describe(image)
    held: dict[str, Any] = {}

    def fit_ours() -> None:
        # The authors' seed images are the first ones.
        model = InReaCh(seed_selection="first", assoc_depth=depth, backbone=backbone, image_size=work.image_size)
        held[OURS] = model.fit(training)

    def fit_theirs() -> None:
        held[PEER] = baseline.fit(training, backbone, size=work.image_size, assoc_depth=depth)

    seconds = race({PEER: fit_theirs, OURS: fit_ours}, rounds=rounds, budget=200, warm=[])
    model, theirs = held[OURS], held[PEER]
    fit_case = timed_case(
        f"fit, {images} images, {depth} seeds",
        seconds,
        data=data,
        goals={PEER: 20},
        checks={"nominal patches that both chose": _agreement(model, theirs)},
        stages={OURS: dict(model.report_["seconds"]), PEER: theirs.seconds},
    )

    ours_next, theirs_next = cycle(tests), cycle(tests)
    seconds = race(
        {PEER: lambda: theirs.predict(next(theirs_next)), OURS: lambda: model.predict(next(ours_next))},
        rounds=3 if quick else 10,
        budget=60,
    )
    apart = max(_relative(model.predict(image).score, theirs.predict(image)[0]) for image in tests)
    predict_case = timed_case(
        f"predict, model of {images} images ({len(model.nominal_)} nominal patches)",
        seconds,
        data=data,
        goals={PEER: 20},
        checks={"largest relative difference of image scores": f"{apart:.1e}"},
    )
    return [fit_case, predict_case, _without_backbone(work, model, resize(tests[0], work.image_size), quick)]


def _without_backbone(work: Workload, model: Any, image: Any, quick: bool) -> Case:
    backbone = work.backbone
    levels = backbone.extract(image[None])
    grid = tuple(int(n) for n in levels[0].shape[-2:])
    rows = kernels.describe(levels, grid=grid)[0]
    # `score_descriptors` takes descriptors as the model holds them: with their position channels.
    scored = baseline.append_positions(rows, grid) if model.positions_ else rows

    def score() -> None:
        model.score_descriptors(scored)

    def everything() -> None:
        kernels.describe(levels, grid=grid)
        score()

    seconds = race(
        {
            FORWARD: lambda: backbone.extract(image[None]),
            WITHOUT: everything,
            "of which describe": lambda: kernels.describe(levels, grid=grid),
            "of which scores and map": score,
        },
        rounds=3 if quick else 11,
    )
    name = f"{WITHOUT}, against the forward pass of {backbone.name}"
    return timed_case(name, seconds, data=work.features, ours=WITHOUT)


def large_model_case(work: Workload, patches: int, unseen: int, forward: Callable[[], object] | None = None) -> Case:
    """Predict without the backbone on a model of ``patches`` nominal patches, a new unseen image each round.

    Every patch of as many training images as needed counts as nominal. ``forward`` is the pass to compare with: by
    default one WideResNet50-2 pass, cut after layer3, with random weights (the time is the same).
    """
    first = work.describe(work.training_images(1)[0])
    each, dim = first.shape
    count = -(-patches // each)
    rows = np.empty((count, each, dim), dtype=np.float32)
    for i, image in enumerate(work.training_images(count)):
        rows[i] = work.describe(image)
    levels = [work.backbone.extract(resize(image, work.image_size)[None]) for image in work.test_images(unseen)]
    grid = tuple(int(n) for n in levels[0][0].shape[-2:])
    model = InReaCh(assoc_depth=2, image_size=work.image_size, threshold_images=2)
    model.fit_descriptors(rows[:8], grid)
    # A fit gives the estimator its grid; its nominal patches are replaced before anything is scored.
    number = np.arange(count * each)
    image_of, patch = number // each, number % each
    model.nominal_ = NominalModel(rows.reshape(-1, dim), image_of, patch, image_of, patch)
    described: list[Any] = [kernels.describe(level, grid=grid)[0] for level in levels]
    whole, describe_only, score_only = cycle(levels), cycle(levels), cycle(described)
    seconds = race(
        {
            WIDE_FORWARD: forward or _wide_forward(),
            WITHOUT: lambda: model.score_descriptors(kernels.describe(next(whole), grid=grid)[0]),
            "of which describe": lambda: kernels.describe(next(describe_only), grid=grid),
            "of which scores and map": lambda: model.score_descriptors(next(score_only)),
        },
        rounds=unseen,
        budget=60,
    )
    return timed_case(
        f"{WITHOUT}, {len(model.nominal_)} nominal patches, {unseen} unseen images in turn",
        seconds,
        data=work.features,
        ours=WITHOUT,
        goals={WIDE_FORWARD: 1},
    )


def _wide_forward() -> Callable[[], object]:
    import torch

    from .bench_describe import CutBackbone

    network = CutBackbone().eval().to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def forward() -> object:
        with torch.inference_mode():
            return network(image)

    return forward


def _agreement(model: Any, theirs: baseline.Model) -> str:
    patches = theirs.grid[0] * theirs.grid[1]
    a = set((model.nominal_.image_index * patches + model.nominal_.patch_index).tolist())
    b = set((theirs.image_index * patches + theirs.patch_index).tolist())
    return f"{len(a & b) / max(len(a | b), 1):.3%} of {len(a | b)}"


def _relative(a: float, b: float) -> float:
    return float(np.abs(a - b) / max(abs(a), abs(b), 1e-30))
